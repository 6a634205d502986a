"""Every binary kernel on every shape of real models: multiply-accumulates per second, and how much of what is possible that is.

python benchmarks/kernels.py bcdnet_a bimlp_m.onnx                   best target of this machine
python benchmarks/kernels.py reactnet_a --target x86-64-v3 --rounds 40
python benchmarks/kernels.py bcdnet_a --block-rows 2                 the kernels that compute two output rows in one call

What is possible is the fastest of the loops in popcount_limit.c, which xor, count and add on registers, run in turns with
the kernels. One thread, operands in the caches as far as they fit. Padded taps count, as in the papers, and the two planes of
three-valued activations count as one. Asserts nothing about time.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
from interleaved import in_turns, spread
from kernel_program import SOURCES, build, zig
from model_files import onnx_file
from model_layers import binary_layers
from program import run

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target, missing_cpu_flags
from bnn_deploy.targets.table import select_kernel

# Of several short measurements the fastest counts: they are far above the clock's resolution, and few are interrupted.
TURN = 0.2e-3
TRIES = 3
LIMIT_MACS = 10**9


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--target", "target_name", default="host", show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--block-rows", default=0, show_default=True, help="Output rows in one call; 0: all of them.")
@click.option("--rounds", default=15, show_default=True, help="How often every kernel has its turn.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write the results to this file.")
def main(
    models: tuple[str, ...], target_name: str, batch: int, block_rows: int, rounds: int, report: Path | None
) -> None:
    """Time the binary kernels of MODELS (an ONNX file, name or name:variant)."""
    target = get_target(target_name)
    if missing := missing_cpu_flags(target):
        raise click.UsageError(f"This processor cannot run {target.name}: it lacks {', '.join(missing)}.")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        limit = popcount_limit(target, Path(folder))
        for index, model in enumerate(models):
            own = Path(folder) / str(index)
            own.mkdir()
            layers = binary_layers(onnx_file(model, own), batch)
            kernels = [select_kernel(_blocked(specification, block_rows), target) for specification in layers]
            rows = _measure(kernels, [len(names) for names in layers.values()], target, own, limit, rounds)
            for row, names in zip(rows, layers.values(), strict=True):
                row["layers"] = names
            results.append({"model": model, "target": target.name, "batch": batch, "kernels": rows})
            _print(results[-1])
    if report is not None:
        report.write_text(json.dumps(results, indent=1) + "\n")


def popcount_limit(target: Target, folder: Path) -> Callable[[], float]:
    """A function that measures this processor's binary multiply-accumulates per second anew: the fastest loop's."""
    # Of x86, zig writes levels and features with underscores and without the "+" of the first.
    core = target.mcpu.replace("-", "_")
    path = folder / "limit.so"
    options = [f"-mcpu={core}{''.join(target.mattr)}", "-shared", "-fPIC"]
    zig(target, "library", [SOURCES / "popcount_limit.c", *options], path)
    library = ctypes.CDLL(str(path))
    library.limit_rate.restype, library.limit_rate.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_long]
    loops = range(library.limit_count())
    rates = np.array([[library.limit_rate(loop, LIMIT_MACS) for loop in loops] for _ in range(20)])
    best = int(np.median(rates, axis=0).argmax())
    library.limit_name.restype = ctypes.c_char_p
    name, rate = library.limit_name(best).decode(), float(np.median(rates[:, best]))
    print(f"popcount limit of {target.name} here: {rate / 1e9:.0f} GMAC/s ({name})", flush=True)
    return lambda: max(float(library.limit_rate(best, int(rate * TURN))) for _ in range(TRIES))


def _blocked(specification: ConvolutionSpecification, block_rows: int) -> ConvolutionSpecification:
    """Cut into blocks of rows where they divide the layer's."""
    if not block_rows or specification.image_output_shape[1] % block_rows:
        return specification
    return dataclasses.replace(specification, block_rows=block_rows)


def _measure(
    kernels: list[Kernel], uses: list[int], target: Target, folder: Path, limit: Callable[[], float], rounds: int
) -> list[dict[str, object]]:
    library = ctypes.CDLL(str(build(kernels, target, folder, "library")))
    library.kernel_memory.restype = ctypes.c_void_p
    library.kernel_seconds.restype = ctypes.c_double
    library.kernel_seconds.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_long]
    timers = {str(index): partial(_beside, _timer(library, index), limit) for index in range(len(kernels))}
    measured = in_turns(timers, rounds)
    rows = []
    for kernel, used, pairs in zip(kernels, uses, measured.values(), strict=True):
        seconds, limits = np.array(pairs).T
        macs = dataclasses.replace(kernel.specification, block_rows=0).binary_macs
        rates = macs / seconds
        rows.append(
            {
                "kernel": kernel.name,
                "specification": dataclasses.asdict(kernel.specification),
                "uses": used,
                "macs": macs,
                "seconds": spread(seconds),
                "rate": spread(rates),
                "of_limit": spread(rates / limits),
            }
        )
    return rows


def _beside(timer: Callable[[], float], limit: Callable[[], float]) -> tuple[float, float]:
    return timer(), limit()


def _timer(library: ctypes.CDLL, index: int) -> Callable[[], float]:
    """What measures the seconds of one call: the fastest of some turns, each after a call that is not timed."""
    memory = library.kernel_memory(index)
    library.kernel_seconds(index, memory, 1)
    repeats = max(1, int(TURN / max(1e-9, library.kernel_seconds(index, memory, 1))))

    def measure() -> float:
        library.kernel_seconds(index, memory, 1)
        return min(float(library.kernel_seconds(index, memory, repeats)) for _ in range(TRIES)) / repeats

    return measure


def shape_text(layer: dict[str, object]) -> str:
    """``128x28x28 -> 256, 3x3 /2 g4``."""
    (kh, kw), (sh, sw) = layer["kernel_shape"], layer["strides"]
    text = f"{layer['in_channels']}x{layer['height']}x{layer['width']} -> {layer['out_channels']}, {kh}x{kw}"
    stride = f" /{sh}" if sh == sw else f" /{sh},{sw}"
    text += stride * (sh * sw > 1) + f" g{layer['group']}" * (layer["group"] > 1)
    return text if layer["batch"] == 1 else f"{layer['batch']} x {text}"


def _print(result: dict[str, object]) -> None:
    rows = result["kernels"]
    print(f"{result['model']}, batch {result['batch']}")
    print(f"  {'kernel':<40}{'shape':<34}{'uses':>5}{'MMAC':>9}{'us':>9}{'GMAC/s':>8}{'limit':>7}{'p10':>6}{'p90':>6}")
    for row in rows:
        share = row["of_limit"]
        print(
            f"  {row['kernel']:<40}{shape_text(row['specification']):<34}{row['uses']:>5}{row['macs'] / 1e6:>9.2f}"
            f"{1e6 * row['seconds']['median']:>9.1f}{row['rate']['median'] / 1e9:>8.0f}"
            f"{share['median']:>7.0%}{share['p10']:>6.0%}{share['p90']:>6.0%}"
        )
    for kind, chosen in (
        ("all", rows),
        ("depthwise left out", [row for row in rows if row["specification"]["group"] == 1]),
    ):
        shares = [row["of_limit"]["median"] for row in chosen]
        macs = sum(row["uses"] * row["macs"] for row in chosen)
        ideal = sum(row["uses"] * row["macs"] / row["of_limit"]["median"] for row in chosen)
        if chosen:
            print(f"  {kind}: median {np.median(shares):.0%} of the limit; by time, all layers {macs / ideal:.0%}")


if __name__ == "__main__":
    run(main)
