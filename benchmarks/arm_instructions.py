"""What inference costs on ARM in executed instructions, counted under qemu-user. Instruction counts are not latencies.

python benchmarks/arm_instructions.py kernels                            binary layers with packing and float output
python benchmarks/arm_instructions.py kernels --target rpi3 --shape 49x1024x1024
python benchmarks/arm_instructions.py model bcdnet_a                     one inference of a whole network
python benchmarks/arm_instructions.py model bcdnet_a --sysroot FOLDER    and onnxruntime's, see benchmarks/arm_sysroot

Counts are of one more call in a program that has made one already, so that start-up and first-time work are left out.
Needs qemu-aarch64 (Debian: qemu-user; not the static build, which takes no plugins).
"""

from __future__ import annotations

import json
import tempfile
from math import isqrt
from pathlib import Path

import click
import numpy as np
from emulator import build_plugin, count, per_call
from kernel_program import build
from model_files import onnx_file
from program import run

from bnn_deploy.compiler import compile_model
from bnn_deploy.metadata.calibration import calibration_of
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.references.whole_model import calibration_dataset
from bnn_deploy.targets.kernels.pack_specification import SignPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target
from bnn_deploy.targets.table import select_kernel

SOURCES = Path(__file__).parent
SHAPES = ("784x512x2048", "49x1024x1024", "196x320x1280")
PLUGIN = click.option("--plugin", type=click.Path(path_type=Path), help="Another plugin that prints the count.")
TARGET = click.option("--target", "target_name", default="rpi4", show_default=True)
REPORT = click.option("--json", "report", type=click.Path(path_type=Path), help="Also write the results to this file.")


@click.group()
def main() -> None:
    """Count executed instructions on ARM."""


@main.command()
@click.option(
    "--shape", "shapes", multiple=True, default=SHAPES, help="PIXELSxINPUTSxOUTPUTS, several times if wanted."
)
@TARGET
@PLUGIN
@REPORT
def kernels(shapes: tuple[str, ...], target_name: str, plugin: Path | None, report: Path | None) -> None:
    """Binary 1x1 layers: instructions per 1000 multiply-accumulates, from float activations to float outputs."""
    target, results = get_target(target_name), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counter = plugin or build_plugin(folder)
        for shape in shapes:
            pixels, inputs, outputs = (int(size) for size in shape.split("x"))
            side = isqrt(pixels)
            rows, columns = (side, side) if side * side == pixels else (1, pixels)
            layer = ConvolutionSpecification(1, rows, columns, inputs, outputs)
            pack = SignPackSpecification(1, rows, columns, inputs, threshold_shape=(1, 1, 1, inputs))
            chosen = [select_kernel(pack, target), select_kernel(layer, target)]
            program = build(chosen, target, folder, "program")
            packing, product = (
                per_call(lambda calls, command=(program, str(index)): count(counter, [*command, str(calls)]))
                for index in (0, 1)
            )
            scale = 1000 / layer.binary_macs
            results.append(
                {
                    "target": target.name,
                    "shape": [pixels, inputs, outputs],
                    "kernel": chosen[1].name,
                    "per_1000_macs": (packing + product) * scale,
                    "packing_per_1000_macs": packing * scale,
                }
            )
            row = results[-1]
            print(
                f"{target.name} {pixels} pixels, {inputs} -> {outputs}: {row['per_1000_macs']:.2f} instructions per "
                f"1000 MAC, {row['packing_per_1000_macs']:.2f} of them packing ({row['kernel']})",
                flush=True,
            )
    if report is not None:
        report.write_text(json.dumps(results, indent=1) + "\n")


@main.command()
@click.argument("model")
@click.option(
    "--sysroot", type=click.Path(path_type=Path), help="Folder made by arm_sysroot: compare with onnxruntime."
)
@TARGET
@PLUGIN
@REPORT
def model(model: str, sysroot: Path | None, target_name: str, plugin: Path | None, report: Path | None) -> None:
    """One inference of MODEL (an ONNX file, name or name:variant), in ours and in onnxruntime on the same file."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counter = plugin or build_plugin(folder)
        path = onnx_file(model, folder).resolve()
        image = _image(path)
        for images in (1, 2):
            np.save(folder / f"{images}.npy", np.repeat(image, images, axis=0))
        bundle = compile_model(path, target_name, folder / "bundle")

        def ours(images: int) -> int:
            arguments = ["--input", folder / f"{images}.npy", "--output", folder / "ours.npy", "--threads", "1"]
            return count(counter, [bundle.runner, *arguments])

        def onnxruntime(calls: int) -> int:
            python = next(sysroot.glob("usr/bin/python3.*"))
            environment = f"PYTHONHOME={sysroot / 'usr'},PYTHONPATH={sysroot / 'wheels'},OMP_NUM_THREADS=1"
            files = [path, folder / "1.npy", folder / "onnxruntime.npy"]
            script = [python, "-S", SOURCES / "onnxruntime_calls.py", *files, str(calls)]
            return count(counter, script, ["-L", sysroot, "-cpu", "cortex-a72", "-E", environment])

        result = {"model": model, "target": target_name, "ours": per_call(ours)}
        print(f"{model} for {target_name}: {result['ours'] / 1e6:.1f} million instructions", flush=True)
        if sysroot is not None:
            sysroot = sysroot.resolve()
            result["onnxruntime"] = per_call(onnxruntime)
            result["times_fewer"] = result["onnxruntime"] / result["ours"]
            print(
                f"onnxruntime: {result['onnxruntime'] / 1e6:.1f} million, {result['times_fewer']:.2f} times as many; "
                f"{_difference(folder / 'ours.npy', folder / 'onnxruntime.npy')}"
            )
    if report is not None:
        report.write_text(json.dumps(result, indent=1) + "\n")


def _image(path: Path) -> np.ndarray:
    """One image that ``path`` was calibrated with, or any of its shape."""
    graph = load_onnx(path)
    calibration = calibration_of({item.key: item.value for item in graph.metadata_props}, path)
    if calibration is not None:
        return next(iter(calibration_dataset(calibration, 1).chunks(1)))[0]
    shape = [dimension.dim_value for dimension in graph.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(0).standard_normal((1, *shape), np.float32)


def _difference(ours: Path, other: Path) -> str:
    first, second = np.load(ours)[:1], np.load(other)[:1]
    same = "the same" if first.argmax() == second.argmax() else "ANOTHER"
    return f"{same} class, largest difference of logits {np.abs(first - second).max():.2g}"


if __name__ == "__main__":
    run(main)
