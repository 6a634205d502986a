"""What the references that compute the layers of an ONNX file have in common: the graph, and the way from batches to values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bnn_deploy.frontend.open_model import OpenedModel
from bnn_deploy.references.batches import check_images, images_at_once, may_keep
from bnn_deploy.references.graph_signs import sign_nodes, sign_places
from bnn_deploy.references.layer_values import LayerValues, RawLayers, measure
from bnn_deploy.references.model_shapes import model_shapes
from bnn_deploy.references.rounding import Rounding


class GraphLayers:
    """The ground of a ``LayerReference``.

    Attributes:
        path: of the file.
        model: the graph that the compiler sees.
        places: its binarisations, in their order.
        signs: their nodes.
        input_shape: shape of one image.
    """

    def __init__(self, opened: OpenedModel, path: Path) -> None:
        """``opened`` is what ``frontend.open_model`` makes of the file ``path``; raises InputError as ``model_shapes`` does."""
        self.path, self.model = path, opened.model
        self.places, self.signs = sign_places(opened.model), sign_nodes(opened.model)
        self._shapes = model_shapes(opened.model, path)
        self.input_shape = self._shapes.image

    def _rounding(self, images: np.ndarray, floats: Sequence[str]) -> Rounding:
        """How far rounding moves values, ``floats`` among them; raises InputError for images of another shape or type."""
        check_images(images, self.input_shape)
        return Rounding(self.model, self._shapes.batch, floats, str(self.path))

    def _measure(
        self,
        images: np.ndarray,
        rounding: Rounding,
        run: Callable[[np.ndarray], RawLayers],
        notes: Sequence[str] = (),
    ) -> LayerValues:
        """The values of all images from those that ``run`` gives of one batch."""
        size = self._shapes.batch or images_at_once(self.input_shape)

        def batches() -> Iterator[RawLayers]:
            for start in range(0, len(images), size):
                yield run(images[start : start + size])

        return measure(
            self.places,
            batches,
            lambda raw: rounding.margins(images[: len(raw.logits)], raw),
            may_keep(images),
            notes,
        )
