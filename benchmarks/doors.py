"""Does speed depend on the door? One model as bnn-deploy exports it, and as its authors' own code leaves PyTorch.

python benchmarks/doors.py bcdnet_a CHECKOUT/prototype/model/a_3.py --make "a_3(bn={})"
python benchmarks/doors.py reactnet_a CHECKOUT/mobilenet/2_step2/reactnet.py --make "reactnet()"
python benchmarks/doors.py bcdnet_tiny models/bcdnet.py --make "BCDNet(BCDNET_TINY, num_classes=10)"

SOURCE is a Python file of the authors' repository, run as it is: give only files that you trust. It gets the weights that
`bnn-deploy export NAME` would take (their state dict, every name and shape), is exported by both exporters of
torch.onnx.export, and each file is compiled. Checked: all binary layers of the model are on bits; the bundle and onnxruntime
on the authors' own file agree on the inputs that the weights were calibrated with (the same class, logits to 1e-3). Then
the bundles are timed in turns against the one of our own export. Exit code 1 if anything differs.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
import types
import warnings
from functools import partial
from pathlib import Path

import click
import contestants
import numpy as np
import torch
from interleaved import interleave, spread
from program import run
from torch import nn

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.export.export_model import export_model
from bnn_deploy.export.provenance import BuiltModel, build
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport

# The project's bound for whole models on inputs with a margin (tests/test_zoo.py derives it).
LARGEST_LOGIT_ERROR = 1e-3
# An activation or weight that is exactly 0 is where torch.sign differs from the papers.
NUDGE = -1e-9


@click.command()
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--make", required=True, help='Call in SOURCE that makes the network, e.g. "reactnet()".')
@click.option("--target", default="host", show_default=True)
@click.option("--sign-zero", default="auto", show_default=True, help="As for bnn-deploy compile.")
@click.option("--rounds", default=20, show_default=True)
@click.option("--calls", default=5, show_default=True)
def main(name: str, source: Path, make: str, target: str, sign_zero: str, rounds: int, calls: int) -> None:
    """Compare the doors into NAME, a model of bnn-deploy, with the authors' file SOURCE."""
    torch.set_num_threads(1)
    built = build(name)
    theirs = _authors_model(source, make, built)
    images = calibration_inputs(0, 2, built.input_shape)
    fine, runs = True, {}
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "ours.onnx"
        export_model(built.module, ours, input_shape=built.input_shape, metadata=built.metadata)
        bundle = compile_model(ours, target, Path(folder) / "ours")
        runs["bnn-deploy export"] = contestants.ours(bundle, 1)
        layers = sum(step["binary_macs"] > 0 for step in bundle.manifest["steps"])
        for exporter in ("dynamo", "script"):
            path = Path(folder) / f"{exporter}.onnx"
            _export(theirs, path, torch.from_numpy(images), exporter)
            reports: list[ImportReport] = []
            options = ImportOptions(sign_zero=sign_zero)  # type: ignore[arg-type]
            bundle = compile_model(path, target, Path(folder) / exporter, options=options, found=reports.append)
            runs[f"authors' code, {exporter}"] = contestants.ours(bundle, 1)
            fine &= _check(exporter, reports[0], bundle, path, images, layers)
        times = interleave({door: partial(run, images[:1]) for door, run in runs.items()}, rounds, calls)
    base = times["bnn-deploy export"].wall
    for door, measured in times.items():
        ratio = spread(measured.wall / base)
        print(
            f"  {door:<24}{1e3 * np.median(measured.wall):8.3f} ms, {ratio['median']:.3f} "
            f"({ratio['p10']:.3f} to {ratio['p90']:.3f}) times our export's"
        )
    sys.exit(0 if fine else 1)


def _authors_model(source: Path, make: str, built: BuiltModel) -> nn.Module:
    # BCDNet's model files ask their training framework for the class of batch normalisation and a logger.
    framework = types.ModuleType("prototype.utils.misc")
    framework.get_bn = lambda configuration: nn.BatchNorm2d  # type: ignore[attr-defined]
    framework.get_logger = lambda *arguments: None  # type: ignore[attr-defined]
    for parent in ("prototype", "prototype.utils"):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    sys.modules.setdefault("prototype.utils.misc", framework)
    specification = importlib.util.spec_from_file_location("authors", source)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["authors"] = module  # dataclasses look themselves up there
    specification.loader.exec_module(module)
    theirs: nn.Module = eval(make, vars(module))
    state = built.module.state_dict()
    for name, tensor in state.items():
        if tensor.dim() > 1 and tensor.is_floating_point() and "fc" not in name:
            state[name] = torch.where(tensor == 0, NUDGE, tensor) if "bias" not in name else tensor
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()


def _export(module: nn.Module, path: Path, images: torch.Tensor, exporter: str) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            dynamic = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (images,), str(path), dynamo=True, dynamic_shapes=dynamic, verbose=False)
        else:
            torch.onnx.export(
                module, (images,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}}
            )


def _check(exporter: str, report: ImportReport, bundle: Bundle, path: Path, images: np.ndarray, layers: int) -> bool:
    binary = sum(layer.binary for layer in report.layers)
    steps = sum(step["binary_macs"] > 0 for step in bundle.manifest["steps"])
    found = np.concatenate([contestants.ours(bundle, 1)(images[i : i + 1]) for i in range(len(images))])
    expected = contestants.onnxruntime(path, 1)(images)
    error = float(np.abs(found - expected).max())
    same = bool((found.argmax(1) == expected.argmax(1)).all())
    print(
        f"  {exporter}: {binary} of {len(report.layers)} layers binary, {steps} binary kernels (our export: {layers}), "
        f"{'same' if same else 'OTHER'} classes as onnxruntime on the authors' file, largest logit difference {error:.2g}",
        flush=True,
    )
    return same and error <= LARGEST_LOGIT_ERROR and steps == layers


if __name__ == "__main__":
    run(main)
