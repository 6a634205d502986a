"""Bundles with several kernel sets: the one that suits the processor's cores is chosen, and it is the one that runs."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.linker import RUNTIME_SOURCES
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.codegen.plan_source import generate_plan_source
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices import qemu
from bnn_deploy.errors import BundleError, CompileError, ToolError
from bnn_deploy.plan import ExecutionPlan, KernelSetSteps, Space, Step
from bnn_deploy.runtime.loader import Model
from bnn_deploy.targets.base import KernelSet
from tests.passes.onnx_models import model, node, packed, run
from tests.runtime.toy_network import ARM, HOST, compile_kernels, reference, toy_input, toy_plan, zig

SOURCES = Path(__file__).parent
A53, A72, A55, A76 = (0x41, 0xD03), (0x41, 0xD08), (0x41, 0xD05), (0x41, 0xD0B)
NOT_ARM = (0x51, 0xD03)  # another company's part of the same number
SETS = (KernelSet("out-of-order", "generic"), KernelSet("in-order", "cortex-a53", (), 42.5))


def two_set_plan() -> ExecutionPlan:
    """The toy network; as its in-order set has it, its result lacks the bias, which shows which set has run."""
    plan = toy_plan()

    def other(step: Step) -> Step:
        arguments = [a for a in step.arguments if step.kernel != "toy_add" or a.space is not Space.WEIGHTS]
        if step.kernel == "toy_add":
            zeros = dataclasses.replace(step.arguments[1], offset=len(plan.weights))
            arguments.insert(1, zeros)
        return dataclasses.replace(step, kernel=f"{step.kernel}_in_order", arguments=tuple(arguments))

    return dataclasses.replace(
        plan,
        weights=plan.weights + bytes(256),
        kernel_set="out-of-order",
        other_sets=(KernelSetSteps("in-order", tuple(map(other, plan.steps))),),
    )


def two_set_bundle(folder: Path, target: str) -> Bundle:
    chosen = dataclasses.replace(HOST if target == "x86_64" else ARM, kernel_sets=SETS)
    kernels = compile_kernels(folder, target)
    renamed = folder / "in_order.c"
    names = {step.kernel for step in toy_plan().steps}
    lines = [f"#define {name} {name}_in_order\n" for name in sorted(names)]
    renamed.write_text("".join(lines) + f'#include "{SOURCES / "toy_kernels.c"}"\n')
    triple = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[target]
    zig("cc", "-target", triple, "-O2", "-fPIC", "-c", renamed, "-o", folder / "in_order.o")
    return write_bundle(
        folder / "B",
        kernels_objects=[kernels, folder / "in_order.o"],
        plan=two_set_plan(),
        target=chosen,
        model_info={},
        cache=ObjectCache(cache_folder()),
    )


@pytest.fixture(scope="module")
def arm_two(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return two_set_bundle(tmp_path_factory.mktemp("arm"), "arm64")


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that prints what is chosen for the files in a folder; it runs natively, where no register is read."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc, whose sanitizers this uses, is not installed")
    program = tmp_path_factory.mktemp("choosing") / "choosing"
    options = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-g")
    sources = ("-I", str(RUNTIME_SOURCES), str(SOURCES / "kernel_set_program.c"))
    result = subprocess.run(["gcc", *options, *sources, "-o", str(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def write_sysfs(root: Path, cores: list[tuple[int, int] | None]) -> None:
    """Linux' files of the cores' registers; None is a core that is switched off."""
    for number, core in enumerate(cores):
        folder = root / f"sys/devices/system/cpu/cpu{number}"
        folder.mkdir(parents=True)
        if core is not None:
            register = folder / "regs/identification/midr_el1"
            register.parent.mkdir(parents=True)
            implementer, part = core
            register.write_text(f"0x{implementer << 24 | 0xF << 16 | part << 4 | 4:016x}\n")


def write_cpuinfo(root: Path, cores: list[tuple[int, int]]) -> None:
    """/proc/cpuinfo as Linux on arm64 writes it."""
    (root / "proc").mkdir(parents=True)
    lines = [
        f"processor\t: {number}\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd {'x' * 500}\nCPU implementer\t: 0x{implementer:02x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x{part:03x}\nCPU revision\t: 4\n\n"
        for number, (implementer, part) in enumerate(cores)
    ]
    (root / "proc/cpuinfo").write_text(
        "".join(lines) + "Revision\t: a02082\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n"
    )


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([A53] * 4, "in-order"),
        ([A55, A53], "in-order"),
        ([A53, None, A53], "in-order"),
        ([A72] * 4, "out-of-order"),
        ([A55] * 4 + [A76], "out-of-order"),
        ([A76] + [A55] * 4, "out-of-order"),
        ([NOT_ARM] * 4, "out-of-order"),
        ([None], "out-of-order"),
    ],
)
@pytest.mark.parametrize("write", [write_sysfs, write_cpuinfo])
def test_the_big_cores_decide(choosing: Path, tmp_path: Path, write: object, cores: list, expected: str) -> None:
    """A board gets code for other cores than its own, several times slower on in-order ones."""
    write(tmp_path, cores if write is write_sysfs else [core for core in cores if core is not None])
    assert subprocess.run([choosing, tmp_path], capture_output=True, text=True, check=True).stdout == expected


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "0x", "9" * 1000, "0x0"])
def test_damaged_files_are_no_cores(choosing: Path, tmp_path: Path, text: str) -> None:
    """Odd content of a register's file stops the program, or is taken for a core."""
    write_sysfs(tmp_path, [A53])
    (tmp_path / "sys/devices/system/cpu/cpu0/regs/identification/midr_el1").write_text(text)
    assert subprocess.run([choosing, tmp_path], capture_output=True, text=True, check=True).stdout == "out-of-order"


