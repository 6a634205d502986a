"""The __popc kernels: bit for bit on the CPU with threads as loops, the layout of their weights, their tiles and machine code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.kernels.popcount_conv2d import kernel
from bnn_deploy.targets.cuda.kernels.popcount_tiling import PopcountTiling
from bnn_deploy.targets.cuda.kernels.popcount_weights import WeightLayout, pack_weights
from bnn_deploy.targets.kernels.epilogue import Epilogue, ImageOperand
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from tests.cuda.disassembly import KernelCode, assert_native, kernel_code
from tests.cuda.serial import kernel_case, serial_mismatches, serial_programs
from tests.targets import reference
from tests.targets.cases import COLUMN, LAYERS, ROW, SAME, Case, edge_bank, layer
from tests.targets.kernels.test_kernels import convolutions
from tests.targets.program import UNTOUCHED

NANO = Gpu(53)
BATCHES = {
    "7 pixels of a lane": layer((1, 7, 7, 128), 1024, **SAME),
    "8 pixels of a lane, 19 chunks": layer((1, 8, 16, 96), 256, kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
    "chunks that are filled in turns": layer((3, 5, 7, 2048), 33),
    "ternary chunks": layer((1, 7, 7, 256), 96, ternary=True, **SAME),
    "groups of a warp": layer((1, 6, 6, 192), 96, group=3, **SAME),
    "groups that begin inside of words": layer((2, 5, 5, 120), 80, group=2, **SAME),
}


def check(shapes: dict[str, ConvolutionSpecification], seed: int, folder: Path) -> None:
    """Every second layer has all products -1, which fills all counters."""
    cases = [
        kernel_case(name, kernel(shape, NANO), number, all_products_minus_one=number % 2 == 1)
        for number, (name, shape) in enumerate(shapes.items(), seed)
    ]
    assert serial_mismatches(cases, folder) == []


@pytest.mark.parametrize("variant", range(3))
def test_edge_bank(variant: int, tmp_path: Path) -> None:
    """Breaks: wrong bits, writes outside of the output, or a missing barrier, in a known hard case."""
    shapes = edge_bank(variant).items()
    bank = {name: shape for name, shape in shapes if isinstance(shape, ConvolutionSpecification)}
    if variant == 0:
        check(bank | BATCHES, variant, tmp_path)
    else:
        # Plain layers once, and a scale per tap, of which one kernel computes all, in one round.
        check({name: shape for name, shape in bank.items() if name not in LAYERS and not shape.tap_scaled}, 1, tmp_path)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=st.lists(convolutions(), min_size=8, max_size=8, unique=True), seed=st.integers(0, 2**16))
def test_shapes(shapes: list[ConvolutionSpecification], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks: a convolution of some shape has wrong integers, or is rounded otherwise than by one fused multiply-add."""
    check({str(shape): shape for shape in shapes}, seed, tmp_path_factory.mktemp("shapes"))


EPILOGUES = {
    "shortcut": Epilogue((ImageOperand(64, 0, 64),), 1, (("add", 0, 1), ("prelu", 3, 2))),
    "signs only": Epilogue((), 2, (("multiply", 0, 1), ("subtract", 3, 2)), stores=False, planes=1),
    "floats and signs": Epilogue(
        (ImageOperand(64, 0, 64), ImageOperand(48, 16, 32)),
        1,
        (("maximum", 0, 1), ("minimum", 4, 2), ("add", 5, 3)),
        planes=2,
        zero=1,
    ),
    "signs of sums": Epilogue((), 0, (), stores=False, planes=3),
}


def epilogue_result(
    program: Epilogue, sums: np.ndarray, images: list[np.ndarray], vectors: list[np.ndarray]
) -> np.ndarray:
    """What a program makes of sums, step by step in float32."""
    outputs = np.arange(sums.shape[-1])
    seen = [image[..., o.first + outputs % o.width] for image, o in zip(images, program.images, strict=True)]
    values = [sums, *seen, *vectors]
    for name, left, right in program.steps:
        a, b = np.broadcast_arrays(values[left], values[right])
        values.append(np.where(a > 0, a, a * b) if name == "prelu" else getattr(np, name)(a, b))
    return values[-1] if program.steps else sums


