"""Reads LLVM's final code for products that a processor's code generator may contract with the sums that they go into."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import tvm

from bnn_deploy.targets.base import Target

_DEFINITION = re.compile(r"^\s+(%[\w.$\"-]+) = (?:tail |musttail |notail )?(\w+) (.*)$")
_NAME = re.compile(r"%[\w.$\"-]+")
# What passes a value on, maybe in another place of a vector or with another sign.
_MOVES = (
    *(
        "select",
        "phi",
        "shufflevector",
        "insertelement",
        "extractelement",
        "bitcast",
        "freeze",
        "fneg",
        "fpext",
        "fptrunc",
    ),
)
_SUMS = ("fadd", "fsub")
_FUSED = re.compile(r"call (?:<(\d+) x )?(?:float|double)>? @llvm\.fma\.")
_INSTRUCTIONS = {
    "x86_64": re.compile(r"^\s+vfn?m(?:add|sub)\w+\s", re.MULTILINE),
    "arm64": re.compile(r"^\s+(?:fmla|fmls|fn?madd|fn?msub)\s", re.MULTILINE),
}


def compiled(module: tvm.IRModule, target: Target) -> tuple[str, str]:
    """Optimised LLVM code and assembly of kernels."""
    built = tvm.tirx.build(module, tvm.target.Target(target.llvm))
    return built.inspect_source("ll"), built.inspect_source("asm")


def contractible(code: str) -> list[str]:
    """The products (their lines) whose value reaches a sum, directly or through what only passes it on."""
    return [line for function in _functions(code) for line in _contractible_in(function)]


def unexplained(code: str, assembly: str, target: Target) -> int:
    """How many fused multiply-add instructions there are beyond those that the code asks for; not above 0 if none was made."""
    asked = sum(math.ceil(int(lanes or 1) / target.float_lanes) for lanes in _FUSED.findall(code))
    return len(_INSTRUCTIONS[target.architecture].findall(assembly)) - asked


def _functions(code: str) -> Iterator[list[str]]:
    lines: list[str] = []
    for line in code.splitlines():
        if line.startswith("define "):
            lines = []
        elif line == "}":
            yield lines
        else:
            lines.append(line)


def _contractible_in(lines: Sequence[str]) -> Iterator[str]:
    readers: dict[str, list[tuple[str, str]]] = {}
    products: dict[str, str] = {}
    for line in lines:
        found = _DEFINITION.match(line)
        if found is None:
            continue
        name, operation, rest = found.groups()
        if operation == "fmul":
            products[name] = line.strip()
        for operand in set(_NAME.findall(rest)):
            readers.setdefault(operand, []).append((name, operation))
    for product, line in products.items():
        pending, seen = [product], {product}
        while pending:
            for name, operation in readers.get(pending.pop(), []):
                if operation in _SUMS:
                    yield line
                    pending = []
                    break
                if operation in _MOVES and name not in seen:
                    seen.add(name)
                    pending.append(name)
