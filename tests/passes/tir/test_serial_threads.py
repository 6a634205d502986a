"""Threads as loops: the same results as on a GPU, and mistakes that a GPU forgives now and then are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.targets.cuda import device_functions
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.vector import finished, let, loop, primitive_function, when
from tests.cuda.serial import serial_mismatches
from tests.targets.cases import Case

THREADS = 64
BLOCKS = 3


def run(function: PrimFunc, inputs: list[np.ndarray], expected: np.ndarray, folder: Path) -> list[str]:
    """What differs from ``expected`` in ascending and in descending order of threads."""
    kernel = Kernel("toy", "pack", None, lambda: function)  # type: ignore[arg-type]
    return serial_mismatches([Case("toy", kernel, tuple(inputs), expected)], folder)


def reversal(with_barrier: bool) -> PrimFunc:
    """Every block turns its 64 words around, by way of shared memory."""
    shape = (BLOCKS, THREADS)
    with primitive_function(x=(shape, "uint32"), y=(shape, "uint32")) as (builder, (x, y)):  # noqa: SIM117
        with T.launch_thread("blockIdx.x", BLOCKS) as block, T.launch_thread("threadIdx.x", THREADS) as thread:
            shared = T.alloc_buffer((THREADS,), "uint32", scope="shared")
            own = let("own", x[block, thread] + T.uint32(1))
            T.buffer_store(shared, own, [thread])
            if with_barrier:
                device_functions.barrier()
            # ``own`` is needed on both sides of the barrier: a register.
            T.buffer_store(y, shared[THREADS - 1 - thread] * T.uint32(1000) + own, [block, thread])
    return finished(builder)


def test_barriers_and_registers(tmp_path: Path) -> None:
    """Breaks if a thread goes on before all have arrived, or loses its registers on the way."""
    x = np.arange(BLOCKS * THREADS, dtype=np.uint32).reshape(BLOCKS, THREADS)
    assert run(reversal(True), [x], (x[:, ::-1] + 1) * 1000 + x + 1, tmp_path) == []


def test_a_missing_barrier_is_seen(tmp_path: Path) -> None:
    """Breaks if kernels that race pass the tests: half of the words are read before they are written, in either order."""
    x = np.arange(BLOCKS * THREADS, dtype=np.uint32).reshape(BLOCKS, THREADS)
    found = run(reversal(False), [x], ((x[:, ::-1] + 1) * 1000 + x + 1).astype(np.uint32), tmp_path)
    assert [line.split(":")[0] for line in found] == [f"threads in {o} order" for o in ("ascending", "descending")]


@pytest.mark.parametrize("waits", [True, False])
def test_copies_arrive_when_waited_for(waits: bool, tmp_path: Path) -> None:
    """Breaks if a kernel may read what it copies before it waited, or if what is not valid is not zero."""
    shape = (THREADS, 4)
    with primitive_function(x=(shape, "uint32"), y=(shape, "uint32")) as (builder, (x, y)):  # noqa: SIM117
        with T.launch_thread("blockIdx.x", 1), T.launch_thread("threadIdx.x", THREADS) as thread:
            shared = T.alloc_buffer((THREADS * 4,), "uint32", scope="shared")
            flat = T.decl_buffer((THREADS * 4,), "uint32", data=x.data)
            device_functions.copy_async((shared, thread * 4), (flat, thread * 4), 4, thread % 3 != 0)
            device_functions.commit_copies()
            device_functions.wait_for_copies(0 if waits else 1)
            device_functions.barrier()
            with loop("i", 4) as i:
                T.buffer_store(y, shared[(THREADS - 1 - thread) * 4 + i], [thread, i])
    values = np.random.default_rng(0).integers(1, 2**32, shape, np.uint32)
    expected = np.where(np.arange(THREADS)[:, None] % 3 != 0, values, 0)[::-1].astype(np.uint32)
    found = run(finished(builder), [values], np.ascontiguousarray(expected), tmp_path)
    assert bool(found) != waits


@pytest.mark.parametrize("form", ["xor", "and"])
def test_mma_fragments(form: str, tmp_path: Path) -> None:
    """Breaks if the CPU's tensor core does not have the layout of the PTX ISA (figures of mma.m16n8k256 with .b1)."""
    parameters = {"a": ((16, 8), "uint32"), "b": ((8, 8), "uint32"), "y": ((16, 8), "uint32")}
    with primitive_function(**parameters) as (builder, (a, b, y)):  # noqa: SIM117
        with T.launch_thread("blockIdx.x", 1), T.launch_thread("threadIdx.x", 32) as lane:
            left = T.alloc_buffer((4,), "uint32", scope="local")
            right = T.alloc_buffer((2,), "uint32", scope="local")
            sums = T.alloc_buffer((4,), "int32", scope="local")
            group, member = lane // 4, lane % 4
            # a0: (row = groupID, k < 128), a1: (groupID + 8, k < 128), a2: (groupID, k >= 128), a3: (groupID + 8, k >= 128);
            # 32 bits each from column threadID_in_group * 32 on.
            for index, (row, word) in enumerate(
                [(group, member), (group + 8, member), (group, member + 4), (group + 8, member + 4)]
            ):
                T.buffer_store(left, a[row, word], [index])
            for index, word in enumerate([member, member + 4]):
                T.buffer_store(right, b[group, word], [index])
            with loop("i", 4) as i:
                T.buffer_store(sums, T.int32(5), [i])
            device_functions.mma(form, (sums, 0), (left, 0), (right, 0))
            # c0, c1: row groupID, columns threadID_in_group * 2 and + 1; c2, c3: row groupID + 8.
            for index in range(4):
                store = T.Cast("uint32", sums[index])
                T.buffer_store(y, store, [group + index // 2 * 8, member * 2 + index % 2])
    random = np.random.default_rng(1)
    left, right = (random.integers(0, 2**32, (rows, 8), np.uint32) for rows in (16, 8))
    combine = np.bitwise_xor if form == "xor" else np.bitwise_and
    bits = np.bitwise_count(combine(left[:, None, :], right[None, :, :])).sum(axis=2, dtype=np.uint32)
    assert run(finished(builder), [left, right], bits + np.uint32(5), tmp_path) == []


def test_functions_of_a_warp(tmp_path: Path) -> None:
    """Breaks if a function of a warp mixes lanes of other warps or quads in."""
    with primitive_function(x=((THREADS,), "uint32"), y=((4, THREADS), "uint32")) as (builder, (x, y)):  # noqa: SIM117
        with T.launch_thread("blockIdx.x", 1), T.launch_thread("threadIdx.x", THREADS) as thread:
            words = T.alloc_buffer((3,), "uint32", scope="local")
            numbers = T.alloc_buffer((2,), "int32", scope="local")
            T.buffer_store(words, x[thread], [0])
            T.buffer_store(words, T.Cast("uint32", x[thread] % T.uint32(3) == T.uint32(0)), [1])
            with loop("i", 2) as i:
                T.buffer_store(numbers, T.Cast("int32", x[thread] % T.uint32(1000)), [i])
            device_functions.or_across_4((words, 0))
            device_functions.ballot((words, 2), (words, 1))
            device_functions.add_across_4((numbers, 0))
            device_functions.add_across_32((numbers, 1))
            for row, value in enumerate([words[0], words[2], numbers[0], numbers[1]]):
                T.buffer_store(y, T.Cast("uint32", value), [row, thread])
    x = np.random.default_rng(2).integers(0, 2**32, THREADS, np.uint32)
    quads, warps = x.reshape(-1, 4), x.reshape(-1, 32)
    ballots = ((warps % 3 == 0).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1)
    expected = [
        np.repeat(np.bitwise_or.reduce(quads, axis=1), 4),
        np.repeat(ballots, 32),
        np.repeat((quads % 1000).sum(axis=1), 4),
        np.repeat((warps % 1000).sum(axis=1), 32),
    ]
    assert run(finished(builder), [x], np.stack(expected).astype(np.uint32), tmp_path) == []


def test_threads_that_cannot_meet() -> None:
    """Breaks if a barrier that only some threads reach, which hangs a GPU, is turned into loops that work."""
    with primitive_function(y=((THREADS,), "uint32")) as (builder, (y,)):  # noqa: SIM117
        with T.launch_thread("blockIdx.x", 1), T.launch_thread("threadIdx.x", THREADS) as thread:
            with when(thread < 10):
                device_functions.barrier()
            T.buffer_store(y, T.uint32(1), [thread])
    with pytest.raises(ValueError, match="not the same for all"):
        serial_threads(finished(builder))