def check_epilogue(name: str, size: tuple[int, int, int, int], ternary: bool, folder: Path) -> None:
    """All that a layer of that size (N, H, W, C) with 64 outputs and an epilogue stores, bit for bit, and nothing else."""
    program, random = EPILOGUES[name], np.random.default_rng(len(name))
    shape = layer(size, 64, ternary=ternary, epilogue=program, **SAME)
    made = kernel(shape, NANO)
    signs, packed = reference.random_weights(random, shape)
    values = reference.random_values(random, shape)

    def halves(*sizes: int) -> np.ndarray:
        # Exact in float32, so that it is the same whether LLVM makes one fma of a product and a sum or not.
        return (random.integers(-4, 5, sizes) / 2).astype(np.float32)

    scale, shift, vectors = halves(64), halves(64), [halves(64) for _ in range(program.vectors)]
    images = [halves(*size[:3], operand.channels) for operand in program.images]
    sums = reference.convolution(values, signs, scale, shift, shape)
    result = epilogue_result(program, sums, images, vectors)
    # Thresholds that some results are equal to, and one that is no number.
    thresholds = result[0, 1, 2] + random.integers(0, 2, (program.planes, 64)).astype(np.float32)
    thresholds[:, 5] = np.nan
    expected = [result] if program.stores else []
    expected += [reference.sign_words(result, bound, program.zero) for bound in thresholds]
    inputs = (reference.pack_values(values, shape), made.pack_weights(packed), scale, shift, *images, *vectors)
    inputs += (thresholds,) if program.planes else ()
    inputs += tuple(np.full(array.nbytes, UNTOUCHED, np.uint8) for array in expected[:-1])
    call = Case(name, made, tuple(np.ascontiguousarray(array) for array in inputs), expected[-1])
    for _, compiled in serial_programs([call], folder):
        memory = compiled.run()
        wanted = compiled.before.copy()
        for offset, array in zip(compiled.offsets[0][-len(expected) :], expected, strict=True):
            place = slice(offset, offset + array.nbytes)
            np.testing.assert_array_equal(memory[place].view(np.uint32).reshape(array.shape), array.view(np.uint32))
            wanted[place] = memory[place]
        np.testing.assert_array_equal(memory, wanted, "written outside of the outputs")


@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(name: str, ternary: bool, tmp_path: Path) -> None:
    """Breaks: a step or operand of an epilogue is another one's, a sign is in another bit, or an output is not stored."""
    # 50 pixels, one of a lane: the last block has fewer than the others.
    check_epilogue(name, (2, 5, 5, 40), ternary, tmp_path)


def test_epilogue_of_lanes_with_many_pixels(tmp_path: Path) -> None:
    """Breaks: of the pixels of one lane, a word of signs or an image is another one's, or one beyond the last is stored."""
    size = (2, 15, 18, 40)
    tiling = PopcountTiling(layer(size, 64, **SAME))
    assert (tiling.pixels, tiling.output_pixels % tiling.pixels) == (8, 4)
    check_epilogue("floats and signs", size, False, tmp_path)


def test_who_takes_an_epilogue() -> None:
    """Breaks: fuse_epilogue gives a program to a kernel without one, or signs to one whose last word is not whole."""
    for shape, takes, packs in (
        (layer((1, 4, 4, 40), 64, **SAME), True, True),
        (layer((1, 4, 4, 40), 48, ternary=True), True, False),
        (layer((1, 4, 4, 64), 64, group=2), False, False),
        (layer((1, 4, 4, 64), 64, tap_scaled=True), False, False),
    ):
        made = kernel(shape, NANO)
        assert (made.takes_epilogue, made.packs_signs) == (takes, packs)


