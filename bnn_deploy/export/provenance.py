"""How an exported model is made, kept in its ONNX metadata, so that the same PyTorch model can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata import entries
from bnn_deploy.metadata.calibration import Calibration, calibration_of
from bnn_deploy.metadata.class_names import class_names_json
from bnn_deploy.models.calibration import CalibrationReport, seeded_model
from bnn_deploy.models.registry import Architecture, architecture, find_spec
from bnn_deploy.weights.load_checkpoint import CheckpointReport, ZeroWeights, load_checkpoint
from bnn_deploy.weights.weights_file import WeightsDescription, describe_weights

CALIBRATION_SAMPLES = 2


@dataclass(frozen=True)
class BuiltModel:
    """A PyTorch model with its weights, in evaluation mode.

    Attributes:
        module: float32 (N, *input_shape) to logits (N, classes).
        input_shape: (channels, height, width).
        metadata: for the ONNX file, see ``metadata.entries``.
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
        chosen = architecture(name, variant=variant, num_classes=num_classes, input_size=input_size)
        return (
            _with_seeded_weights(chosen, seed) if weights is None else _with_weights_of(chosen, weights, zero_weights)
        )
    find_spec(name)  # which names the models there are, before a wrong name is compared
    _require_same(described, weights, name, variant, num_classes, input_size)
    built = _with_weights_of(described.architecture, weights, zero_weights)
    built.metadata[entries.PREPROCESSING] = described.preprocessing.to_json()
    built.metadata[entries.CLASS_NAMES] = class_names_json(described.class_names)
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


def _with_seeded_weights(chosen: Architecture, seed: int) -> BuiltModel:
    with _one_thread():
        module, report = seeded_model(
            chosen.name,
            seed,
            CALIBRATION_SAMPLES,
            variant=chosen.variant or None,
            num_classes=chosen.num_classes,
            input_size=chosen.input_size,
        )
    metadata = _metadata(chosen, module, f"seeded random weights, seed {seed}, calibrated")
    metadata[entries.CALIBRATION] = Calibration(seed, CALIBRATION_SAMPLES, chosen.input_shape).to_json()
    return BuiltModel(module, chosen.input_shape, metadata, report, None)


def _with_weights_of(chosen: Architecture, weights: Path, zero_weights: ZeroWeights) -> BuiltModel:
    module = chosen.build()
    report = load_checkpoint(module, weights, zero_weights)
    return BuiltModel(module, chosen.input_shape, _metadata(chosen, module, weights.name), None, report)


def _metadata(chosen: Architecture, module: nn.Module, weights: str) -> dict[str, str]:
    return {
        entries.MODEL: chosen.name,
        entries.VARIANT: chosen.variant,
        entries.NUM_CLASSES: str(chosen.num_classes),
        entries.INPUT_SIZE: str(chosen.input_size),
        entries.PREPROCESSING: chosen.spec.preprocessing(chosen.input_size).to_json(),
        entries.WEIGHTS: weights,
        entries.WEIGHTS_SHA256: parameters_sha256(module),
    }


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
    chosen = _described_architecture(metadata, source)
    # Before anything of these sizes is built: the metadata are as little trusted as the rest of the file.
    if chosen.input_shape != shape or chosen.num_classes != classes:
        raise ModelFileError(
            f"{source}: takes images {shape} to {classes} logits, but its metadata describe {chosen.name} from "
            f"{chosen.input_shape} to {chosen.num_classes}; export it again."
        )
    calibration = calibration_of(metadata, source)
    if weights is None:
        if calibration is None:
            raise ModelFileError(
                f"{source}: exported with the weights {metadata.get(entries.WEIGHTS, 'of a file')!r}; "
                "to compare with PyTorch give the same file with --weights."
            )
        built = _with_seeded_weights(chosen, calibration.seed)
    else:
        if calibration is not None:
            raise ModelFileError(
                f"{source}: exported with seeded random weights, not from a file; leave --weights out."
            )
        # The choice was made at export; the hash says whether these are the same weights.
        built = _with_weights_of(chosen, weights, zero_weights="-1")
    if built.metadata[entries.WEIGHTS_SHA256] == _required(metadata, entries.WEIGHTS_SHA256, source):
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


def _described_architecture(metadata: Mapping[str, str], source: Path) -> Architecture:
    return architecture(
        _required(metadata, entries.MODEL, source),
        variant=metadata.get(entries.VARIANT) or None,
        num_classes=_integer(metadata, entries.NUM_CLASSES, source),
        input_size=_integer(metadata, entries.INPUT_SIZE, source),
    )


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
    value = metadata.get(key)
    if not value:
        raise ModelFileError(
            f"{source}: its metadata do not say how to build it in PyTorch ({key} is missing); "
            "use --reference onnxruntime, or export the model with this bnn-deploy."
        )
    return value


def _integer(metadata: Mapping[str, str], key: str, source: Path) -> int:
    value = _required(metadata, key, source)
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise ModelFileError(
            f"{source}: its metadata entry {key} is {value[:40]!r}, not a number; export the model again."
        )
    return int(value)
