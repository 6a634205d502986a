"""plan_memory: every step finds what earlier steps wrote, in as little memory as the greedy placement needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import ir, relax, tirx

from bnn_deploy.dialect.values import Value, with_values
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.pipeline import lower
from bnn_deploy.passes.plan_memory import plan_memory
from bnn_deploy.passes.tir.kernel_set import LoweredFunction
from bnn_deploy.passes.tir.raw_pointers import RawKernel
from bnn_deploy.plan import Argument, ExecutionPlan, Result, Space
from bnn_deploy.targets.registry import get_target
from tests.passes.networks import constant
from tests.passes.onnx_models import model, node, packed

ALIGNMENT = 64


@dataclass
class Call:
    """What one step should do, written down while the network is built: names of values, or constants."""

    reads: list[str | np.ndarray]
    writes: list[str]
    scratch: tuple[int, ...]


@dataclass
class Network:
    """A straight line of kernel calls on made-up kernels."""

    calls: list[Call] = field(default_factory=list)
    kernels: dict[str, RawKernel] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    module: tvm.IRModule | None = None

    def plan(self) -> ExecutionPlan:
        return plan_memory({"main": LoweredFunction(self.module, self.kernels)})


class Maker:
    """Builds a ``Network``; ``values`` maps variables to the names of the memory they stand for."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.network = Network()
        self.builder = relax.BlockBuilder()
        self.x = relax.Var("x", relax.TensorType(shape, "float32"))
        self.values: dict[relax.Var, str] = {self.x: "input"}
        self.network.bytes["input"] = 4 * int(np.prod(shape))

    def call(self, reads: list[relax.Expr], shapes: list[tuple[int, ...]], scratch: tuple[int, ...] = ()) -> list:
        """One kernel call; its outputs, one tensor each."""
        index = len(self.network.calls)
        pointer = tirx.Var("p", tvm.ir.PointerType(tvm.ir.PrimType("float32")))
        function = tirx.PrimFunc([pointer], tirx.Evaluate(index))  # unlike any other
        types = [relax.TensorType(shape, "float32") for shape in shapes]
        variable = self.builder.add_func(function, f"kernel{index}")
        self.network.kernels[variable.name_hint] = RawKernel(
            function.with_attr("global_symbol", f"bnn_kernel_{index}"), scratch
        )
        call = relax.call_tir(variable, relax.Tuple(reads), types[0] if len(types) == 1 else types)
        attributes = ir.make_node("ir.DictAttrs", layer=f"layer.{index}", kind="float", binary_macs=index)
        result = self.builder.emit(relax.Call(call.op, call.args, attributes, call.ty_args))
        outputs = [result]
        if len(types) > 1:
            outputs = [self.builder.emit(relax.TupleGetItem(result, i)) for i in range(len(types))]
        names = [f"{index}.{i}" for i in range(len(shapes))]
        for output, name, shape in zip(outputs, names, shapes, strict=True):
            self.values[output] = name
            self.network.bytes[name] = 4 * int(np.prod(shape))
        sources = [self.values[r] if isinstance(r, relax.Var) else r.value.numpy() for r in reads]
        self.network.calls.append(Call(sources, names, scratch))
        return outputs

    def reshape(self, x: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        """The same memory under another shape."""
        result = self.builder.emit(relax.op.reshape(x, shape))
        self.values[result] = self.values[x]
        return result

    def finish(self, body: object) -> Network:
        with self.builder.function("main", [self.x]):
            with self.builder.dataflow():
                output = self.builder.emit_output(body(self))
            self.builder.emit_func_output(output)
        self.network.module = self.builder.finalize().with_attr("kernel_layers", {})
        return self.network


def execute(network: Network, plan: ExecutionPlan) -> None:
    """Run the plan on memory whose every byte remembers who wrote it; fail when a step reads anything but its inputs."""
    arena = np.full(plan.arena_bytes, "nothing", object)
    output = np.full(plan.outputs[0].bytes, "nothing", object)
    for step, call in zip(plan.steps, network.calls, strict=True):
        count = len(call.reads)
        reads, writes = step.arguments[:count], step.arguments[count : count + len(call.writes)]
        scratch = step.arguments[count + len(call.writes) :]
        assert len(scratch) == len(call.scratch)
        for argument, source in zip(reads, call.reads, strict=True):
            if isinstance(source, np.ndarray):
                found = plan.weights[argument.offset : argument.offset + source.nbytes]
                assert argument.space is Space.WEIGHTS and found == source.tobytes()
            elif source == "input":
                assert argument == Argument(Space.INPUT, 0)
            else:
                held = memory(argument, arena, output)[argument.offset : argument.offset + network.bytes[source]]
                assert len(held) == network.bytes[source] and (held == source).all(), f"{step.layer} reads {set(held)}"
        # Everything the step may write: its results and scratch may overlap neither each other nor what it reads.
        written = [(w, network.bytes[name], name) for w, name in zip(writes, call.writes, strict=True)]
        written += [(argument, size, "scratch") for argument, size in zip(scratch, call.scratch, strict=True)]
        for argument, size, name in written:
            assert argument.space in (Space.ARENA, Space.OUTPUT)
            space = memory(argument, arena, output)
            assert argument.offset + size <= len(space), f"{step.layer} writes beyond its memory"
            for other, length, what in written:
                if other is not argument and other.space is argument.space:
                    apart = other.offset + length <= argument.offset or argument.offset + size <= other.offset
                    assert apart, f"{name} and {what} of {step.layer} overlap"
        for argument, size, name in written:
            memory(argument, arena, output)[argument.offset : argument.offset + size] = name
        for argument, source in zip(reads, call.reads, strict=True):
            if isinstance(source, str) and source != "input":
                held = memory(argument, arena, output)[argument.offset : argument.offset + network.bytes[source]]
                assert (held == source).all(), f"{step.layer} overwrites its own input"
    assert len(set(output)) == 1 and output[0] != "nothing", "the output is not complete"


def memory(argument: Argument, arena: np.ndarray, output: np.ndarray) -> np.ndarray:
    return arena if argument.space is Space.ARENA else output


def largest_working_set(network: Network, plan: ExecutionPlan) -> int:
    """Bytes that are alive at the same time in the busiest step, without the input and the output: no plan needs less."""
    last_read = {
        name: index for index, call in enumerate(network.calls) for name in call.reads if isinstance(name, str)
    }
    in_output = {
        name
        for step, call in zip(plan.steps, network.calls, strict=True)
        for argument, name in zip(step.arguments[len(call.reads) :], call.writes, strict=False)
        if argument.space is Space.OUTPUT
    }
    first = {name: index for index, call in enumerate(network.calls) for name in call.writes}
    return max(
        sum(call.scratch)
        + sum(
            network.bytes[name]
            for name, born in first.items()
            if name not in in_output and born <= index <= last_read.get(name, born)
        )
        for index, call in enumerate(network.calls)
    )


SHAPES = [(1, 1), (3, 5), (2, 8, 8), (1, 7, 7, 3), (4, 33), (130,)]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Random graphs with branches, several outputs, scratch, reshapes, shared constants and values nobody reads."""
    maker = Maker(draw(st.sampled_from(SHAPES)))
    constants = [constant(np.full(shape, value)) for value in (0.0, 1.0) for shape in ((1,), (40,))]

    def body(maker: Maker) -> relax.Expr:
        for _ in range(draw(st.integers(1, 10))):
            sources = list(maker.values)
            reads = draw(st.lists(st.sampled_from([*sources, *constants]), min_size=0, max_size=3))
            shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
            outputs = maker.call(reads, shapes, tuple(draw(st.lists(st.integers(1, 300), max_size=2))))
            if draw(st.booleans()):
                x = draw(st.sampled_from(outputs))
                maker.reshape(x, (-1,))
        (result,) = maker.call([draw(st.sampled_from(list(maker.values)))], [(2, 5)])
        if draw(st.booleans()):
            maker.call([result], [(3,)])  # the output is also read
        return maker.reshape(result, (10,)) if draw(st.booleans()) else result

    return maker.finish(body)


@settings(max_examples=120, deadline=None)
@given(networks())
def test_every_read_finds_what_was_written_for_it(network: Network) -> None:
    """Breaks: two values that are alive at the same time share bytes, and the network computes garbage."""
    plan = network.plan()
    execute(network, plan)
    for step in plan.steps:
        for argument in step.arguments:
            assert argument.offset % ALIGNMENT == 0, "vector loads need aligned buffers"
    assert plan.arena_bytes % ALIGNMENT == 0
    everything = sum(-(-network.bytes[n] // ALIGNMENT) * ALIGNMENT for call in network.calls for n in call.writes)
    everything += sum(-(-size // ALIGNMENT) * ALIGNMENT for call in network.calls for size in call.scratch)
    assert largest_working_set(network, plan) <= plan.arena_bytes <= everything


def chain(length: int) -> Network:
    """``length`` calls, each reading the one before it, 400 bytes each."""

    def body(maker: Maker) -> relax.Expr:
        x = maker.x
        for _ in range(length):
            (x,) = maker.call([x], [(10, 10)])
        return x

    return Maker((10, 10)).finish(body)


def test_a_chain_needs_two_buffers() -> None:
    """Breaks: memory grows with the depth of the network."""
    # 400 bytes take 448 of the arena; the last result goes to the output.
    assert chain(20).plan().arena_bytes == 2 * 448


def test_first_reads_the_input_and_last_writes_the_output() -> None:
    """Breaks: the caller's arrays are not used, or copied."""
    steps = chain(3).plan().steps
    assert steps[0].arguments[0] == Argument(Space.INPUT, 0)
    assert steps[-1].arguments[-1] == Argument(Space.OUTPUT, 0)
    assert all(a.space is Space.ARENA for step in steps for a in step.arguments[1:-1])


def test_a_shortcut_keeps_its_buffer_until_it_is_added() -> None:
    """Breaks: a residual block adds whatever overwrote its shortcut."""

    def body(maker: Maker) -> relax.Expr:
        (shortcut,) = maker.call([maker.x], [(10, 10)])
        y = shortcut
        for _ in range(4):
            (y,) = maker.call([y], [(10, 10)])
        (total,) = maker.call([y, shortcut], [(10, 10)])
        return total

    network = Maker((10, 10)).finish(body)
    plan = network.plan()
    execute(network, plan)
    assert plan.arena_bytes == 3 * 448


def test_reshapes_share_their_sources_bytes() -> None:
    """Breaks: a reshape is a copy, or its source is overwritten while the reshaped value is alive."""

    def body(maker: Maker) -> relax.Expr:
        (y,) = maker.call([maker.x], [(4, 5)])
        flat = maker.reshape(maker.reshape(y, (5, 4)), (20,))
        (other,) = maker.call([maker.x], [(4, 5)])
        (z,) = maker.call([flat, other], [(20,)])
        return z

    network = Maker((4, 5)).finish(body)
    plan = network.plan()
    execute(network, plan)
    assert plan.steps[2].arguments[0] == plan.steps[0].arguments[-1]


def test_reshape_of_the_output_is_the_output() -> None:
    """Breaks: the network's result is written to the arena and never returned."""

    def body(maker: Maker) -> relax.Expr:
        (y,) = maker.call([maker.x], [(4, 5)])
        return maker.reshape(y, (20,))

    plan = Maker((4, 5)).finish(body).plan()
    assert plan.steps[0].arguments[-1] == Argument(Space.OUTPUT, 0)
    assert plan.outputs[0].shape == (20,) and plan.arena_bytes == 0


def test_equal_constants_are_stored_once_and_different_ones_apart() -> None:
    """Breaks: every layer's ones and zeros are stored again, or constants that share a prefix are taken for equal."""

    def body(maker: Maker) -> relax.Expr:
        (y,) = maker.call([maker.x, constant(np.ones(20)), constant(np.ones(20)), constant(np.ones(19))], [(1,)])
        (z,) = maker.call([y, constant(np.ones(20))], [(1,)])
        return z

    network = Maker((1,)).finish(body)
    plan = network.plan()
    execute(network, plan)
    _, first, second, shorter, _ = plan.steps[0].arguments
    assert first == second == plan.steps[1].arguments[1] != shorter
    assert len(plan.weights) == 128 + 19 * 4


def test_steps_carry_symbol_layer_kind_and_work() -> None:
    """Breaks: profile reports the wrong layer for a kernel."""
    step = chain(3).plan().steps[2]
    assert (step.kernel, step.layer, step.kind, step.binary_macs) == ("bnn_kernel_2", "layer.2", "float", 2)


def test_steps_say_which_values_of_the_file_they_write() -> None:
    """Breaks: validate compares nothing, or the memory of another result of the same kernel."""
    held: dict[relax.Var, Value] = {}

    def body(maker: Maker) -> relax.Expr:
        first, second = maker.call([maker.x], [(10, 10), (2, 5)])
        (third,) = maker.call([first, second], [(4, 4)])
        held.update({first: Value("a"), second: Value("b", channels=5), third: Value("c", channels_last=1)})
        return third

    network = Maker((10, 10)).finish(body)
    network.module = with_values(network.module, held)
    assert [step.results for step in network.plan().steps] == [
        (Result("a", "floats", 1, 400, False), Result("b", "words", 2, 40, False)),
        (Result("c", "floats", 2, 64, True),),
    ]


def test_inputs_and_outputs_are_described() -> None:
    """Breaks: the loader checks arrays against the wrong shape."""
    plan = chain(2).plan()
    assert [(t.name, t.shape, t.dtype) for t in plan.inputs] == [("x", (10, 10), "float32")]
    assert [(t.shape, t.dtype) for t in plan.outputs] == [((10, 10), "float32")]


def test_what_is_no_kernel_call_is_named() -> None:
    """Breaks: an operator without a kernel is silently left out, or the user does not learn which one."""
    with pytest.raises(CompileError, match=r"needs 'abs', for which the compiler has no kernel"):
        Maker((4,)).finish(lambda maker: maker.builder.emit(relax.op.abs(maker.x))).plan()


@pytest.mark.parametrize("reshaped", [False, True])
def test_output_that_is_the_input_is_refused(reshaped: bool) -> None:
    """Breaks: a network without kernels returns uninitialised memory."""
    network = Maker((4, 5)).finish(lambda maker: maker.reshape(maker.x, (20,)) if reshaped else maker.x)
    with pytest.raises(CompileError, match="output must be computed by a kernel"):
        network.plan()


def gated_network(side: int) -> onnx.ModelProto:
    """A 3x3 binary layer of 64 channels on two images, and each image's channel means multiplied in."""
    geometry = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "in_channels": 64}
    nodes = [
        node("Sign", "x zero", "s"),
        node("BinaryConv", "s w", "c", **geometry),
        node("GlobalAveragePool", "x", "m"),
        node("Mul", "c m", "g"),
        node("Relu", "g", "y"),
    ]
    return model(nodes, [2, 64, side, side], {"zero": np.zeros(1, "float32"), "w": packed(64, 9 * 64)})


@pytest.mark.parametrize("side", [8, 64])
def test_bytes_of_a_step_as_counted_by_hand(side: int) -> None:
    """Breaks: the roofline puts a kernel at a wrong intensity, above all one that runs block by block."""
    plan = lower(gated_network(side), get_target("x86-64-v4-vpopcntdq"), 2).plan
    floats, words = 2 * 64 * side * side * 4, 2 * 64 * side * side // 8
    constants, means, sums = 64 * 9 * 64 // 8 + 2 * 64 * 4, 2 * 64 * 4, 2 * side * 64 * 4
    expected = {
        "transpose": [floats + floats] * 2,
        "sign_pack": [floats + 4 + words],
        "binary_conv2d": [words + constants + floats],
        "mean": [floats + sums, sums + means],
        "multiply": [floats + means + floats],
    }
    for name, sizes in expected.items():
        assert [step.bytes for step in plan.steps if name in step.kernel] == sizes, name
    assert max(stage.blocks for stage in plan.schedule) == {8: 4, 64: 64}[side]
