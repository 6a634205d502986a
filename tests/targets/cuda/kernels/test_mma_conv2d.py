"""Binary layers on b1 tensor cores: bit-exact with their threads as loops, in both orders; layouts; machine code of all tiles."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, architecture
from bnn_deploy.targets.cuda.kernels.mma_conv2d import fits, kernel, tiled_kernel
from bnn_deploy.targets.cuda.kernels.mma_tiling import MULTIPROCESSORS, TERNARY_TILES, TILES, MmaTiling, choose_tiling
from bnn_deploy.targets.cuda.kernels.mma_weights import classes, formula, pack_weights, tile_words
from bnn_deploy.targets.kernels.epilogue import Epilogue, ImageOperand
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from tests.cuda.disassembly import assert_native, kernel_code
from tests.cuda.serial import kernel_case, serial_mismatches
from tests.targets import reference
from tests.targets.cases import LAYERS, SAME, Case, factors, layer

XOR, AND = Gpu(87), Gpu(90)
# XOR without asynchronous copies, too.
GPUS = (XOR, AND, Gpu(75))
# Edges of CPU kernels only: counters, and trees of adders.
OF_PROCESSORS = (
    "byte counters f",
    "byte counters one",
    "chain",
    "longest chain",
    "tree",
    "words on",
    "tiles of 7",
    "one word",
)
FITTING = {
    name: specification
    for name, specification in LAYERS.items()
    if fits(specification, XOR) and not name.startswith(OF_PROCESSORS)
}


def tiling_of(specification: ConvolutionSpecification, gpu: Gpu, number: int) -> MmaTiling:
    """The layer in the tile of that number, whatever would be chosen for it."""
    tiles = TERNARY_TILES if specification.ternary else TILES
    return MmaTiling(specification, gpu, tiles[number % len(tiles)])


def test_edge_bank(tmp_path: Path) -> None:
    """An edge of the image, of a tile, of a word or of a chunk adds to a sum or is missing in it."""
    cases = []
    for number, (name, specification) in enumerate(FITTING.items()):
        tiling = tiling_of(specification, GPUS[number % 2], number)
        cases.append(kernel_case(name, tiled_kernel(tiling), number))
        if number % 4 == 0:
            tiling = tiling_of(replace(specification, ternary=True), GPUS[number // 4 % 3], number // 4)
            cases.append(kernel_case(name + ", ternary", tiled_kernel(tiling), number))
    assert serial_mismatches(cases, tmp_path) == []


def test_all_products_minus_one(tmp_path: Path) -> None:
    """The sign of the dot product is lost, or bits that fill up words and chunks count."""
    layers = [
        layer((1, 3, 3, 45), 10, **SAME),
        layer((2, 1, 1, 700), 40),
        layer((1, 3, 3, 45), 10, ternary=True, **SAME),
    ]
    cases = [
        kernel_case(f"{specification}", tiled_kernel(choose_tiling(specification, gpu)), 0, all_products_minus_one=True)
        for specification, gpu in product(layers, GPUS)
    ]
    assert serial_mismatches(cases, tmp_path) == []


@st.composite
def tilings(draw: st.DrawFn) -> MmaTiling:
    """Small layers of any kernel, stride and pads, in any tile."""
    kernel_shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    pads = tuple(draw(st.integers(0, 3)) if draw(st.booleans()) else 0 for _ in range(4))
    specification = ConvolutionSpecification(
        draw(st.integers(1, 3)),
        draw(st.integers(kernel_shape[0], 7)),
        draw(st.integers(kernel_shape[1], 7)),
        draw(st.sampled_from([1, 31, 32, 33, 64, 96, 128, 160, 256, 300])),
        draw(st.integers(1, 140)),
        kernel_shape,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        pads,
        ternary=draw(st.booleans()),
    )
    return tiling_of(specification, draw(st.sampled_from(GPUS)), draw(st.integers(0, len(TILES) - 1)))


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(tilings(), min_size=4, max_size=4), seed=st.integers(0, 2**32 - 9))
def test_random_layers(tmp_path_factory: pytest.TempPathFactory, drawn: list[MmaTiling], seed: int) -> None:
    """Some combination of sizes, pads and tile reads or stores at a wrong place."""
    cases = [kernel_case(f"{tiling}", tiled_kernel(tiling), seed + i) for i, tiling in enumerate(drawn)]
    assert serial_mismatches(cases, tmp_path_factory.mktemp("layers")) == []


# An image of the outputs and one of 16 channels that is repeated, biases, PReLU: no product right before a sum, which LLVM would
# compute as one fma.
IMAGES = (ImageOperand(96, 0, 96), ImageOperand(40, 8, 16))
STEPS = (("add", 0, 1), ("maximum", 6, 5), ("subtract", 7, 3), ("prelu", 8, 4), ("add", 9, 2))


def epilogue_case(name: str, tiling: MmaTiling, seed: int) -> Case:
    """A call with an epilogue; what it stores before the last output is an input that must become what it is already."""
    random, spec = np.random.default_rng(seed), tiling.specification
    epilogue = spec.epilogue
    signs, packed = reference.random_weights(random, spec)
    values = reference.random_values(random, spec)
    scale, shift = factors(random, (spec.out_channels,)), factors(random, (spec.out_channels,))
    pixels = spec.output_shape[:-1]
    images = [random.standard_normal((*pixels, image.channels)).astype(np.float32) for image in epilogue.images]
    vectors = [factors(random, (spec.out_channels,)) for _ in range(epilogue.vectors)]
    vectors[0][3] = np.nan
    own = np.arange(spec.out_channels)
    read = [image[..., o.first + own % o.width] for o, image in zip(epilogue.images, images, strict=True)]
    numbers = [reference.convolution(values, signs, scale, shift, spec), *read, *vectors]
    for step, left, right in epilogue.steps:
        a, b = np.broadcast_arrays(numbers[left], numbers[right])
        numbers.append(
            {
                "add": a + b,
                "subtract": a - b,
                "prelu": np.where(a > 0, a, a * b),
                "maximum": np.where(a > b, a, b),
            }[step]
        )
    result = numbers[-1].astype(np.float32)
    # Thresholds that some results are equal to.
    bounds = result.reshape(-1, spec.out_channels)[random.integers(0, np.prod(pixels), (epilogue.planes, 1)), own]
    words = [reference.pack_channels(result > b if epilogue.zero == -1 else result >= b) for b in bounds]
    outputs = [result] * epilogue.stores + words
    made = tiled_kernel(tiling)
    inputs = (reference.pack_values(values, spec), made.pack_weights(packed), scale, shift, *images, *vectors)
    inputs += (bounds,) * bool(epilogue.planes) + tuple(outputs[:-1])
    return Case(name, made, tuple(np.ascontiguousarray(array) for array in inputs), outputs[-1])


def test_epilogues(tmp_path: Path) -> None:
    """An operand of another pixel or channel is read, floats or signs land elsewhere, or a NaN or a threshold gets another bit."""
    cases = []
    for number, tile in enumerate(TILES):
        epilogue = Epilogue(IMAGES, 3, STEPS, number % 3 != 1, number % 3, (-1, 1)[number % 2])
        spec = layer((2, 5, 7, 70), 96, ternary=number % 4 == 3, epilogue=epilogue, **SAME)
        cases.append(epilogue_case(tile.name, tiling_of(spec, GPUS[number % 2], number), number))
    # Channels that no vector of four divides.
    operands = (ImageOperand(33, 0, 33), ImageOperand(7, 2, 5))
    odd = layer((1, 3, 3, 64), 33, epilogue=Epilogue(operands, 3, STEPS))
    assert serial_mismatches([*cases, epilogue_case("odd channels", tiling_of(odd, AND, 6), 9)], tmp_path) == []


def test_tiles_of_weights_by_value() -> None:
    """Weights are packed in another order than ``mma_weights`` says: bundles of an older version would compute nonsense."""
    spec = layer((1, 4, 4, 3 * 32), 70, kernel_shape=(3, 2))
    tiling = tiling_of(spec, XOR, 2)
    signs, packed = reference.random_weights(np.random.default_rng(0), spec)
    words = np.zeros((128, 32), np.uint32)
    words[:70, :18] = reference.pack_channels(signs > 0).reshape(70, 18)
    assert (tiling.channel_tiles, tiling.chunks) == (2, 2)
    found = pack_weights(packed, tiling).reshape(2, 2, 2, 2, 2, 32, 4)
    for tile, chunk, group, mma, step, lane, register in np.ndindex(found.shape):
        channel = tile * 64 + group * 32 + lane // 4 * 4 + mma * 2 + register % 2
        word = chunk * 16 + lane % 4 * 4 + step * 2 + register // 2
        assert found[tile, chunk, group, mma, step, lane, register] == words[channel, word]


@pytest.mark.parametrize("gpu", [XOR, AND], ids=lambda gpu: gpu.arch)
def test_bases_by_value(gpu: Gpu) -> None:
    """What is added for a pixel at the border belongs to other taps."""
    spec = layer((1, 5, 2, 40), 6, kernel_shape=(3, 3), strides=(2, 1), pads=(1, 1, 1, 1))
    tiling = MmaTiling(spec, gpu, TILES[-1])
    signs, packed = reference.random_weights(np.random.default_rng(0), spec)
    array = pack_weights(packed, tiling)[tile_words(tiling) :].view(np.int32)
    # Rows 0, 1, 2 begin at -1, 1, 3 of 5; columns 0, 1 at -1, 0 of 2.
    assert classes(spec) == 3 * 2
    bases = array[: 6 * 6].reshape(6, 6)
    row_classes, column_classes = array[6 * 6 :][:3], array[6 * 6 + 3 :]
    for row, column in product(range(3), range(2)):
        inside = [[0 <= 2 * row - 1 + i < 5 and 0 <= column - 1 + j < 2 for j in range(3)] for i in range(3)]
        seen = np.where(np.array(inside)[None, :, :, None], signs, 0)
        outside = np.where(np.array(inside)[None, :, :, None], 0, signs)
        bits = 40 * int(np.sum(inside))
        counted = 2 * (outside > 0).sum((1, 2, 3)) if gpu == XOR else -2 * (seen > 0).sum((1, 2, 3))
        np.testing.assert_array_equal(bases[row_classes[row] + column_classes[column]], bits + counted)


def test_layers_without_borders_have_no_bases() -> None:
    """XOR layers without padded pixels read a table that holds the same number everywhere."""
    assert formula(tiling_of(layer((1, 6, 6, 64), 32, kernel_shape=(3, 3)), XOR, 0)).base == 9 * 64
    assert formula(tiling_of(layer((1, 6, 6, 64), 32, **SAME), XOR, 0)).base is None


@pytest.mark.parametrize("gpu, barriers", [(XOR, 1), (AND, 3)], ids=lambda value: str(value))
def test_barriers(gpu: Gpu, barriers: int) -> None:
    """Copies of other threads are read before all have waited for theirs, or memory is used anew while it is still read: threads
    as loops do not show that, because all of them wait at once there."""
    function = raw_pointers(tiled_kernel(tiling_of(layer((2, 9, 9, 256), 64), gpu, 2)).build(), "kernel").function
    source = cuda_source(device_kernels(function)[0], gpu.sm)
    body = source[source.index('extern "C" __global__') :]
    assert len(re.findall(r"bnn_wait_for_copies\(2\);\s*bnn_barrier\(\);", body)) == 1
    # The AND form: before the memory of tiles is used for counts, and before these are read.
    assert body.count("bnn_barrier();") == barriers
    if gpu == AND:
        assert re.search(r"bnn_add_across_4[^;]*;\s*}\s*bnn_barrier\(\);", body)
        assert re.search(r"bnn_barrier\(\);\s*int quarter", body)


@pytest.mark.parametrize("sm", sorted(MULTIPROCESSORS))
def test_machine_code(sm: int) -> None:
    """A tile is not made of the GPU's own mma, keeps its sums in memory, or loads or stores single words."""
    spec = layer(
        (1, 64, 64, 1024),
        128,
        epilogue=Epilogue((ImageOperand(128, 0, 128),), 1, (("add", 0, 1), ("add", 3, 2)), planes=1),
    )
    place = sorted(MULTIPROCESSORS).index(sm)
    tilings = [MmaTiling(spec, Gpu(sm), tile) for tile in (TILES[0], *TILES[1 + place % 2 :: 2][: 2 + place % 3])]
    ternary = TERNARY_TILES[place % len(TERNARY_TILES)]
    tilings.append(MmaTiling(replace(spec, ternary=True), Gpu(sm), ternary))
    kernels = []
    for number, tiling in enumerate(tilings):
        function = raw_pointers(tiled_kernel(tiling).build(), f"kernel_{number}").function
        kernels += device_kernels(function)[0]
    codes = kernel_code(compile_cuda(cuda_source(kernels, sm), sm).cubin)
    assert len(codes) == len(tilings)
    for code in codes.values():
        assert_native(code, architecture(sm).dot_product)
        assert code.calls == ()
        narrow = {name for name in code.opcodes if name.startswith(("LDL", "STL", "LDG.")) and "128" not in name}
        assert narrow == set(), code.opcodes
        assert any(name.startswith("STG.E.128") for name in code.opcodes), code.opcodes


