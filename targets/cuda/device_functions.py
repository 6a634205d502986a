"""What a CUDA kernel may do beyond plain TIR: barriers, copies into shared memory, and functions of a whole warp.

Every function here is one of ``device_functions.cuh``, and once more of ``serial_functions.c``, which is what
``passes.tir.serial_threads`` calls on the CPU. How a kernel must be written so that both are possible:

- ``T.launch_thread`` of ``blockIdx.x``, ``.y``, ``.z`` and of one ``threadIdx.x``, around the whole body; 32 threads are a warp.
- Memory of a block is ``scope="shared"``, of a thread ``scope="local"``; local buffers are one-dimensional, and their indices
  are constants once loops are unrolled, so that they become registers.
- Functions marked "block" and "warp" stand where all threads of a block meet: in no ``if`` and no loop that depends on the
  thread. What a warp function is given are places in local buffers: the same place for all threads.
- A thread may read what another one of its block wrote only after a ``barrier``; of its own warp, too.
"""

from __future__ import annotations

from typing import TypeAlias

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import Index

WARP = 32

# A place in a local buffer: the buffer, and the index of the first element.
Place: TypeAlias = tuple[Buffer, Index]

# Done once for a block: its threads meet.
BLOCK_FUNCTIONS = ("bnn_barrier", "bnn_commit_copies", "bnn_wait_for_copies")
# Done once for each warp; the arguments are places.
WARP_FUNCTIONS = (
    "bnn_mma_xor",
    "bnn_mma_and",
    "bnn_or_across_4",
    "bnn_add_across_4",
    "bnn_add_across_32",
    "bnn_ballot",
)


def barrier() -> None:
    """Block: no thread goes on until all are here and their writes to shared memory can be read."""
    _call("bnn_barrier")


def copy_async(destination: tuple[Buffer, Index], source: tuple[Buffer, Index], words: int, valid: Expr | bool) -> None:
    """Thread: copy ``words`` (1, 2 or 4) 32-bit words from global to shared memory, or fill with zeros if not ``valid``.

    Both addresses are multiples of ``4 * words`` bytes. ``destination`` is one index into a one-dimensional shared buffer,
    ``source`` one into a one-dimensional global one; an invalid one is not read, but must be inside of the buffer. The words
    are there after ``commit_copies``, ``wait_for_copies`` and ``barrier``. SMs before sm_80 copy at once.
    """
    if words not in (1, 2, 4):
        raise ValueError(f"copy_async copies 1, 2 or 4 words, not {words}.")
    flag = T.int32(1) if valid is True else T.Cast("int32", valid)
    _call(f"bnn_copy_async_{words}", _address(destination), _address(source), flag)


def commit_copies() -> None:
    """Block: the copies since the last call form a group."""
    _call("bnn_commit_copies")


def wait_for_copies(pending: int) -> None:
    """Block: wait until at most ``pending`` groups of this thread's copies are still under way; a ``barrier`` must follow."""
    _call("bnn_wait_for_copies", T.int32(pending))


def mma(form: str, accumulator: Place, activations: Place, weights: Place) -> None:
    """Warp: accumulator += popcount(activations op weights) of a tile of 16 rows, 8 columns and 256 bits.

    Args:
        form: "xor" or "and".
        accumulator: 4 x int32 per lane: rows ``lane // 4`` (0, 1) and ``lane // 4 + 8`` (2, 3), columns
            ``2 * (lane % 4)`` (0, 2) and ``2 * (lane % 4) + 1`` (1, 3).
        activations: 4 x uint32 per lane: word ``lane % 4`` of rows ``lane // 4`` (0) and ``lane // 4 + 8`` (1), word
            ``lane % 4 + 4`` of these rows (2, 3).
        weights: 2 x uint32 per lane: words ``lane % 4`` (0) and ``lane % 4 + 4`` (1) of column ``lane // 4``.

    Layout: PTX ISA, "Matrix fragments for mma.m16n8k256" for .b1. As all words of a row count alike, any order of words will do
    that activations and weights share.
    """
    _call(f"bnn_mma_{form}", _address(accumulator), _address(activations), _address(weights))


def or_across_4(place: Place) -> None:
    """Warp: each uint32 becomes the OR over the four lanes that share ``lane // 4``."""
    _call("bnn_or_across_4", _address(place))


def add_across_4(place: Place) -> None:
    """Warp: each int32 becomes the sum over the four lanes that share ``lane // 4``."""
    _call("bnn_add_across_4", _address(place))


def add_across_32(place: Place) -> None:
    """Warp: each int32 becomes the sum over all lanes."""
    _call("bnn_add_across_32", _address(place))


def ballot(result: Place, condition: Place) -> None:
    """Warp: bit ``i`` of ``result`` (uint32) is whether ``condition`` (uint32) of lane ``i`` is not 0."""
    _call("bnn_ballot", _address(result), _address(condition))


def _address(place: tuple[Buffer, Index]) -> Expr:
    buffer, index = place
    return T.address_of(buffer[index])


def _call(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_extern("void", name, *arguments))
