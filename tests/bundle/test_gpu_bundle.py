"""Plans and manifests of bundles for GPUs: what no GPU could run is refused, and the manifest says what the device needs."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.gpu_plan_source import check_gpu_plan, generate_gpu_plan_source
from bnn_deploy.codegen.plan_source import generate_plan_source
from bnn_deploy.devices.local import LocalDevice
from bnn_deploy.devices.qemu import QemuDevice
from bnn_deploy.errors import BundleError, CompileError
from bnn_deploy.plan import Argument, ExecutionPlan, Launch, Space, Stage, Step, TensorSpecification
from tests.cuda.toy_gpu_network import BOARD, CODE, HOST, toy_gpu_bundle, toy_gpu_plan
from tests.runtime import toy_network

PLAN = toy_gpu_plan()


def with_launches(*launches: Launch) -> ExecutionPlan:
    return replace(PLAN, steps=(PLAN.steps[0], replace(PLAN.steps[1], launches=launches)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (with_launches(), r"Step 1 \(body \+ head\): has 0 launches"),
        (with_launches(Launch("x(); y", (1, 1, 1), (1, 1, 1))), "not an identifier"),
        (with_launches(Launch("x", (1, 65536, 1), (1, 1, 1))), r"grid of x is \(1, 65536, 1\)"),
        (with_launches(Launch("x", (0, 1, 1), (1, 1, 1))), r"grid of x is \(0, 1, 1\)"),
        (with_launches(Launch("x", (1, 1, 1), (1, 1, 65))), r"block of x is \(1, 1, 65\)"),
        (with_launches(Launch("x", (1, 1, 1), (512, 3, 1))), "has 1536 threads, a GPU takes 1024"),
        (replace(PLAN, workspace_bytes=64), "workspace of 64 bytes"),
        (replace(PLAN, stages=(Stage(2, 4),)), "stages of up to 4 blocks"),
        (replace(PLAN, steps=(replace(PLAN.steps[0], takes_block=True), PLAN.steps[1])), "takes a block"),
        (replace(PLAN, steps=(replace(PLAN.steps[0], arguments=(Argument(Space.ARENA, 704),)),)), r"arena\+704"),
    ],
)
def test_plans_that_no_gpu_runs_are_refused(plan: ExecutionPlan, message: str) -> None:
    """A defect of the passes becomes a launch that fails on the device, or writes elsewhere."""
    with pytest.raises(CompileError, match=message):
        check_gpu_plan(plan)


def test_tensors_have_places_of_their_own() -> None:
    """The second input overlaps the first one on the GPU, or a kernel is given the first one for it."""
    inputs = (TensorSpecification("a", (1, 16)), TensorSpecification("b", (1, 100)))
    arguments = tuple(Argument(Space.INPUT, offset) for offset in (0, 64, 128))
    step = Step("kernel", "layer", "float", arguments, launches=(Launch("kernel", (1, 1, 1), (1, 1, 1)),))
    source = generate_gpu_plan_source(replace(PLAN, inputs=inputs, steps=(step,)), CODE)
    assert "input_offsets[] = {0u, 256u};" in source
    assert "{BNN_INPUT, 0u},\n    {BNN_INPUT, 256u},\n    {BNN_INPUT, 320u},\n" in source
    assert f"{{{len(PLAN.weights)}u, 704u, 768u, 512u}},\n" in source


def test_kernels_are_for_the_target(tmp_path: Path) -> None:
    """A plan of launches is linked without device code, or device code with a target that has no such GPU."""
    with pytest.raises(CompileError, match="no device code"):
        generate_plan_source(PLAN)
    for target, code in ((toy_network.HOST, CODE), (HOST, None), (HOST, replace(CODE, sm=90))):
        with pytest.raises(ValueError, match="has a GPU of sm"):
            write_bundle(tmp_path / "B", plan=PLAN, target=target, model_info={}, device_code=code)


def test_the_manifest_tells_what_the_device_needs(tmp_path: Path) -> None:
    """Readers cannot tell which GPU or driver a bundle needs, or believe a manifest that was altered."""
    bundle = toy_gpu_bundle(tmp_path)
    assert bundle.gpu == {
        "arch": "sm_87",
        "compute_capability": "8.7",
        "needs_cuda": "12.2",
        "ptx_isa": "7.4",
        "needs_cuda_ptx": "11.4",
        "needs_cuda_runtime": False,
        "needs_tvm": False,
        "launches": 3,
        "cubin_bytes": len(CODE.cubin),
        "ptx_bytes": len(CODE.ptx),
    }
    for name, value in (("arch", "sm_x"), ("compute_capability", 8.7), ("needs_cuda", "12"), ("launches", 0)):
        copy = Path(shutil.copytree(bundle.path, tmp_path / name))
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["gpu"][name] = value
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="gpu must name its arch"):
            Bundle.open(copy)


def test_qemu_says_that_it_has_no_gpu(tmp_path: Path) -> None:
    """An emulator of processors is offered a GPU's bundle, and fails for want of a dynamic loader."""
    board = toy_gpu_bundle(tmp_path, BOARD)
    with pytest.raises(BundleError, match=r"qemu emulates a processor, and the kernels of .* are for an NVIDIA GPU"):
        QemuDevice().open(board)
    if platform.machine() == "x86_64":
        with pytest.raises(BundleError, match="is for arm64") as failure:
            LocalDevice().open(board)
        assert "--device qemu" not in str(failure.value)


@pytest.mark.parametrize(
    ("toolkit", "isa", "needs"), [("12.2", "6.0", ("12.2", "10.2")), ("10.0", "8.5", ("10.2", "12.5"))]
)
def test_needs_of_the_code(toolkit: str, isa: str, needs: tuple[str, str]) -> None:
    """The manifest promises drivers that are older than what the runtime or the PTX needs."""
    code = replace(CODE, toolkit=toolkit, ptx=f"// text\n.version {isa}\n.target sm_87\n")
    assert (code.needs_cuda, code.needs_cuda_ptx) == needs


def test_ptx_of_unknown_versions_is_refused() -> None:
    """A bundle promises to run with a driver that nobody knows."""
    for ptx, message in (
        (".version 99.0\n", "of version 99.0, expected one of 6.0 to"),
        (".target sm_87\n", "no .version line"),
    ):
        with pytest.raises(CompileError, match=message):
            _ = replace(CODE, ptx=ptx).needs_cuda_ptx
