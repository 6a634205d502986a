"""On a machine with an NVIDIA GPU: whole networks against PyTorch, and binary kernels against what the tensor cores give.

python benchmarks/gpu.py                                  BCDNet-A and BiMLP-M, one image and 128, and their kernels
python benchmarks/gpu.py bcdnet_a.onnx --batch 1          one network
python benchmarks/gpu.py --only gemm --rounds 40          kernels only

Networks are compiled for this GPU; images and logits stay in its memory, and one stream runs calls one after the other, on the
GPU's clock. PyTorch runs the same network in float16, channels_last, by torch.compile(mode="max-autotune"), with the signs of the
weights computed once; a torch without CUDA is left out. Kernels, each on one shape, are measured next to a loop of
independent b1 mma on registers. Asserts nothing about time; exit code 1 if our classes are not onnxruntime's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
import gpu_kernels
import gpu_models
from cuda_driver import Driver
from kernels import shape_text
from model_files import onnx_file
from model_layers import binary_layers
from program import run

from bnn_deploy.errors import DeviceError, TargetError
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.cuda.local_gpu import LocalGpu, local_gpu
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target

KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--batch", "batches", default="1,128", show_default=True, help="One or more numbers, with commas between."
)
@click.option("--only", type=click.Choice(["models", "gemm"]), help="Networks only, or kernels only.")
@click.option("--extent", default=4096, show_default=True, help="Rows, columns and depth of the square product.")
@click.option("--rounds", default=20, show_default=True, help="How often everything has its turn.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write all times to this file.")
def main(
    models: tuple[str, ...], batches: str, only: str | None, extent: int, rounds: int, report: Path | None
) -> None:
    """Time MODELS (an ONNX file, name or name:variant; bcdnet_a and bimlp_m by default) on this machine's GPU."""
    try:
        counts = [int(count) for count in batches.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise click.UsageError(f"--batch takes numbers from 1 with commas between, not {batches!r}.")
    # Refused before anything is exported or compiled.
    gpu, driver, agreed = _gpu(), Driver(), True
    result: dict[str, object] = {"gpu": _machine(gpu, driver), "models": [], "kernels": []}
    print(", ".join(f"{name} {value}" for name, value in result["gpu"].items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for index, model in enumerate(models or ("bcdnet_a", "bimlp_m")):
            own = Path(folder) / str(index)
            own.mkdir()
            paths[model] = onnx_file(model, own)
        if only != "gemm":
            for model, path in paths.items():
                for batch in counts:
                    row = gpu_models.measure(driver, path, Path(folder), batch, rounds)
                    result["models"].append({"model": model, **row})
                    agreed &= row["same_class"]["ours"] == 1
                    print(model_text(result["models"][-1]), flush=True)
        if only != "models":
            square = ConvolutionSpecification(extent, 1, 1, extent, extent)
            groups = {f"{extent} x {extent} x {extent}": [square]}
            for model, path in paths.items():
                groups |= {f"{model}, batch {batch}": list(binary_layers(path, batch)) for batch in counts}
            for index, (name, layers) in enumerate(groups.items()):
                rows = gpu_kernels.measure(driver, gpu.sm, layers, rounds, f"group{index}")
                result["kernels"].append({"group": name, "rows": rows})
                print(kernel_text(name, rows), flush=True)
    if report is not None:
        report.write_text(json.dumps(result, indent=1) + "\n")
    driver.close()
    sys.exit(0 if agreed else 1)


def _gpu() -> LocalGpu:
    try:
        found = local_gpu()
    except TargetError as error:
        raise DeviceError(f"This benchmark needs an NVIDIA GPU in this machine: {error}.") from error
    get_target("cuda", f"sm_{found.sm}")
    return found


def _machine(gpu: LocalGpu, driver: Driver) -> dict[str, object]:
    version = KERNEL_DRIVER.read_text().splitlines()[0] if KERNEL_DRIVER.exists() else "unknown"
    return {
        "GPU": gpu.name,
        "architecture": architecture(gpu.sm).name,
        "multiprocessors": driver.multiprocessors,
        "highest MHz": round(driver.clock / 1e6),
        "CUDA": ".".join(map(str, gpu.cuda)),
        "driver": " ".join(version.split()),
    }


def model_text(row: dict[str, object]) -> str:
    """A network at one batch size, as a table."""
    lines = [f"{row['model']}, batch {row['batch']}"]
    lines.append(
        f"  {'milliseconds':<12}{'median':>10}{'min':>10}{'p10':>10}{'p90':>10}{'images/s':>12}{'same class':>12}"
    )
    for name, one in row["milliseconds"].items():
        clock = "".join(f"{one[key]:10.4f}" for key in ("median", "min", "p10", "p90"))
        lines.append(f"  {name:<12}{clock}{1e3 * row['batch'] / one['median']:12.0f}{row['same_class'][name]:12.0%}")
    if row["times_faster"] is None:
        lines.append(f"  PyTorch is left out: {row['left_out']}.")
    else:
        faster = row["times_faster"]
        lines.append(
            f"  ours than PyTorch, times faster: {faster['median']:.2f} ({faster['p10']:.2f} to {faster['p90']:.2f})"
        )
    return "\n".join(lines)


def kernel_text(name: str, rows: list[dict[str, object]]) -> str:
    """Kernels, as a table."""
    head = f"{'us':>10}{'GMAC/s':>10}{'MAC/clock/SM':>14}{'peak GMAC/s':>13}{'of peak':>9}{'p10':>6}{'p90':>6}"
    lines = [name, f"  {'kernel':<40}{'shape':<38}{head}"]
    for row in rows:
        text = f"  {row['kernel']:<40}{shape_text(row['specification']):<38}{1e6 * row['seconds']['median']:>10.2f}"
        text += f"{row['rate']['median'] / 1e9:>10.0f}{row['per_clock']['median']:>14.1f}"
        if share := row["of_peak"]:
            text += (
                f"{row['peak']['median'] / 1e9:>13.0f}{share['median']:>9.1%}{share['p10']:>6.0%}{share['p90']:>6.0%}"
            )
        lines.append(text)
    if rows[0]["of_peak"] is None:
        lines.append("  This GPU has no b1 mma, so there is no peak to compare with.")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
