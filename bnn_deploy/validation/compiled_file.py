"""The ONNX file that a bundle was compiled from, as the compiler saw it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_deploy.bundle.tensor_table import TensorTable
from bnn_deploy.validation.origin import recorded_options

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.exact.network import ExactNetwork
    from bnn_deploy.frontend.open_model import OpenedModel
    from bnn_deploy.validation.graph_paths import GraphPaths


class CompiledFile:
    """A file, opened once, with the choices that the bundle was compiled with, and only if somebody asks."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.path = path
        self._bundle = bundle

    @cached_property
    def opened(self) -> OpenedModel:
        """The model; raises ModelFileError if the file cannot be used, BundleError if the bundle's choices make no sense."""
        from bnn_deploy.frontend.open_model import open_model

        return open_model(self.path, recorded_options(self._bundle))

    def paths(self, table: TensorTable) -> GraphPaths:
        """What lies between the values of ``table``."""
        from bnn_deploy.validation.graph_paths import GraphPaths

        return GraphPaths(self.opened.model, table, self.opened.foreign)

    def exact_network(self, table: TensorTable | None) -> ExactNetwork:
        """Its exact evaluation, which knows the values of ``table`` if that is given."""
        from bnn_deploy.exact.network import ExactNetwork
        from bnn_deploy.passes.pipeline import pack_network

        network = ExactNetwork(pack_network(self.opened.model, self._bundle.batch))
        if table is not None:
            network.follow({entry.key: entry.channels_last for entry in table.entries})
        return network
