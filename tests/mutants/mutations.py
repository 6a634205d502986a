"""The mutants of a source: each is the file with one small mistake in it.

Most mistakes are mutmut's. Left out are those that any run of the line notices (``None`` for an argument or an assigned value, a
letter more in a string), and what tests need not see: docstrings, annotations, decorators, imports, messages of errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

Changes = Callable[[cst.CSTNode], Iterator[cst.CSTNode]]

_SKIPPED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.FormattedString, cst.TypeAlias)
# Calls whose arguments are words for people.
_SPOKEN = {"progress", "Unproved"}


@dataclass(frozen=True)
class Place:
    """Where mutants are made.

    Attributes:
        line: of the first character that changes.
        lines: of the statement, as coverage notes them; None if it runs when the module is imported.
        changes: the replacements of ``node``, each with the name of its kind.
    """

    node: cst.CSTNode
    line: int
    lines: range | None
    changes: tuple[tuple[str, cst.CSTNode], ...]


@dataclass(frozen=True)
class Mutant:
    """One file with one mistake.

    Attributes:
        lines: as ``Place.lines``.
        source: the whole file.
        difference: from the real file, as lines of a diff.
    """

    path: str
    line: int
    lines: range | None
    kind: str
    source: str
    difference: str


class Mutations:
    """All places of a file, by line."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = path, source
        wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
        self._module = wrapper.module
        self._positions = wrapper.resolve(PositionProvider)
        self.places = sorted(self._walk(self._module, None, False), key=lambda place: place.line)

    def mutant(self, place: Place, kind: str, replacement: cst.CSTNode) -> Mutant | None:
        """The file with ``replacement`` at the place; None if that is the same program."""
        changed = self._module.deep_replace(place.node, replacement)
        assert isinstance(changed, cst.Module)
        if changed.code == self.source:
            return None
        before, after = self.source.splitlines(), changed.code.splitlines()
        difference = "\n".join(difflib.unified_diff(before, after, self.path, self.path, lineterm="", n=2))
        return Mutant(self.path, place.line, place.lines, kind, changed.code, difference)

    def _range(self, first: cst.CSTNode, last: cst.CSTNode) -> range:
        return range(self._positions[first].start.line, self._positions[last].end.line + 1)

    def _walk(self, node: cst.CSTNode, lines: range | None, inside: bool) -> Iterator[Place]:
        if (
            isinstance(node, _SKIPPED)
            or _is_strict(node)
            or _is_docstring(node)
            or _is_for_type_checkers(node)
            or _is_spoken(node)
        ):
            return
        if inside and (header := _header(node)) is not None:
            lines = self._range(node if isinstance(node, cst.SimpleStatementLine) else header, header)
        changes = tuple((kind, changed) for kind, change in _changes(node) for changed in change(node))
        if changes and node in self._positions:
            yield Place(node, self._positions[node].start.line, lines, changes)
        if isinstance(node, cst.Raise):
            return
        for child in node.children:
            within = inside or (isinstance(node, cst.FunctionDef) and child is node.body)
            yield from self._walk(child, lines, within)


def _header(node: cst.CSTNode) -> cst.CSTNode | None:
    """What of a statement runs as one: all of a simple one, the first lines of one with a body."""
    if isinstance(node, cst.SimpleStatementLine):
        return node
    if isinstance(node, (cst.If, cst.While)):
        return node.test
    if isinstance(node, cst.For):
        return node.iter
    if isinstance(node, cst.With):
        return node.items[-1]
    if isinstance(node, cst.Match):
        return node.subject
    return None


def _is_strict(node: cst.CSTNode) -> bool:
    """``strict=True`` of zip, which fails only where there is a mistake already."""
    return isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "strict"


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, (cst.SimpleString, cst.ConcatenatedString))


def _is_for_type_checkers(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.If) and isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"


def _is_spoken(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.Call):
        return False
    called = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return isinstance(called, cst.Name) and (called.value in _SPOKEN or called.value.endswith("Error"))


def _changes(node: cst.CSTNode) -> Iterator[tuple[str, Changes]]:
    for kind, of, change in _KINDS:
        if isinstance(node, of):
            yield kind, change


def _without_keywords(call: cst.Call) -> Iterator[cst.Call]:
    """The call without one of its keyword arguments, whose default then holds."""
    for changed in mutators.operator_arg_removal(call):
        dropped = [argument for argument in call.args if argument not in changed.args]
        if (
            len(changed.args) < len(call.args)
            and len(dropped) == 1
            and dropped[0].keyword
            and not _is_strict(dropped[0])
        ):
            yield changed


def _forced(branch: cst.If) -> Iterator[cst.If]:
    """The branch taken always, and never."""
    yield branch.with_changes(test=cst.Name("True"))
    yield branch.with_changes(test=cst.Name("False"))


def _unfiltered(condition: cst.CompIf) -> Iterator[cst.CompIf]:
    yield condition.with_changes(test=cst.Name("True"))


def _without_statement(line: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """``pass`` for a call, an error raised, or a change of what others hold."""
    (statement, *others) = line.body
    call = isinstance(statement, cst.Expr) and isinstance(statement.value, cst.Call)
    stored = isinstance(statement, cst.Assign) and not isinstance(statement.targets[0].target, (cst.Name, cst.Tuple))
    if not others and (call or stored or isinstance(statement, (cst.Raise, cst.AugAssign))):
        yield line.with_changes(body=[cst.Pass()])


_KINDS: tuple[tuple[str, type | tuple[type, ...], Changes], ...] = (
    ("number", cst.BaseNumber, mutators.operator_number),
    ("truth", cst.Name, mutators.operator_name),
    ("assignment", cst.AugAssign, mutators.operator_augmented_assignment),
    ("unary", cst.UnaryOperation, mutators.operator_remove_unary_ops),
    ("argument", cst.Call, _without_keywords),
    ("method", cst.Call, mutators.operator_symmetric_string_methods_swap),
    ("method", cst.Call, mutators.operator_unsymmetrical_string_methods_swap),
    ("keyword", cst.CSTNode, mutators.operator_keywords),
    ("operator", cst.CSTNode, mutators.operator_swap_op),
    ("match", cst.Match, mutators.operator_match),
    ("choice", cst.IfExp, mutators.operator_if_exp),
    ("branch", cst.If, _forced),
    ("filter", cst.CompIf, _unfiltered),
    ("statement", cst.SimpleStatementLine, _without_statement),
)