@pytest.mark.parametrize(
    "spec, gpu, tile",
    [
        (layer((4096, 1, 1, 4096), 4096), AND, "256x128"),
        (layer((1, 7, 7, 1024), 1024), AND, "8x32"),
        (layer((1, 7, 7, 1024), 1024), XOR, "64x64"),
        (layer((1, 1, 1, 1024), 1000), XOR, "8x32"),
        (layer((1, 112, 112, 32), 32, **SAME), XOR, "128x32"),
        (layer((128, 14, 14, 512), 512, ternary=True, **SAME), XOR, "128x64"),
        (layer((128, 56, 56, 128), 128, **SAME), AND, "64x64"),
    ],
)
def test_choice_of_tiles(spec: ConvolutionSpecification, gpu: Gpu, tile: str) -> None:
    """Small layers leave most of a GPU idle, or large ones are cut into tiles that read more than they compute."""
    assert choose_tiling(spec, gpu).tile.name == tile


def test_every_architecture_has_multiprocessors() -> None:
    """A GPU with b1 tensor cores has no tiles: its layers end in a KeyError."""
    assert set(MULTIPROCESSORS) == {row.sm for row in ARCHITECTURES if row.dot_product != "popc"}


def test_what_it_refuses() -> None:
    """A layer that an mma cannot compute is taken, or a tensor whose indices wrap around."""
    spec = layer((1, 4, 4, 64), 64, **SAME)
    assert kernel(spec, XOR) is not None
    for other, gpu in ((spec, Gpu(72)), (replace(spec, group=2), XOR), (replace(spec, tap_scaled=True), XOR)):
        assert kernel(other, gpu) is None
    with pytest.raises(CompileError, match="smaller batch"):
        tiled_kernel(choose_tiling(layer((256, 112, 112, 64), 1024), XOR)).build()
