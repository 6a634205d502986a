"""The execution plan: the straight line of kernel calls that a compiled network is, over one planned arena.

Neighbouring calls may form a stage that runs block of rows by block of rows, so that what they hand to each other stays in
the caches. The passes end in a plan, the code generator turns it into C tables, and profile and validate report by its steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod


class Space(Enum):
    """Where a kernel argument lives at run time."""

    INPUT = "input"
    OUTPUT = "output"
    WEIGHTS = "weights"
    ARENA = "arena"
    WORKSPACE = "workspace"  # each thread has its own


@dataclass(frozen=True)
class Argument:
    """One pointer given to a kernel: ``offset`` bytes into ``space`` (64-byte aligned), moved on block by block.

    Attributes:
        space, offset: the address in block 0.
        stride: bytes to the next place; in block ``b`` the address is ``offset + b // every * stride``.
        every: blocks that share a place: 1 for rows of an image, the blocks of an image for what it has once.
    """

    space: Space
    offset: int
    stride: int = 0
    every: int = 1


@dataclass(frozen=True)
class TensorSpecification:
    """Shape (batch included) and dtype of a network input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * {"float32": 4, "int64": 8, "int32": 4}[self.dtype]


@dataclass(frozen=True)
class Launch:
    """One kernel that a GPU is told to run; its parameters are the addresses of all of its step's arguments, in their order.

    Attributes:
        symbol: name of the kernel in the device code, ``extern "C" __global__ void symbol(…)``.
        grid: blocks of threads in x, y and z.
        block: threads of a block in x, y and z. Shared memory is declared in the kernel.
    """

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


@dataclass(frozen=True)
class Result:
    """An ONNX value that a step computes.

    Attributes:
        tensor: its name in the model that the compiler reads.
        kind: ``"words"`` (packed signs) or ``"floats"``.
        argument: which of the step's arguments it is.
        bytes: of one block.
        channels_last: as in ``NetworkValue``; a value may also be computed in the file's order, by another step.
    """

    tensor: str
    kind: str
    argument: int
    bytes: int
    channels_last: bool = False


@dataclass(frozen=True)
class NetworkValue:
    """How an ONNX value that a network computes lies in memory, as a whole.

    Attributes:
        tensor, kind: as in ``Result``.
        layer: the PyTorch layer (or ONNX node) that computes it.
        shape: batch included; of uint32 words or float32.
        channels_last: a rank-4 value, NCHW in the file, lies NHWC.
        channels: that words hold; 0 for floats.
        ternary: words of a three-valued tensor, in two planes.
    """

    tensor: str
    kind: str
    layer: str
    shape: tuple[int, ...]
    channels_last: bool
    channels: int
    ternary: bool


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: C symbol ``int32_t kernel(void *, …)``, one pointer per argument, 0 on success. On a GPU: a name for reports.
        layer: module path of the PyTorch layer (or ONNX node) this call computes; several layers fused are joined by `` + ``.
        kind: ``"binary"`` (popcount kernel), ``"pack"`` (sign + bitpack) or ``"float"``.
        arguments: in the kernel's order, inputs first, then outputs, then scratch.
        binary_macs: multiply-accumulates on bits, all blocks together.
        takes_block: the kernel has a last parameter ``int32_t``: the index of the block.
        bytes: size of all buffers that the call reads and writes (inputs, constants, outputs), each counted once, all blocks
            together; scratch memory is not counted. 0 if unknown.
        launches: what a GPU runs for it, one after the other; empty on processors.
        results: those of its outputs that are values of the ONNX file.
    """

    kernel: str
    layer: str
    kind: str
    arguments: tuple[Argument, ...]
    binary_macs: int = 0
    takes_block: bool = False
    bytes: int = 0
    launches: tuple[Launch, ...] = ()
    results: tuple[Result, ...] = ()


@dataclass(frozen=True)
class KernelSetSteps:
    """The steps of a plan again, with kernels for another kind of core and with its constants.

    Attributes:
        name: the kernel set's, as in ``Target``.
        steps: one for one of the plan's layers, kinds and buffers of activations.
    """

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Stage:
    """Neighbouring steps that run block after block; blocks are independent, and threads share them out."""

    step_count: int
    blocks: int = 1


@dataclass(frozen=True)
class ExecutionPlan:
    """A whole network: steps in order, constant bytes, and the sizes of the arena and of each thread's workspace.

    ``stages`` covers the steps in order; when it is empty, every step is a stage of one block. ``steps`` are those of the first
    kernel set, whose name is ``kernel_set``; ``other_sets`` are the further ones, none if that name is "".
    """

    steps: tuple[Step, ...]
    inputs: tuple[TensorSpecification, ...]
    outputs: tuple[TensorSpecification, ...]
    weights: bytes
    arena_bytes: int
    workspace_bytes: int = 0
    stages: tuple[Stage, ...] = ()
    kernel_set: str = ""
    other_sets: tuple[KernelSetSteps, ...] = ()
    values: tuple[NetworkValue, ...] = ()

    @property
    def kernel_sets(self) -> tuple[KernelSetSteps, ...]:
        """All kernel sets, the one for any core first."""
        return (KernelSetSteps(self.kernel_set, self.steps), *self.other_sets)

    @property
    def schedule(self) -> tuple[Stage, ...]:
        """``stages``, or one stage of one block for each step."""
        return self.stages or (Stage(1),) * len(self.steps)

    def script(self) -> str:
        """One line per stage and step, for ``--dump-ir``."""
        lines = []
        for kernel_set in self.kernel_sets:
            lines += [f"kernel set {kernel_set.name}"] * bool(kernel_set.name)
            steps = iter(kernel_set.steps)
            for index, stage in enumerate(self.schedule):
                lines.append(f"stage {index}: {stage.blocks} blocks")
                for _ in range(stage.step_count):
                    step = next(steps)
                    arguments = ", ".join(
                        f"{a.space.value}+{a.offset}" + f"~{a.stride}" * bool(a.stride) for a in step.arguments
                    )
                    lines.append(f"    {step.kind:6} {step.kernel}({arguments})  # {step.layer}")
                    lines += [
                        f"           {launch.symbol}<<<{launch.grid}, {launch.block}>>>" for launch in step.launches
                    ]
        lines.append(
            f"arena {self.arena_bytes} bytes, workspace {self.workspace_bytes} bytes, weights {len(self.weights)} bytes"
        )
        return "\n".join(lines) + "\n"
