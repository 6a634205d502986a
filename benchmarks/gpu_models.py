"""Whole networks on the GPU of this machine: our bundle, and the PyTorch model it came from; images and logits stay on the GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import contestants
import numpy as np
import torch
from cuda_driver import Driver
from interleaved import in_turns, spread

import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import DeviceError
from bnn_deploy.export.provenance import rebuild
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.references.whole_model import Reference, open_reference

# Seconds that the calls of one turn take together.
TURN = 20e-3
# Images that are compared with onnxruntime on the processor, where it is not known on which ones every activation keeps a margin
# from its threshold; all of 128 would take longer than the benchmark.
COMPARED = 8


@dataclass(frozen=True)
class Contestant:
    """A network on the GPU.

    Attributes:
        run: puts one batch into the stream.
        time: seconds on the GPU's clock of what a function puts there.
        logits: float32 (batch, classes) of the last run.
    """

    run: Callable[[], object]
    time: Callable[[Callable[[], object]], float]
    logits: Callable[[], np.ndarray]


def measure(driver: Driver, path: Path, folder: Path, batch: int, rounds: int) -> dict[str, object]:
    """Time the network of an ONNX file at one batch size, ours and PyTorch's in turns.

    Args:
        driver: of the GPU, whose context is the one that PyTorch uses.
        path: the ONNX file.
        folder: for the bundle.
        batch: images of one call.
        rounds: how often both have their turn.

    Returns:
        ``milliseconds`` of one call by contestant, ``times_faster`` (ours than PyTorch, None without), ``same_class`` (part
        of the compared images that get onnxruntime's class, by contestant) and ``left_out``, the reason if PyTorch is.
    """
    reference = open_reference("onnxruntime", path)
    images = np.ascontiguousarray(np.concatenate([c for c, _ in reference.default_dataset(batch).chunks(batch)]))
    bundle = compile_model(path, "cuda", folder / f"batch{batch}.bundle", batch=batch)
    runs, left_out = {"ours": ours(driver, bundle, images)}, None
    if torch.cuda.is_available():
        runs["pytorch"] = pytorch(frozen_half(path, reference), images)
    else:
        left_out = f"PyTorch {torch.__version__} of this environment cannot use a GPU"
    compared = reference.calibration.samples if reference.calibration else COMPARED
    expected = reference.run(images[:compared]).argmax(1)
    same = {}
    for name, one in runs.items():
        one.run()
        same[name] = float((one.logits()[:compared].argmax(1) == expected).mean())
    measured = in_turns({name: _timer(one) for name, one in runs.items()}, rounds)
    times = {name: np.array(seconds) for name, seconds in measured.items()}
    return {
        "batch": batch,
        "milliseconds": {name: {**spread(1e3 * one), "rounds": (1e3 * one).tolist()} for name, one in times.items()},
        "times_faster": spread(times["pytorch"] / times["ours"]) if "pytorch" in times else None,
        "same_class": same,
        "left_out": left_out,
    }


def ours(driver: Driver, bundle: Bundle, images: np.ndarray) -> Contestant:
    """A bundle through ``bnn_run_device``, on the driver's stream."""
    model = bnn_deploy.load(bundle.path)
    library, handle = model._library, model._handle
    logits = np.empty(model.outputs[0].shape, np.float32)
    source, target = driver.allocate(images.nbytes), driver.allocate(logits.nbytes)
    driver.upload(source, images)
    inputs, outputs = (ctypes.c_uint64 * 1)(source), (ctypes.c_uint64 * 1)(target)

    # The model is an argument so that it lives as long as what runs it.
    def run(model: object = model) -> None:
        if library.bnn_run_device(handle, inputs, outputs, driver.stream) != 0:
            raise DeviceError(
                f"{bundle.path} failed on the GPU: {library.bnn_device_error().decode(errors='replace')}."
            )

    def read() -> np.ndarray:
        driver.download(target, logits)
        return logits

    return Contestant(run, driver.time, read)


def frozen_half(path: Path, reference: Reference) -> torch.nn.Module:
    """The model of an ONNX file in float16 and channels_last, with the signs of its weights computed once.

    Raises:
        ModelFileError: the file does not say what model it is.
    """
    metadata = {item.key: item.value for item in load_onnx(path).metadata_props}
    module = rebuild(metadata, None, path, reference.input_shape, reference.classes).module
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return contestants.frozen(module.to(device).half().to(memory_format=torch.channels_last))  # type: ignore


def pytorch(module: torch.nn.Module, images: np.ndarray) -> Contestant:
    """A float16 module compiled by ``torch.compile(mode="max-autotune")``, which replays a CUDA graph."""
    # Otherwise a second batch size is taken for a dynamic shape, and gets slower code.
    torch.compiler.reset()
    compiled = torch.compile(module, mode="max-autotune", dynamic=False)
    batch = torch.from_numpy(images).cuda().half().to(memory_format=torch.channels_last)
    last: list[torch.Tensor] = []

    def run() -> None:
        # Of the graph's own memory: the next run may write over it.
        last.clear()
        with torch.inference_mode():
            torch.compiler.cudagraph_mark_step_begin()
            last.append(compiled(batch))

    def time(work: Callable[[], object]) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return 1e-3 * start.elapsed_time(end)

    # Compiles, runs as it is, and records the graph.
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    return Contestant(run, time, lambda: last[0].float().cpu().numpy())


def _timer(one: Contestant) -> Callable[[], float]:
    """What measures the seconds of one call: after one that is not timed, as many as a turn has time for."""
    one.run()
    calls = min(500, max(1, int(TURN / max(one.time(one.run), 1e-6))))

    def several() -> None:
        for _ in range(calls):
            one.run()

    return partial(_turn, one, several, calls)


def _turn(one: Contestant, several: Callable[[], None], calls: int) -> float:
    one.run()
    return one.time(several) / calls
