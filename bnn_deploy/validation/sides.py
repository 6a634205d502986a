"""The side that a bundle is compared with: a model that can be run, or a golden file of what one computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import InputError
from bnn_deploy.validation.compiled_file import CompiledFile
from bnn_deploy.validation.origin import check_origin, recorded_activations
from bnn_deploy.validation.resume import KeptCounts, Resumable

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.references.layer_values import LayerReference
    from bnn_deploy.references.zero_count import ZeroCounter

EXACT = "exact evaluation"
GOLDEN = "golden"


@dataclass(frozen=True)
class Side:
    """What the bundle is compared with.

    Attributes:
        name: "onnxruntime", "torch" or "golden".
        onnx_path: the model's file, None if there is only a golden file.
        input_shape: shape of one image.
        classes: number of logits.
        batch: images that it takes at a time, 1 if any number will do.
        run: float32 (n, *input_shape) to float32 (n, classes).
        dataset: the images.
        layers: opens the same as a source of the layers' values.
        zeros: counts values on thresholds while ``run`` is used, if there are signs to watch.
        identity: more of what results depend on, see ``resume.fingerprint``.
    """

    name: str
    onnx_path: Path | None
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    run: Callable[[np.ndarray], np.ndarray]
    dataset: Dataset
    layers: Callable[[], LayerReference]
    zeros: ZeroCounter | None = None
    identity: Mapping[str, str] = field(default_factory=dict)

    def kept(self) -> dict[str, Resumable]:
        """Totals that grow while ``run`` is used."""
        if self.zeros is None:
            return {}
        return {"zeros": KeptCounts({"compared": self.zeros.compared, "zeros": self.zeros.zeros})}


def open_side(
    reference: str,
    compiled: CompiledFile | None,
    bundle: Bundle,
    *,
    weights: Path | None = None,
    golden: Path | None = None,
    data: Path | None = None,
    samples: int | None = None,
) -> Side:
    """Prepare the reference; ``compiled`` is the ONNX file if there is one, other arguments are those of ``validate``.

    Raises:
        InputError: options that exclude each other, data that does not fit.
        ModelFileError: the ONNX file or the checkpoint cannot be used.
        BundleError: the manifest is damaged.
    """
    if (reference == GOLDEN) != (golden is not None):
        raise InputError("A golden file is the reference golden, and that reference is a golden file; give both.")
    if golden is not None:
        if weights is not None or data is not None:
            raise InputError(
                f"{golden}: a golden file holds its images and what the model made of them; leave --data and --weights out."
            )
        return _golden_side(golden, None if compiled is None else compiled.path)
    if compiled is None:
        raise InputError(f"The reference {reference} runs the ONNX file that the bundle was compiled from; give it.")
    return _model_side(reference, compiled, bundle, weights, data, samples)


def _model_side(
    reference: str, compiled: CompiledFile, bundle: Bundle, weights: Path | None, data: Path | None, samples: int | None
) -> Side:
    from bnn_deploy.references.choose_layers import open_layers
    from bnn_deploy.references.whole_model import open_reference

    onnx_path = compiled.path
    strangers = check_origin(onnx_path, bundle)
    watched = [] if strangers or reference != "onnxruntime" else recorded_activations(onnx_path, bundle)
    model = open_reference(reference, onnx_path, weights, watched)
    if data is None:
        dataset = model.default_dataset(samples)
    else:
        dataset = open_dataset(
            data, model.input_shape, model.classes, bundle.manifest.get("model", {}), str(bundle.path)
        )
    return Side(
        name=reference,
        onnx_path=onnx_path,
        input_shape=model.input_shape,
        classes=model.classes,
        batch=model.batch,
        run=model.run,
        dataset=dataset,
        layers=lambda: open_layers(reference, compiled.opened, onnx_path, weights),
        zeros=model.zeros,
    )


def _golden_side(path: Path, onnx_path: Path | None) -> Side:
    from bnn_deploy.files import file_sha256
    from bnn_deploy.references.golden import Golden

    golden = Golden.open(path)
    images = golden.images

    def chunks(size: int) -> Iterator[Batch]:
        for start in range(0, len(images), size):
            labels = None if golden.labels is None else golden.labels[start : start + size]
            yield images[start : start + size], labels

    return Side(
        name=GOLDEN,
        onnx_path=onnx_path,
        input_shape=golden.input_shape,
        classes=golden.logits.shape[1],
        batch=1,
        run=golden.run,
        dataset=Dataset(f"golden file {path}", len(images), golden.labels is not None, chunks),
        layers=lambda: golden,
        identity={"golden": file_sha256(path)},
    )