def test_registers_come_before_cpuinfo(choosing: Path, tmp_path: Path) -> None:
    """A summary written for people outweighs the registers of all cores."""
    write_sysfs(tmp_path, [A72])
    write_cpuinfo(tmp_path, [A53])
    assert subprocess.run([choosing, tmp_path], capture_output=True, text=True, check=True).stdout == "out-of-order"


def run_emulated(bundle: Bundle, core: str, folder: Path, array: np.ndarray, root: Path | None = None) -> np.ndarray:
    """What the bundle's runner gives on a core; ``root`` may hold files of the machine."""
    try:
        emulator = qemu.find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    np.save(folder / "x.npy", array)
    arguments = ["--input", folder / "x.npy", "--output", folder / "y.npy"]
    command = [emulator, "-cpu", core, "-L", root or folder / "empty", bundle.runner, *arguments]
    result = subprocess.run(command, env={}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return np.load(folder / "y.npy")


def bias() -> np.ndarray:
    """What the toy network's result has and that of its in-order set has not."""
    return reference(np.zeros_like(toy_input()))


@pytest.mark.qemu
@pytest.mark.parametrize(("core", "expected"), [("cortex-a53", "in-order"), ("cortex-a72", "out-of-order")])
def test_info_tells_the_set(arm_two: Bundle, core: str, expected: str) -> None:
    """Nobody on the board can see which kernels it got."""
    try:
        emulator = qemu.find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    command = [emulator, "-cpu", core, arm_two.runner, "--info"]
    printed = subprocess.run(command, env={}, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"kernel set: {expected}\n" in printed


@pytest.mark.qemu
@pytest.mark.parametrize(("core", "in_order"), [("cortex-a53", True), ("cortex-a72", False), ("max", False)])
def test_the_set_chosen_is_the_set_that_runs(arm_two: Bundle, tmp_path: Path, core: str, in_order: bool) -> None:
    """The processor's register is not read, or another set's kernels or constants are used than those chosen."""
    array = toy_input()
    expected = reference(array) - bias() * in_order
    assert run_emulated(arm_two, core, tmp_path, array).tobytes() == expected.tobytes()


@pytest.mark.qemu
def test_files_of_the_machine_outweigh_the_register(arm_two: Bundle, tmp_path: Path) -> None:
    """A program that starts on a small core beside big ones takes that core for the machine."""
    write_sysfs(tmp_path / "root", [A53, A72])
    array = toy_input()
    found = run_emulated(arm_two, "cortex-a53", tmp_path, array, tmp_path / "root")
    assert found.tobytes() == reference(array).tobytes()


def one_layer() -> onnx.ModelProto:
    """A 3x3 layer of 64 channels, for which the sets have weights in different layouts, between float operators."""
    geometry = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "in_channels": 64}
    random = np.random.default_rng(0)
    constants = {
        "stem": random.standard_normal((64, 3, 3, 3)).astype(np.float32),
        "zero": np.zeros(1, np.float32),
        "w": packed(64, 9 * 64),
        "scale": random.standard_normal((1, 64, 1, 1)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x stem", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sign", "a zero", "s"),
        node("BinaryConv", "s w", "b", **geometry),
        node("Mul", "b scale", "c"),
        node("Sigmoid", "c", "d"),
        node("Add", "d a", "e"),
        node("GlobalAveragePool", "e", "y"),
    ]
    return model(nodes, [1, 3, 9, 9], constants)


@pytest.mark.qemu
def test_the_sets_of_a_network_agree_bit_for_bit(tmp_path: Path) -> None:
    """A Raspberry Pi 3 gives other results than a Raspberry Pi 4 from the same bundle, or both the same wrong ones."""
    (tmp_path / "n.onnx").write_bytes(one_layer().SerializeToString())
    bundle = compile_model(tmp_path / "n.onnx", "arm64", tmp_path / "B")
    kernels = [
        next(step.kernel for step in bundle.steps_of(name) if step.kind == "binary") for name in bundle.kernel_sets
    ]
    assert kernels == ["bnn_kernel_binary_conv2d_chain9x2_p2", "bnn_kernel_binary_conv2d_chain1x4_p3_in_order"]
    array = np.random.default_rng(1).standard_normal((1, 3, 9, 9)).astype(np.float32)
    found = [run_emulated(bundle, core, tmp_path, array) for core in ("cortex-a72", "cortex-a53")]
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], run(one_layer(), array), rtol=1e-5)


