"""Records golden files: runs a reference on some images and writes what every layer gives; see ``golden``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bnn_deploy.data.dataset import Dataset
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import ModelFileError
from bnn_deploy.files import file_sha256, require_writable
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.references.choose_layers import open_layers
from bnn_deploy.references.golden import Golden, is_mask
from bnn_deploy.references.golden_header import GoldenHeader, GoldenSign
from bnn_deploy.references.layer_values import SignValues
from bnn_deploy.references.margin import RELATIVE_MARGIN
from bnn_deploy.references.stored_arrays import write_arrays
from bnn_deploy.references.whole_model import open_reference

# Images of --data that are recorded if the user names no number.
DEFAULT_SAMPLES = 8


def record_golden(
    onnx_path: Path,
    output: Path,
    *,
    reference: str = "onnxruntime",
    data: Path | None = None,
    samples: int | None = None,
    weights: Path | None = None,
    options: ImportOptions | None = None,
    progress: ReportProgress = quiet,
) -> Golden:
    """Run a reference and write what every layer gives. The same model, images and machine give the same bytes.

    Args:
        onnx_path: the file that bundles are compiled from.
        output: the golden file.
        reference: "onnxruntime" or "torch".
        data: see ``data.open_dataset``; None takes the images that the model was calibrated on, or random ones.
        samples: record the first so many; None takes 8 of ``data``, or all that the model was calibrated on.
        weights: the checkpoint that the file was exported with, for "torch".
        options: the choices that a foreign graph leaves, as for ``compile``.
        progress: told what is being done.

    Raises:
        InputError: data that does not fit, too few images, or a file that cannot be written.
        ModelFileError: the ONNX file or the checkpoint cannot be used.
        ToolError: onnxruntime refuses the file.
    """
    require_writable(output)
    progress(f"{onnx_path}: preparing the reference")
    layers = open_layers(reference, open_model(onnx_path, options), onnx_path, weights)
    metadata = {item.key: item.value for item in layers.model.metadata_props}
    dataset, count = _chosen_images(onnx_path, metadata, data, samples)
    images, labels = next(dataset.batches(count, count))
    progress(f"record {count} images")
    values = layers.capture(images)
    logits = layers.model.graph.output[0].name
    header = GoldenHeader(
        onnx_file=onnx_path.name,
        onnx_sha256=_sha256(onnx_path),
        reference=reference,
        data=dataset.source,
        metadata=metadata,
        image_shape=layers.input_shape,
        images=count,
        classes=values.logits.shape[1],
        labelled=labels is not None,
        output=logits,
        output_margin=values.float_margins.get(logits, RELATIVE_MARGIN),
        notes=values.notes,
        signs=tuple(_header_of(sign) for sign in values.signs.values()),
    )
    golden = Golden(output, header, images, labels, values)
    write_arrays(output, _arrays(golden))
    return golden


def _chosen_images(
    onnx_path: Path, metadata: Mapping[str, str], data: Path | None, samples: int | None
) -> tuple[Dataset, int]:
    """The images, and how many of them are recorded."""
    whole = open_reference("onnxruntime", onnx_path)
    if data is None:
        dataset = whole.default_dataset(samples)
        return dataset, dataset.samples
    dataset = open_dataset(data, whole.input_shape, whole.classes, metadata, str(onnx_path))
    return dataset, min(DEFAULT_SAMPLES, dataset.samples) if samples is None else dataset.number_asked(samples)


def _arrays(golden: Golden) -> dict[str, np.ndarray]:
    """What the file holds, by the names in ``golden``."""
    arrays = {"header": np.frombuffer(golden.header.to_json(), np.uint8), "images": golden.images}
    if golden.labels is not None:
        arrays["labels"] = golden.labels.astype(np.int64)
    arrays["logits"] = golden.logits
    for number, sign in enumerate(golden.values.signs.values()):
        on = sign.near_distance == 0
        planes = [sign.values == 1, sign.values == -1] if sign.ternary else [sign.values == 1]
        arrays[f"sign_{number}.bits"] = np.stack([_packed(plane) for plane in planes])
        arrays[f"sign_{number}.on_threshold"] = _stored_positions(sign.near_index[on], sign.values.size)
        arrays[f"sign_{number}.near"] = _stored_positions(sign.near_index[~on], sign.values.size)
        arrays[f"sign_{number}.distance"] = sign.near_distance[~on]
    return arrays


def _header_of(sign: SignValues) -> GoldenSign:
    on = int((sign.near_distance == 0).sum())
    return GoldenSign(
        sign.layer,
        sign.tensor,
        sign.fed_by,
        tuple(sign.values.shape),
        sign.ternary,
        sign.scale,
        sign.margin,
        tuple(tuple(int(count) for count in row) for row in sign.histograms),
        on,
        len(sign.near_index) - on,
    )


def _packed(flags: np.ndarray) -> np.ndarray:
    return np.packbits(flags.reshape(-1), bitorder="little")


def _stored_positions(positions: np.ndarray, size: int) -> np.ndarray:
    if not is_mask(len(positions), size):
        return positions.astype(np.int64)
    flags = np.zeros(size, bool)
    flags[positions] = True
    return _packed(flags)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror}.") from error
