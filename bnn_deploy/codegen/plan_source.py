"""Writes an execution plan as C: tables, one small function per kernel call, and the weights as bytes to include."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bnn_deploy.errors import CompileError
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Step, TensorSpecification

ALIGNMENT = 64
MAX_RANK = 32  # numpy's, and the static runner's
MAX_BLOCKS = 1 << 24
MAX_BYTES = 1 << 40  # of the arena or one tensor: beyond any device, and far from overflowing size_t sums
KINDS = ("binary", "pack", "float")
DTYPES = ("float32", "int32", "int64")


def bytes_assembly(symbol: str, file: str, *, end: str = "") -> str:
    """Assembly that makes the content of a file in the assembler's folder an array of C: megabytes stay out of the compiler.

    Args:
        symbol: name of the array, hidden outside the library.
        file: name of the file.
        end: a directive for what follows the content.
    """
    return f"""\
    .section .rodata.{symbol},"a",%progbits
    .balign 64
    .globl {symbol}
    .hidden {symbol}
    .type {symbol}, %object
{symbol}:
    .incbin "{file}"
{end}    .size {symbol}, . - {symbol}
    .section .note.GNU-stack,"",%progbits
"""


WEIGHTS_ASSEMBLY = bytes_assembly("bnn_weights", "weights.bin")


def check_plan(plan: ExecutionPlan) -> None:
    """Refuse a plan that the C runtime could not run safely.

    Raises:
        CompileError: no input, output or step; a shape, dtype, kernel name or kind that the format does not know; an
            argument outside its space or not 64-byte aligned; one kernel called with different numbers of arguments; kernel
            sets that have no names of their own, or other steps.
    """
    if not (plan.inputs and plan.outputs and plan.steps):
        raise CompileError(
            f"The plan has {len(plan.inputs)} inputs, {len(plan.outputs)} outputs and {len(plan.steps)} steps; "
            "a network needs at least one of each."
        )
    for name, size in (("arena", plan.arena_bytes), ("workspace", plan.workspace_bytes)):
        if not 0 <= size <= MAX_BYTES:
            raise CompileError(f"The plan's {name} of {size} bytes is outside 0..{MAX_BYTES}.")
    stages_fit = all(stage.step_count >= 1 and 1 <= stage.blocks <= MAX_BLOCKS for stage in plan.schedule)
    if not stages_fit or sum(stage.step_count for stage in plan.schedule) != len(plan.steps):
        raise CompileError(f"The plan's {len(plan.schedule)} stages do not cover its {len(plan.steps)} steps.")
    for tensor in (*plan.inputs, *plan.outputs):
        dimensions_fit = 1 <= len(tensor.shape) <= MAX_RANK and all(size >= 1 for size in tensor.shape)
        if tensor.dtype not in DTYPES or not dimensions_fit or tensor.bytes > MAX_BYTES:
            raise CompileError(
                f"Network tensor {tensor.name!r} is {tensor.dtype} of shape {tensor.shape}; expected one of "
                f"{', '.join(DTYPES)} with 1 to {MAX_RANK} dimensions of at least 1."
            )
    names = [kernel_set.name for kernel_set in plan.kernel_sets]
    if len(set(names)) != len(names) or (len(names) > 1 and "" in names):
        raise CompileError(f"The plan's kernel sets are named {names}; each needs a name of its own.")
    arity: dict[str, int] = {}
    for kernel_set in plan.kernel_sets:
        if [(step.layer, step.kind) for step in kernel_set.steps] != [(step.layer, step.kind) for step in plan.steps]:
            raise CompileError(f"The steps of kernel set {kernel_set.name!r} are not those of {plan.kernel_set!r}.")
        for index, step in enumerate(kernel_set.steps):
            _check_step(index, step, plan, arity)


def _check_step(index: int, step: Step, plan: ExecutionPlan, arity: dict[str, int]) -> None:
    blocks = [stage.blocks for stage in plan.schedule for _ in range(stage.step_count)][index]
    where = f"Step {index} ({step.layer})"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", step.kernel) is None:
        raise CompileError(f"{where}: the kernel name {step.kernel!r} is not a C identifier.")
    if step.kind not in KINDS:
        raise CompileError(f"{where}: the kind is {step.kind!r}, expected one of {', '.join(KINDS)}.")
    if not step.arguments or arity.setdefault(step.kernel, len(step.arguments)) != len(step.arguments):
        raise CompileError(
            f"{where}: kernel {step.kernel} is called with {len(step.arguments)} arguments, "
            f"expected {arity.get(step.kernel, 'at least 1')}."
        )
    for argument in step.arguments:
        last = Argument(argument.space, argument.offset + (blocks - 1) // argument.every * argument.stride)
        if _expression(argument, plan) is None or not _is_inside(last, plan):
            raise CompileError(
                f"{where}: argument {argument.space.value}+{argument.offset} (stride {argument.stride}) is not a "
                f"64-byte aligned place inside the plan's {argument.space.value}."
            )


def generate_plan_source(plan: ExecutionPlan) -> str:
    """The C source of a plan: ``bnn_network`` as declared in runtime/cpu/plan.h.

    Raises:
        CompileError: see ``check_plan``; the plan is for a GPU.
    """
    check_plan(plan)
    if any(step.launches for step in plan.steps):
        raise CompileError("The plan launches kernels on a GPU, and there is no device code with it.")
    parts = ['/* Generated by bnn-deploy from an execution plan. */\n#include "cpu/plan.h"\n']
    kernel_sets = [kernel_set.steps for kernel_set in plan.kernel_sets]
    parts += sorted({f"int32_t {s.kernel}({', '.join(_parameter_types(s))});" for steps in kernel_sets for s in steps})
    parts += [tensor_table("inputs", plan.inputs), tensor_table("outputs", plan.outputs)]
    parts += [_step_tables(number, steps, plan) for number, steps in enumerate(kernel_sets)]
    sets = [f"{c_string(s.name)}, steps_{n}, calls_{n}" for n, s in enumerate(plan.kernel_sets)]
    parts.append(c_table("bnn_kernels", "kernel_sets", sets))
    parts.append(c_table("bnn_stage", "stages", [f"{s.step_count}u, {s.blocks}" for s in plan.schedule]))
    parts.append(
        "const bnn_plan bnn_network = {\n"
        f"    inputs, {len(plan.inputs)}, outputs, {len(plan.outputs)},\n"
        f"    kernel_sets, {len(kernel_sets)}, {len(plan.steps)}, stages, {len(plan.schedule)},\n"
        f"    {plan.arena_bytes}u, {plan.workspace_bytes}u,\n}};\n"
    )
    return "\n".join(parts)


def _step_tables(number: int, steps: Sequence[Step], plan: ExecutionPlan) -> str:
    """The functions and tables of one kernel set."""
    functions = [_step_function(f"step_{number}_{index}", index, step, plan) for index, step in enumerate(steps)]
    calls = "".join(f"    step_{number}_{index},\n" for index in range(len(steps)))
    return "\n".join(
        [
            *functions,
            step_table(f"steps_{number}", steps),
            f"static int32_t (*const calls_{number}[])(const bnn_memory *, int32_t) = {{\n{calls}}};\n",
        ]
    )


def step_table(name: str, steps: Sequence[Step]) -> str:
    """``bnn_step`` of each."""
    rows = [", ".join(map(c_string, (step.kernel, step.layer, step.kind))) for step in steps]
    return c_table("bnn_step", name, rows)


def _parameter_types(step: Step) -> list[str]:
    return ["void *"] * len(step.arguments) + ["int32_t"] * step.takes_block


def _step_function(name: str, index: int, step: Step, plan: ExecutionPlan) -> str:
    comment = re.sub(r"[^ -~]", "?", step.layer).replace("*/", "* /").replace("/*", "/ *")
    addresses = [str(_expression(argument, plan)) for argument in step.arguments]
    arguments = ",\n        ".join(addresses + ["block"] * step.takes_block)
    return (
        f"/* Step {index}, {step.kind}: {comment} */\n"
        f"static int32_t {name}(const bnn_memory *memory, int32_t block) {{\n"
        "    (void)memory, (void)block;\n"
        f"    return {step.kernel}(\n        {arguments});\n}}\n"
    )


def _is_inside(argument: Argument, plan: ExecutionPlan) -> bool:
    sizes = {
        Space.WEIGHTS: len(plan.weights),
        Space.ARENA: plan.arena_bytes,
        Space.WORKSPACE: plan.workspace_bytes,
        Space.INPUT: sum(tensor.bytes for tensor in plan.inputs),
        Space.OUTPUT: sum(tensor.bytes for tensor in plan.outputs),
    }
    return 0 <= argument.offset < sizes[argument.space]


def _expression(argument: Argument, plan: ExecutionPlan) -> str | None:
    """The C expression of an argument's address; None when block 0's lies outside its space or is not aligned."""
    offset = argument.offset
    if not _is_inside(argument, plan) or argument.every < 1:
        return None
    moved = ""
    if argument.stride:
        moved = f" + (size_t)(block / {argument.every}) * {argument.stride}u"
    if argument.space not in (Space.INPUT, Space.OUTPUT):
        if offset % ALIGNMENT != 0:
            return None
        if argument.space is Space.WEIGHTS:
            return f"(void *)(bnn_weights + {offset}u{moved})"
        return f"memory->{argument.space.value} + {offset}u{moved}"
    name = "inputs" if argument.space is Space.INPUT else "outputs"
    index, offset = place_in_tensors(argument, plan)
    return f"memory->{name}[{index}] + {offset}u{moved}" if offset % ALIGNMENT == 0 else None


def place_in_tensors(argument: Argument, plan: ExecutionPlan) -> tuple[int, int]:
    """Which input (or output) an argument inside that space is in, and how many bytes into it."""
    offset = argument.offset
    # Several inputs (or outputs) lie end to end in their space, in order.
    tensors = plan.inputs if argument.space is Space.INPUT else plan.outputs
    for index, tensor in enumerate(tensors):
        if offset < tensor.bytes:
            return index, offset
        offset -= tensor.bytes
    raise ValueError(f"{argument} lies outside the plan's {argument.space.value}")


def tensor_table(name: str, tensors: Sequence[TensorSpecification]) -> str:
    """``bnn_tensor`` of each, and their shapes."""
    shapes = "".join(
        f"static const int64_t {name}_shape_{index}[] = {{{', '.join(map(str, tensor.shape))}}};\n"
        for index, tensor in enumerate(tensors)
    )
    rows = [
        f"{c_string(tensor.name)}, {c_string(tensor.dtype)}, {len(tensor.shape)}, {name}_shape_{index}, {tensor.bytes}u"
        for index, tensor in enumerate(tensors)
    ]
    return shapes + c_table("bnn_tensor", name, rows)


def c_table(kind: str, name: str, rows: Sequence[str]) -> str:
    """A constant array of C structures, of which ``rows`` are the members."""
    return f"static const {kind} {name}[] = {{\n" + "".join(f"    {{{row}}},\n" for row in rows) + "};\n"


def c_string(text: str) -> str:
    """A C string literal; every byte but plain letters, digits and a few marks is an octal escape."""
    plain = re.compile(rb"[A-Za-z0-9_ .+:/()-]")
    body = "".join(
        chr(byte) if plain.fullmatch(bytes([byte])) else f"\\{byte:03o}" for byte in text.replace("\0", "?").encode()
    )
    return f'"{body}"'