def test_weights_by_value() -> None:
    """Breaks: bundles made with one layout are read with another."""
    random = np.random.default_rng(0)
    shape = layer((1, 4, 4, 40), 33, **SAME)
    layout = WeightLayout(PopcountTiling(shape))
    signs, packed = reference.random_weights(random, shape)
    found = pack_weights(packed, layout)
    assert found.shape == (layout.size,) and (layout.steps, layout.outputs) == (5, 64)
    words = reference.pack_channels(signs.reshape(33, 9, 40) > 0).reshape(33, 18)
    for output, word in ((0, 0), (0, 17), (31, 5), (32, 6)):
        place = ((output // 32 * 5 + word // 4) * 32 + output % 32) * 4 + word % 4
        assert found[place] == words[output, word]
    # Lanes without a channel, and the step after the last.
    assert not found[(64 * 5) * 4 : layout.rows_start].any()
    rows, columns = found[layout.rows_start :][:4], found[layout.columns_start :][:4]
    assert rows.tolist() == [0, 3, 3, 6] and columns.tolist() == [0, 1, 1, 2]
    bases = found[layout.bases_start :].view(np.int32).reshape(9, 64)
    assert (bases[4, :33] == 360).all()
    assert (bases[0, :33] == 360 + signs[:, 0].sum((1, 2)) + signs[:, 1:, 0].sum((1, 2))).all()


def test_tiles() -> None:
    """Breaks: small images leave most of a GPU idle, 7x7 images do not fit, or shared memory is too small."""
    assert PopcountTiling(layer((1, 7, 7, 1024), 1024)).pixels == 7
    assert PopcountTiling(layer((1, 1, 1, 1024), 1000)).block_pixels == 1
    for size, channels in ((112, 32), (56, 128), (28, 256), (14, 512), (7, 1024)):
        for batch in (1, 128):
            for ternary in (False, True):
                tiling = PopcountTiling(layer((batch, size, size, channels), channels, ternary=ternary, **SAME))
                warps = tiling.pixel_blocks * tiling.group_blocks * tiling.warps
                assert warps >= 128 and tiling.block_pixels <= 32 and tiling.chunk % 4 == 0 and tiling.row % 8 == 4
                assert tiling.pixel_blocks * tiling.block_pixels < 1.15 * tiling.output_pixels
                assert tiling.chunks * tiling.chunk < tiling.words + 4
                assert 4 * tiling.planes * tiling.block_pixels * tiling.row <= 12 * 1024


@pytest.mark.parametrize(
    ("group_channels", "group", "words"),
    [(128, 1, 4), (64, 1, 2), (96, 1, 1), (60, 1, 2), (128, 2, 4), (64, 3, 2), (60, 2, 1), (33, 2, 1), (99, 2, 1)],
)
def test_words_copied_at_once(group_channels: int, group: int, words: int) -> None:
    """Breaks: a group that begins inside of a word is copied as if its words were those of X, or whole words one by one."""
    shape = layer((1, 5, 5, group_channels * group), 32 * group, group=group, **SAME)
    assert PopcountTiling(shape).copied == words


@pytest.mark.parametrize("group", [1, 64])
def test_too_large(group: int) -> None:
    """Breaks: indices of a huge batch overflow instead of a sentence."""
    with pytest.raises(CompileError, match="compile for a smaller batch"):
        kernel(layer((2**14, 64, 64, 64), 64, group=group), NANO).build()


MACHINE_CODE = {
    "3x3": layer((1, 14, 14, 256), 256, **SAME),
    "3x3 of one word": layer((1, 28, 28, 32), 64, strides=(2, 2), **SAME),
    "1x1 with an epilogue": layer((1, 32, 32, 512), 64, epilogue=EPILOGUES["floats and signs"]),
    "ternary": layer((1, 14, 14, 128), 128, ternary=True, **SAME),
    "depthwise row": layer((1, 14, 14, 64), 64, group=64, **ROW),
    "depthwise column, scaled taps": layer((1, 14, 14, 128), 64, group=64, ternary=True, tap_scaled=True, **COLUMN),
}


def machine_code(shape: ConvolutionSpecification, sm: int) -> KernelCode:
    raw = raw_pointers(kernel(shape, Gpu(sm)).build().with_attr("bnn.kernel", "layer"), "bnn_kernel_layer").function
    code = compile_cuda(cuda_source(device_kernels(raw)[0], sm), sm)
    assert ".local" not in code.ptx
    (found,) = kernel_code(code.cubin).values()
    return found


@pytest.mark.parametrize("sm", [53, 62, 72, 87])
def test_machine_code(sm: int) -> None:
    """Breaks: NVRTC refuses a kernel, calls a function, or keeps in memory what should be in registers."""
    # The old encoding is read for POPC and calls only.
    for name, shape in MACHINE_CODE.items():
        code = machine_code(shape, sm)
        assert_native(code, "popc")
        assert not code.calls, name
        assert not any(opcode.startswith(("LDL", "STL")) for opcode in code.opcodes), name


@pytest.mark.parametrize("sm", [72, 87])
def test_instructions_of_a_step(sm: int) -> None:
    """Breaks: words are read one by one, or more than 3 LOP3 and 1 POPC count two words."""
    shape = layer((1, 32, 32, 1024), 256)
    pixels = PopcountTiling(shape).pixels
    opcodes = machine_code(shape, sm).opcodes
    # Two pairs for each pixel in a step, and each pixel's last word.
    assert opcodes["POPC"] == 3 * pixels
    assert opcodes["LOP3.LUT"] <= 6 * pixels + 12
    wide = {
        kind: sum(n for name, n in opcodes.items() if name.startswith(kind) and ".128" in name)
        for kind in ("LDG", "LDS", "STS")
    }
    # Weights before and in the loop, and activations.
    assert wide["LDG"] >= 3 and wide["LDS"] >= pixels and wide["STS"] >= 1


def test_kernels_do_not_depend_on_the_architecture() -> None:
    """Breaks if what is tested on one GPU without tensor cores, or compiled for the zoo there, is not what others get."""
    for name in ("stride 2", "three groups, odd outputs", "depthwise row", "linear"):
        first, second = (kernel(LAYERS[name], Gpu(sm)) for sm in (53, 72))
        assert first.name == second.name
        tvm.ir.assert_structural_equal(first.build(), second.build())
