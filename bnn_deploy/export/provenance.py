"""How an exported model was made, kept in its ONNX metadata, so that the same PyTorch model can be built again.

Keys: ``bnn_deploy.model``, ``.variant`` (empty where the model has none), ``.num_classes``, ``.input_size``,
``.weights`` (a few words), ``.weights_sha256`` (of the model's parameters), ``.preprocessing`` (JSON, see
``preprocessing``), for seeded weights ``.calibration`` (JSON, see ``models.calibration``), and for weights that `train`
wrote ``.class_names`` (JSON, see ``class_names``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata import class_names
from bnn_deploy.models.calibration import CalibrationReport, calibration_metadata, seeded_model
from bnn_deploy.models.registry import build_model, find_spec, input_shape
from bnn_deploy.weights.load_checkpoint import CheckpointReport, ZeroWeights, load_checkpoint
from bnn_deploy.weights.weights_file import WeightsDescription, describe_weights

PREFIX = "bnn_deploy."
CALIBRATION_SAMPLES = 2
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class BuiltModel:
    """A PyTorch model with its weights, in evaluation mode.

    Attributes:
        module: float32 (N, *input_shape) to logits (N, classes).
        input_shape: (channels, height, width).
        metadata: for the ONNX file.
        calibration: margins of seeded weights; None for weights from a file.
        checkpoint: what was found in the file of weights; None for seeded ones.
    """

    module: nn.Module
    input_shape: tuple[int, int, int]
    metadata: dict[str, str]
    calibration: CalibrationReport | None
    checkpoint: CheckpointReport | None


def build(
    name: str,
    *,
    variant: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
    seed: int = 0,
    weights: Path | None = None,
    zero_weights: ZeroWeights = "error",
) -> BuiltModel:
    """Build a model of ``models.registry`` with the weights of a checkpoint, or with seeded, calibrated random ones.

    A checkpoint that `train` wrote says itself which variant, class count and input size it has; those given here must be
    the same. ``zero_weights`` says what becomes of a checkpoint's binary weights that are exactly 0: see
    ``load_checkpoint``.

    Raises:
        InputError: an unknown name or variant, sizes that the model cannot have, or others than the checkpoint's.
        ModelFileError: the checkpoint cannot be read or does not fit.
    """
    described = None if weights is None else describe_weights(weights)
    if weights is None or described is None:
        return _build(name, variant, num_classes, input_size, seed, weights, zero_weights)
    find_spec(name)  # which names the models there are, before a wrong name is compared
    _require_same(described, weights, name, variant, num_classes, input_size)
    size, classes = described.preprocessing.crop[0], len(described.class_names)
    built = _build(name, described.variant or None, classes, size, seed, weights, zero_weights)
    built.metadata[PREFIX + "preprocessing"] = described.preprocessing.to_json()
    built.metadata[class_names.KEY] = class_names.class_names_json(described.class_names)
    return built


def _require_same(
    described: WeightsDescription,
    weights: Path,
    name: str,
    variant: str | None,
    num_classes: int | None,
    input_size: int | None,
) -> None:
    """Of the model and the options given, None where the user gave none."""
    if name != described.model:
        raise InputError(
            f"{weights}: holds weights of {described.model}, not of {name}; export {described.model}, or give weights "
            f"of {name}."
        )
    if any(described.training.get(part, "binary") != "binary" for part in ("activations", "weights")):
        raise InputError(
            f"{weights}: was trained with real activations or weights, and would be another network if they were made "
            "binary; give the weights of the run's last step, weights.safetensors."
        )
    for option, given, found in (
        ("--variant", variant, described.variant),
        ("--num-classes", num_classes, len(described.class_names)),
        ("--input-size", input_size, described.preprocessing.crop[0]),
    ):
        if given is not None and given != found:
            raise InputError(
                f"{weights}: was trained with {option} {found}, but {option} {given} was given; leave the option out."
                if found
                else f"{weights}: {name} has no variant, but {option} {given} was given; leave the option out."
            )


def _build(
    name: str,
    variant: str | None,
    num_classes: int | None,
    input_size: int | None,
    seed: int,
    weights: Path | None,
    zero_weights: ZeroWeights,
) -> BuiltModel:
    spec = find_spec(name)
    shape = input_shape(name, input_size)
    calibration, checkpoint = None, None
    if weights is None:
        with _one_thread():
            module, calibration = seeded_model(
                name, seed, CALIBRATION_SAMPLES, variant=variant, num_classes=num_classes, input_size=input_size
            )
    else:
        module = build_model(name, variant=variant, num_classes=num_classes, input_size=input_size)
        checkpoint = load_checkpoint(module, weights, zero_weights)
    metadata = {
        "model": name,
        "variant": variant or (spec.variants[0] if spec.variants else ""),
        "num_classes": str(spec.num_classes if num_classes is None else num_classes),
        "input_size": str(shape[-1]),
        "weights": f"seeded random weights, seed {seed}, calibrated" if weights is None else weights.name,
        "weights_sha256": parameters_sha256(module),
    }
    metadata["preprocessing"] = spec.preprocessing(shape[-1]).to_json()
    if weights is None:
        metadata["calibration"] = calibration_metadata(seed, CALIBRATION_SAMPLES, shape)
    return BuiltModel(module, shape, {PREFIX + key: value for key, value in metadata.items()}, calibration, checkpoint)


def rebuild(
    metadata: Mapping[str, str], weights: Path | None, source: Path, shape: tuple[int, ...], classes: int
) -> BuiltModel:
    """Build the model that the metadata of the ONNX file ``source`` describe.

    Args:
        metadata: of the file.
        weights: the checkpoint that it was exported with, if it was.
        source: for messages.
        shape: of one input of the file's graph.
        classes: logits of the file's graph.

    Raises:
        InputError: the metadata describe a model that cannot be.
        ModelFileError: the metadata lack something or do not fit the graph; a checkpoint is needed, not wanted, or
            holds other weights; seeded weights come out differently here.
    """
    name = _required(metadata, "model", source)
    input_size, num_classes = _integer(metadata, "input_size", source), _integer(metadata, "num_classes", source)
    # Before anything of these sizes is built: the metadata are as little trusted as the rest of the file.
    if input_shape(name, input_size) != shape or num_classes != classes:
        raise ModelFileError(
            f"{source}: takes images {shape} to {classes} logits, but its metadata describe {name} from "
            f"{input_shape(name, input_size)} to {num_classes}; export it again."
        )
    calibration = calibration_of(metadata, source)
    if calibration is None and weights is None:
        raise ModelFileError(
            f"{source}: exported with the weights {metadata.get(PREFIX + 'weights', 'of a file')!r}; "
            "to compare with PyTorch give the same file with --weights."
        )
    if calibration is not None and weights is not None:
        raise ModelFileError(f"{source}: exported with seeded random weights, not from a file; leave --weights out.")
    built = _build(
        name,
        metadata.get(PREFIX + "variant") or None,
        num_classes,
        input_size,
        0 if calibration is None else calibration.seed,
        weights,
        # The choice was made at export; the hash says whether these are the same weights.
        zero_weights="-1",
    )
    if built.metadata[PREFIX + "weights_sha256"] == _required(metadata, "weights_sha256", source):
        return built
    if weights is not None:
        raise ModelFileError(
            f"{weights}: holds other weights than those that {source} was exported with; "
            "give the file used then, or export again."
        )
    # Calibration computes in float32, so another kind of processor or another torch rounds other thresholds.
    raise ModelFileError(
        f"{source}: its seeded weights cannot be made again here, since it was exported on another kind of machine or "
        "with another version of PyTorch; export it again here, or use --reference onnxruntime."
    )


@dataclass(frozen=True)
class Calibration:
    """Arguments of ``models.calibration.calibration_inputs``."""

    seed: int
    samples: int
    shape: tuple[int, ...]


def calibration_of(metadata: Mapping[str, str], source: Path) -> Calibration | None:
    """The calibration inputs that the metadata of the ONNX file ``source`` describe, or None.

    Raises:
        ModelFileError: an entry that cannot be understood.
    """
    text = metadata.get(PREFIX + "calibration")
    if not text:
        return None
    try:
        entry = json.loads(text)
        seed, samples, shape = int(entry["seed"]), int(entry["samples"]), tuple(int(side) for side in entry["shape"])
        if entry["kind"] != "normal" or not 0 <= seed <= LARGEST_SEED:
            raise ValueError("unknown kind or seed")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(
            f"{source}: its metadata entry {PREFIX}calibration cannot be understood ({error}); export the model again."
        ) from error
    return Calibration(seed, samples, shape)


def parameters_sha256(module: nn.Module) -> str:
    """SHA-256 of the names, shapes and float32 values of all parameters and running statistics."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch's order of summation follows the number of threads, and calibration turns that into other thresholds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _required(metadata: Mapping[str, str], key: str, source: Path) -> str:
    value = metadata.get(PREFIX + key)
    if not value:
        raise ModelFileError(
            f"{source}: its metadata do not say how to build it in PyTorch ({PREFIX}{key} is missing); "
            "use --reference onnxruntime, or export the model with this bnn-deploy."
        )
    return value


def _integer(metadata: Mapping[str, str], key: str, source: Path) -> int:
    value = _required(metadata, key, source)
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise ModelFileError(
            f"{source}: its metadata entry {PREFIX}{key} is {value[:40]!r}, not a number; export the model again."
        )
    return int(value)
