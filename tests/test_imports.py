"""The floors of the design: who may import whom, and what may cost time at the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.source_tree import (
    FLOORS,
    MODULES,
    ROOT,
    floor_of,
    imports,
    is_under,
    module_graph,
    package_graph,
    reachable,
    sources,
)

HEAVY = ("torch", "tvm", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "matplotlib", "jinja2")

# Packages and parts that a folder must never import, whatever the floors allow. `bnn_deploy.load` is the front door.
FORBIDDEN = {
    "models": {"onnx", "onnxruntime", "tvm", "bnn_deploy.ops", "bnn_deploy.targets", "bnn_deploy.passes"},
    "targets": {"onnx", "onnxruntime", "torch", "bnn_deploy.ops", "bnn_deploy.models", "bnn_deploy.passes"},
    "bnn_deploy/ops": {"torch", "tvm", "onnxruntime", "bnn_deploy.models", "bnn_deploy.targets", "bnn_deploy.passes"},
    "passes": {"torch", "onnxruntime", "bnn_deploy.models"},
    "bnn_deploy/compiler.py": {"torch", "onnxruntime", "bnn_deploy.models"},
    "bnn_deploy/bundle/bundle.py": {"torch", "tvm", "onnx", "onnxruntime"},
    "bnn_deploy/runtime": {"torch", "tvm", "onnx", "onnxruntime", "bnn_deploy.models", "bnn_deploy.passes"},
    "bnn_deploy/devices": {"torch", "tvm", "onnx", "onnxruntime", "bnn_deploy.models", "bnn_deploy.passes"},
    "bnn_deploy/profiling": set(HEAVY),
    "bnn_deploy/cli": set(HEAVY) | {"numpy"},
}

# A process of its own that speaks TVM's RPC, started for rpc:// and tracker:// only and killed when it hangs.
ALLOWED = {"bnn_deploy/devices/rpc_worker.py": {"tvm"}}


@pytest.mark.parametrize("path", sources(), ids=str)
def test_floors(path: Path) -> None:
    """Breaks if a file imports from a floor above its own, so that parts can no longer be understood on their own."""
    if path == Path("bnn_deploy/__init__.py"):
        return
    here = floor_of(path)
    for name in imports(path):
        if name in MODULES and MODULES[name] != Path("bnn_deploy/__init__.py"):
            there = floor_of(MODULES[name])
            assert there <= here, f"{path} (floor {here}) imports {name} (floor {there})"


@pytest.mark.parametrize("graph", [module_graph, package_graph], ids=["modules", "packages"])
def test_no_circles(graph: Callable[[], dict[str, set[str]]]) -> None:
    """Breaks if modules, or packages, import each other in a circle, so that none is understood before all of them are."""
    edges = graph()
    assert len(edges) > 20
    circle = [name for name in edges if name in reachable(edges, name)]
    assert not circle


def test_every_package_says_what_it_is_for() -> None:
    """Breaks if a folder has no docstring, which is what a newcomer reads first, and what the picture shows."""
    for path in sources():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse((ROOT / path).read_text())), (
                f"{path} does not say what its folder is for"
            )


@pytest.mark.parametrize("place", FORBIDDEN)
def test_forbidden_imports(place: str) -> None:
    """Breaks if a part starts to depend on something that it must not know of."""
    files = [path for path in sources() if is_under(path, place)]
    assert files
    for path in files:
        for name in imports(path):
            for forbidden in FORBIDDEN[place] - ALLOWED.get(path.as_posix(), set()):
                assert name != forbidden and not name.startswith(f"{forbidden}."), f"{path} imports {name}"


def test_every_floor_exists() -> None:
    """Breaks if the list names files that are gone, and so checks less than it seems to."""
    for place in [place for floor in FLOORS for place in floor]:
        assert list(ROOT.glob(place)), f"{place} is in FLOORS but not in the repository"


def loaded_by(code: str) -> set[str]:
    """Top-level modules in sys.modules after running ``code`` in a fresh interpreter."""
    report = "import sys; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.splitlines())


def test_import_is_cheap() -> None:
    """Breaks if `import bnn_deploy` takes seconds because something heavy came along."""
    assert not loaded_by("import bnn_deploy").intersection(HEAVY)


def test_help_is_cheap() -> None:
    """Breaks if --help of anything imports what takes seconds, and so takes more than half of one."""
    code = """
import contextlib, io
from bnn_deploy.cli import COMMANDS, command_line
for arguments in [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        command_line.main(arguments)
"""
    assert not loaded_by(code).intersection({*HEAVY, "numpy"})


def test_running_a_bundle_needs_numpy_only() -> None:
    """Breaks if a device needs the compiler or PyTorch to run a bundle from Python."""
    loaded = loaded_by("import bnn_deploy.runtime.loader, bnn_deploy.devices.registry")
    assert not loaded.intersection(HEAVY)
