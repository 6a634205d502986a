"""The C interface: the documented one-line builds work, and give the bits that Python gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.runtime.loader import Model
from tests.runtime.toy_network import reference, toy_input, zig

EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "main.c"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def check_example(command: list[str], bundle: Bundle, folder: Path) -> None:
    array = toy_input()
    array.tofile(folder / "x.bin")
    for threads in ("1", "3"):
        result = subprocess.run(
            [*command, "x.bin", "y.bin", threads], cwd=folder, env={}, capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, result.stderr) == (0, "")
        classes = reference(array).argmax(axis=1)
        assert result.stdout == f"image 0: class {classes[0]}\nimage 1: class {classes[1]}\n"
        assert (folder / "y.bin").read_bytes() == Model(bundle)(array).tobytes() == reference(array).tobytes()


@pytest.mark.parametrize("library", ["model.so", "libmodel.a"])
def test_example_built_by_the_system_compiler(host_bundle: Bundle, tmp_path: Path, library: str) -> None:
    """The build lines of examples/c/main.c do not work, or the C interface gives other bits than Python."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    bundle = str(host_bundle.path)
    rest = [f"-Wl,-rpath,{bundle}"] if library == "model.so" else ["-lm", "-lpthread"]
    command = [compiler, *WARNINGS, str(EXAMPLE), "-I", bundle, f"{bundle}/{library}", *rest, "-o", "classify"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    check_example([str(tmp_path / "classify")], host_bundle, tmp_path)


def test_header_in_cpp(host_bundle: Bundle, tmp_path: Path) -> None:
    """bnn_model.h is not C++, or its functions are declared with C++ linkage."""
    (tmp_path / "main.cpp").write_text(
        '#include "bnn_model.h"\n'
        "int main() {\n"
        "    bnn_model *model = nullptr;\n"
        "    return bnn_create(1, &model) == BNN_OK ? (bnn_destroy(model), 0) : 1;\n"
        "}\n"
    )
    warnings = ("-std=c++11", *WARNINGS[1:])
    zig("c++", *warnings, "-I", host_bundle.path, "-c", tmp_path / "main.cpp", "-o", tmp_path / "main.o")
    # Linked as C: building zig's C++ library takes minutes, and the program uses none of it.
    options = ("-target", "x86_64-linux-gnu.2.17", "-s", f"-Wl,-rpath,{host_bundle.path}")
    zig("cc", *options, tmp_path / "main.o", host_bundle.library, "-o", tmp_path / "main")
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_example_refuses_short_input(host_bundle: Bundle, tmp_path: Path) -> None:
    """The example reads beyond a short file, or hides that a kernel failed."""
    program, archive = tmp_path / "classify", host_bundle.static_library
    options = ("-target", "x86_64-linux-musl", "-static", "-s")
    zig("cc", *options, EXAMPLE, "-I", host_bundle.path, archive, "-o", program)
    (tmp_path / "x.bin").write_bytes(b"\0" * 383)
    result = subprocess.run([program, tmp_path / "x.bin", tmp_path / "y.bin"], capture_output=True, text=True)
    assert (result.returncode, "cannot read one batch" in result.stderr) == (2, True)
    array: np.ndarray = toy_input()
    array[0, 0] = 666
    array.tofile(tmp_path / "x.bin")
    result = subprocess.run([program, tmp_path / "x.bin", tmp_path / "y.bin"], capture_output=True, text=True)
    assert (result.returncode, "a kernel reported failure" in result.stderr) == (2, True)
    assert not (tmp_path / "y.bin").exists()