def test_a_machine_without_such_cores_runs_the_first_set(tmp_path: Path) -> None:
    """The set for any core is not the default."""
    bundle = two_set_bundle(tmp_path, "x86_64")
    array = toy_input()
    loaded = Model(bundle)
    assert loaded(array).tobytes() == reference(array).tobytes()
    assert loaded.kernel_set == "out-of-order"


def test_one_set_has_no_name(host_bundle: Bundle) -> None:
    """A bundle of one kernel set claims to have chosen."""
    assert Model(host_bundle).kernel_set == "" and host_bundle.kernel_sets == ("",)


def test_what_a_bundle_tells_of_its_sets(arm_two: Bundle) -> None:
    """Reports name kernels, or limits, of a set that did not run."""
    opened = Bundle.open(arm_two.path)
    assert opened.kernel_sets == ("out-of-order", "in-order")
    assert opened.manifest["processor"]["kernel_sets"][1] == {
        "name": "in-order",
        "mcpu": "cortex-a53",
        "mattr": [],
        "binary_macs_per_cycle": 42.5,
    }
    assert [step.kernel for step in opened.steps] == ["toy_check", "toy_scale", "toy_matmul", "toy_add"]
    assert opened.steps == opened.steps_of("out-of-order")
    assert [step.kernel for step in opened.steps_of("in-order")] == [f"{step.kernel}_in_order" for step in opened.steps]
    with pytest.raises(BundleError, match="no kernel set 'fast', it has 'out-of-order', 'in-order'"):
        opened.steps_of("fast")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_set": ""}, "each needs a name"),
        ({"kernel_set": "in-order"}, "each needs a name"),
        ({"other_sets": (KernelSetSteps("in-order", toy_plan().steps[:-1]),)}, "steps of kernel set 'in-order'"),
        (
            {"other_sets": (KernelSetSteps("in-order", (*toy_plan().steps[:-1], toy_plan().steps[0])),)},
            "steps of kernel set 'in-order'",
        ),
    ],
)
def test_sets_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    """A set of fewer steps makes the runtime call what lies behind its table."""
    with pytest.raises(CompileError, match=message):
        generate_plan_source(dataclasses.replace(two_set_plan(), **changes))
