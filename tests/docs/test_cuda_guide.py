"""docs/cuda.md: a stranger who types its commands, in order, gets to the end; the GPU is the fake driver's."""

from __future__ import annotations

from pathlib import Path

from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.pipeline import lower
from bnn_deploy.targets.registry import get_target
from tests.cuda.driver import build_driver, driver_environment
from tests.cuda.serial_library import serial_library
from tests.docs.documents import documented_commands, newcomers_environment, run_documented
from tests.docs.test_guides import missing_lines

ROOT = Path(__file__).parents[2]


def test_commands_of_the_page(tmp_path: Path) -> None:
    """A command of docs/cuda.md fails, or prints something else than the page shows."""
    commands = documented_commands((ROOT / "docs" / "cuda.md").read_text())
    typed = {line.command.split()[1] for line in commands}
    assert typed >= {"export", "compile", "run", "validate", "profile"}
    folder = tmp_path / "work"
    folder.mkdir()
    environment = newcomers_environment(tmp_path / "programs")
    for documented in commands:
        done = run_documented(documented.command, folder, environment)
        missing = list(missing_lines(documented.output, done.stdout + done.stderr))
        assert not missing, f"{documented.command}\nlacks {missing}\n{done.stdout}{done.stderr}"
        if documented.command.endswith("-o tiny_gpu"):
            # From here on, a machine with a GPU.
            target = get_target("cuda", "sm_86")
            model = open_model(folder / "tiny.onnx", None, lambda message: None).model
            kernels = serial_library(lower(model, target, 1), target, tmp_path)
            fake = driver_environment(build_driver(tmp_path), kernels, capability=target.gpu.sm)
            environment |= {name: value for name, value in fake.items() if name.startswith(("CUDA_", "LD_"))}
    made = {path.name for path in folder.iterdir()}
    assert made == {"tiny.onnx", "tiny_orin", "tiny_gpu", "ir", "x.npy", "y.npy", "gpu.html"}
    assert "bnn_mma_xor" in (folder / "ir" / "kernels.cu").read_text()
