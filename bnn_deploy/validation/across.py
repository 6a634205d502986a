"""Does one model give the same bits in several places: compiled for each of them, run on the same images with each number of
threads, twice, and compared with what the first place gave.

Processors must give equal bits, whatever their vectors (docs/arithmetic.md says which operations a network is made of, and what
may differ nevertheless: functions of the C library, and GPUs).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_deploy.data.dataset import Dataset, random_inputs
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.devices.base import Device
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import InputError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.references.batches import fill_batch
from bnn_deploy.runtime.arrays import batch_size

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.passes.onnx.import_report import ImportOptions

SCHEMA = "bnn-deploy/across/1"
# Of images that nobody gave: whether bits are equal needs neither many nor natural ones.
_SAMPLES = 4
_SHORT = {"host": ("host", "local"), "qemu": ("arm64", "qemu")}
_REPEATS = 2


@dataclass(frozen=True)
class AcrossRun:
    """What one place gave with one number of threads.

    Attributes:
        place: as the user named it.
        target: what the model was compiled for there.
        device: where it ran.
        threads: of one inference.
        sha256: of all logits of the first of two runs, in the order of the images, as little-endian float32.
        repeatable: the second run gave the same bits.
        equal: all logits of both runs are, bit for bit, those of the first place with its first number of threads.
        differing_images: images with logits that are not.
        largest_ulps: largest difference of two logits in units of the last place (how many floats lie between them, plus one);
            +0 and -0, and two NaN, are 0 apart.
    """

    place: str
    target: str
    device: str
    threads: int
    sha256: str
    repeatable: bool
    equal: bool
    differing_images: int
    largest_ulps: int


@dataclass(frozen=True)
class AcrossReport:
    """All places.

    Attributes:
        model_file: the ONNX file.
        data: where the images come from.
        images: how many.
        runs: in the order of the places, then of the threads.
    """

    model_file: str
    data: str
    images: int
    runs: tuple[AcrossRun, ...]

    @property
    def passed(self) -> bool:
        """Every run of every place gave the same bits."""
        return all(run.equal and run.repeatable for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": SCHEMA,
            "model_file": self.model_file,
            "data": self.data,
            "images": self.images,
            "passed": self.passed,
            "runs": [asdict(run) for run in self.runs],
        }


def across(
    onnx_path: Path,
    places: Sequence[str],
    *,
    data: Path | None = None,
    samples: int | None = None,
    batch: int = 1,
    threads: Sequence[int] = (1, 2),
    options: ImportOptions | None = None,
    cache: bool = True,
    progress: ReportProgress = quiet,
) -> AcrossReport:
    """Compile a model for several places and compare what it computes there, bit for bit.

    Args:
        onnx_path: the model.
        places: each ``host`` (this machine, with the target it is), ``qemu`` (arm64, emulated here), or ``TARGET@DEVICE``, such as
            ``x86-64-v3@local`` or ``rpi4@ssh://pi@10.0.0.7``; the first one is what the others are compared with.
        data: images, see ``data.open_dataset``; None takes seeded normal ones.
        samples: how many of them, all if None (of the seeded ones, 4).
        batch: images per inference.
        threads: numbers of threads to run with, at each place.
        options: for compiling files from elsewhere.
        cache: as for ``compile_model``.
        progress: told what is being done.

    Raises:
        InputError: no places, or one that is malformed or named twice; no number of threads; data that does not fit, or too
            few of them.
        TargetError: there is no such target.
        ModelFileError, CompileError, ToolError: the model cannot be compiled.
        BundleError, DeviceError: a place cannot run it.
    """
    from bnn_deploy.compiler import compile_model

    parsed = _parsed(places)
    if not threads or min(threads) < 1:
        raise InputError(f"Runs need numbers of threads of at least 1, found {tuple(threads)}.")
    dataset: Dataset | None = None
    count, expected = 0, np.empty(0)
    runs: list[AcrossRun] = []
    for place, (target, device) in zip(places, parsed, strict=True):

        def told(message: str, place: str = place) -> None:
            progress(f"{place}: {message}")

        with tempfile.TemporaryDirectory(prefix="bnn-deploy-across-") as folder:
            bundle = compile_model(
                onnx_path,
                target,
                Path(folder) / "bundle",
                batch=batch,
                options=options,
                cache=cache,
                progress=told,
            )
            if dataset is None:
                dataset = _dataset(data, bundle, samples)
                count = dataset.samples if samples is None else samples
            for number in threads:
                found = []
                for repeat in range(_REPEATS):
                    told(f"threads: {number}, run {repeat + 1} of {_REPEATS}")
                    found.append(_logits(device, bundle, number, dataset, count, progress))
                expected = expected if runs else found[0]
                runs.append(_compared(place, bundle.target, device.name, number, found, expected))
    return AcrossReport(str(onnx_path), dataset.source if dataset else "", count, tuple(runs))


def _parsed(places: Sequence[str]) -> list[tuple[str, Device]]:
    """(target, device) of each place; everything is checked before anything is compiled."""
    # TVM, which targets come with, takes a second to import.
    from bnn_deploy.targets.registry import get_target

    if not places or len(set(places)) != len(places):
        raise InputError(
            f"Comparing needs places, each once, found {', '.join(places) or 'none'}; name some, such as host,qemu."
        )
    parsed = []
    for place in places:
        target, device = _SHORT.get(place, place.split("@", 1) if "@" in place else ("", ""))
        if not target or not device:
            raise InputError(
                f"{place!r} is no place to run a model; give host, qemu or TARGET@DEVICE, such as x86-64-v3@local."
            )
        parsed.append((get_target(target).name, get_device(device)))
    return parsed


def _dataset(data: Path | None, bundle: Bundle, samples: int | None) -> Dataset:
    """The images, of which there are enough."""
    shape, classes = bundle.inputs[0].shape[1:], bundle.outputs[0].shape[-1]
    if samples is not None and samples < 1:
        raise InputError(f"--samples must be at least 1, got {samples}.")
    if data is None:
        return random_inputs(shape, samples or _SAMPLES)
    model = bundle.manifest["model"]
    dataset = open_dataset(data, shape, classes, model, str(bundle.path))
    if samples is not None and samples > dataset.samples:
        raise InputError(
            f"{dataset.source}: holds {dataset.samples} images, fewer than --samples {samples}; ask for fewer."
        )
    return dataset


def _logits(
    device: Device, bundle: Bundle, threads: int, dataset: Dataset, count: int, progress: ReportProgress
) -> np.ndarray:
    """The logits of the first ``count`` images, in a session of its own."""
    size = batch_size(bundle.inputs[0].shape[1:], bundle.batch)

    def filled() -> Iterator[np.ndarray]:
        for images, _ in dataset.batches(size, count):
            yield fill_batch(images, bundle.batch)

    with device.open(bundle, threads, progress) as session:
        return np.concatenate(list(session.run_many(filled())))[:count]


def _compared(
    place: str, target: str, device: str, threads: int, found: Sequence[np.ndarray], expected: np.ndarray
) -> AcrossRun:
    first, *others = (np.ascontiguousarray(logits, logits.dtype.newbyteorder("<")) for logits in found)
    differing = np.any([_differ(logits, expected) for logits in found], axis=0)
    return AcrossRun(
        place=place,
        target=target,
        device=device,
        threads=threads,
        sha256=hashlib.sha256(first.tobytes()).hexdigest(),
        repeatable=all(not _differ(first, other).any() for other in others),
        equal=not differing.any(),
        differing_images=int(differing.sum()),
        largest_ulps=max(_largest_ulps(logits, expected) for logits in found),
    )


def _differ(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which images have other bits, bool (N,)."""
    count = len(first)
    bits = [np.ascontiguousarray(array).reshape(count, -1).view(np.uint8) for array in (first, second)]
    differ: np.ndarray = np.any(bits[0] != bits[1], axis=1)
    return differ


def _largest_ulps(first: np.ndarray, second: np.ndarray) -> int:
    if first.dtype != np.float32:
        return int(np.max(np.abs(first.astype(np.int64) - second.astype(np.int64)), initial=0))
    distance = np.abs(_ordered(first) - _ordered(second))
    return int(np.max(np.where(np.isnan(first) & np.isnan(second), 0, distance), initial=0))


def _ordered(values: np.ndarray) -> np.ndarray:
    """Float32 as int64 in the order of the numbers, neighbours one apart."""
    bits = np.ascontiguousarray(values).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
