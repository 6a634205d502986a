"""A compiled network runs from Python, from C and as a static program, on this machine and on arm64, with the same bits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.errors import ToolError
from bnn_deploy.export.provenance import build
from bnn_deploy.metadata.calibration import calibration_inputs

EXAMPLE = Path(__file__).parent.parent / "examples" / "c" / "main.c"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bcdnet_tiny as ONNX: convolutions, rolls, pooling, PReLU, heads, and no function of the C library's mathematics."""
    from bnn_deploy.export.export_model import export_model

    path = tmp_path_factory.mktemp("network") / "bcdnet_tiny.onnx"
    export_model(build("bcdnet_tiny").module, path, input_shape=(3, 32, 32))
    return path


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return calibration_inputs(0, 1, (3, 32, 32))


@pytest.fixture(scope="module")
def expected(network: Path, image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The bundle for this machine, and its logits from Python."""
    bundle = compile_model(network, "host", tmp_path_factory.mktemp("host") / "bundle")
    return bundle.path, bnn_deploy.load(bundle.path)(image)


def run_example(program: list[str], image: np.ndarray, folder: Path) -> np.ndarray:
    """Run the C example's program: raw float32 in, raw float32 out."""
    image.tofile(folder / "image.bin")
    subprocess.run([*program, folder / "image.bin", folder / "logits.bin"], check=True, capture_output=True)
    return np.fromfile(folder / "logits.bin", np.float32)


def run_runner(program: list[str], image: np.ndarray, folder: Path) -> np.ndarray:
    """Run a bundle's static runner with an empty environment: .npy in, .npy out."""
    np.save(folder / "x.npy", image)
    arguments = ["--input", folder / "x.npy", "--output", folder / "y.npy", "--threads", "2"]
    subprocess.run(["env", "-i", *program, *arguments], check=True, capture_output=True)
    return np.load(folder / "y.npy", allow_pickle=False)


def test_c_example_shared_library(expected: tuple[Path, np.ndarray], image: np.ndarray, tmp_path: Path) -> None:
    """The C interface with model.so would compute something else than Python, or not build with one compiler call."""
    bundle, logits = expected
    program = tmp_path / "classify"
    subprocess.run(
        ["cc", EXAMPLE, "-I", bundle, bundle / "model.so", f"-Wl,-rpath,{bundle}", "-o", program], check=True
    )
    assert run_example([str(program)], image, tmp_path).tobytes() == logits.tobytes()


def test_static_runner(expected: tuple[Path, np.ndarray], image: np.ndarray, tmp_path: Path) -> None:
    """The one file that users copy to a device would compute something else than Python."""
    bundle, logits = expected
    assert run_runner([str(bundle / "runner")], image, tmp_path).tobytes() == logits.tobytes()


@pytest.mark.qemu
def test_arm64(network: Path, expected: tuple[Path, np.ndarray], image: np.ndarray, tmp_path: Path) -> None:
    """On arm64 the static runner would compute something else, or need files of a sysroot; tests/examples has the C example."""
    try:
        qemu = find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    bundle = compile_model(network, "arm64", tmp_path / "bundle").path
    (tmp_path / "sysroot").mkdir()
    emulated = [qemu, "-L", str(tmp_path / "sysroot")]
    from_runner = run_runner([*emulated, str(bundle / "runner")], image, tmp_path)
    assert from_runner.tobytes() == expected[1].tobytes()
