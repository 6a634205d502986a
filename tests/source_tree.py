"""The source tree as its imports make it: files, floors, and which package needs which."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Ground first; a file imports only from its own floor or below. A folder stands for all its files.
FLOORS: list[list[str]] = [
    # 0: nothing but numpy; what everything else speaks of.
    [
        "bnn_deploy/__init__.py",
        "bnn_deploy/errors.py",
        "bnn_deploy/files.py",
        "bnn_deploy/bits.py",
        "bnn_deploy/checked_fields.py",
        "bnn_deploy/lazy_names.py",
        "bnn_deploy/metadata",
        "bnn_deploy/plan.py",
        "bnn_deploy/progress.py",
        "bnn_deploy/version.py",
    ],
    # 1: the operators, the models, the machines: each knows nothing of the others.
    ["bnn_deploy/ops", "models", "targets"],
    # 2: files that networks are kept in: of weights, and ONNX files.
    ["bnn_deploy/weights", "bnn_deploy/onnx_files"],
    # 3: the network as a Relax module.
    ["bnn_deploy/dialect"],
    # 4: what changes networks.
    ["passes"],
    # 5: how networks come in, and how they leave as machine code.
    ["bnn_deploy/export", "bnn_deploy/frontend", "bnn_deploy/codegen"],
    # 6: the folder with all of a compiled network.
    ["bnn_deploy/bundle"],
    # 7: what makes that folder, what runs it, and what it must compute.
    ["bnn_deploy/compiler.py", "bnn_deploy/runtime", "bnn_deploy/exact"],
    # 8: where it runs, and on what.
    ["bnn_deploy/data", "bnn_deploy/devices"],
    # 9: what is said of networks and machines.
    [
        "bnn_deploy/doctor",
        "bnn_deploy/inspection.py",
        "bnn_deploy/profiling",
        "bnn_deploy/references",
        "bnn_deploy/training",
    ],
    # 10: whether they agree.
    ["bnn_deploy/validation"],
    # 11: how it is shown.
    ["bnn_deploy/report"],
    # 12: parsing and printing.
    ["bnn_deploy/cli", "bnn_deploy/testing.py"],
]


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
        assert path.name == "__init__.py", f"{path} is on no floor; add it to FLOORS in tests/source_tree.py"
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


def place_of(path: Path) -> str:
    """The entry of FLOORS that the file belongs to: a package, or a module that stands alone."""
    return max((place for floor in FLOORS for place in floor if is_under(path, place)), key=len)


@functools.cache
def module_graph() -> dict[str, set[str]]:
    """Of every module, those of ours that it imports, in functions too."""
    return {name: {other for other in imports(path) if other in MODULES} - {name} for name, path in MODULES.items()}


def package_graph() -> dict[str, set[str]]:
    """The same between the places of FLOORS; the front door, which imports by name only, is no part of it."""
    graph: dict[str, set[str]] = defaultdict(set)
    front = module_name(Path("bnn_deploy/__init__.py"))
    for name, others in module_graph().items():
        if name == front or not any(is_under(MODULES[name], place) for floor in FLOORS for place in floor):
            continue
        here = place_of(MODULES[name])
        graph[here] |= {place_of(MODULES[other]) for other in others - {front}} - {here}
    return dict(graph)


def reachable(graph: Mapping[str, Set[str]], start: str) -> set[str]:
    """All that ``start`` leads to, itself only where there is a circle."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
