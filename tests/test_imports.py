"""The floors of the design: who may import whom, and what may cost time at the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "tvm", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "matplotlib", "jinja2")

# Ground first; a file imports only from its own floor or below. A folder stands for all its files.
FLOORS: list[list[str]] = [
    # 0: nothing but numpy; what everything else speaks of.
    [
        "bnn_deploy/__init__.py",
        "bnn_deploy/errors.py",
        "bnn_deploy/files.py",
        "bnn_deploy/bits.py",
        "bnn_deploy/lazy_names.py",
        "bnn_deploy/metadata",
        "bnn_deploy/plan.py",
        "bnn_deploy/progress.py",
        "bnn_deploy/version.py",
    ],
    # 1: the operators, the models, the machines: each knows nothing of the others.
    ["bnn_deploy/ops", "models", "targets"],
    # 2: what networks are kept in: files of weights, ONNX files, Relax modules.
    ["bnn_deploy/weights", "bnn_deploy/onnx_files", "bnn_deploy/dialect"],
    # 3: what changes networks.
    ["passes"],
    # 4: how networks come in, and how they leave as machine code.
    ["bnn_deploy/export", "bnn_deploy/frontend", "bnn_deploy/codegen"],
    # 5: the folder with all of a compiled network.
    ["bnn_deploy/bundle"],
    # 6: what makes that folder, and what runs it.
    ["bnn_deploy/compiler.py", "bnn_deploy/runtime"],
    # 7: where it runs, and on what.
    ["bnn_deploy/data", "bnn_deploy/devices"],
    # 8: what is said of networks and machines.
    [
        "bnn_deploy/doctor",
        "bnn_deploy/exact",
        "bnn_deploy/inspection.py",
        "bnn_deploy/profiling",
        "bnn_deploy/references",
        "bnn_deploy/training",
        "bnn_deploy/validation",
    ],
    # 9: how it is shown.
    ["bnn_deploy/report"],
    # 10: parsing and printing.
    ["bnn_deploy/cli", "bnn_deploy/testing.py"],
]

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


def sources() -> list[Path]:
    folders = ("bnn_deploy", "models", "passes", "targets")
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "bnn_deploy" else ("bnn_deploy", *parts))


MODULES = {module_name(path): path for path in sources()}


def is_under(path: Path, place: str) -> bool:
    return fnmatch(path.as_posix(), place) or path.as_posix().startswith(f"{place}/")


def floor_of(path: Path) -> int:
    """Floor of the longest entry that holds the file."""
    entries = [(len(place), floor) for floor, places in enumerate(FLOORS) for place in places if is_under(path, place)]
    if not entries:
        # The __init__ files of packages that are only folders.
        assert path.name == "__init__.py", f"{path} is on no floor; add it to FLOORS in tests/test_imports.py"
        return 0
    return max(entries)[1]


def imports(path: Path) -> Iterator[str]:
    """Modules that the file imports, in functions too, but not those for type checkers only."""
    tree = ast.parse((ROOT / path).read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; import bnn_deploy.… instead"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)


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
