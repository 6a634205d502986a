"""Kernels with inputs and the outputs that they must produce, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import SignPackSpecification, TernaryPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, Specification
from bnn_deploy.targets.table import select_kernel
from tests.targets import reference


@dataclass(frozen=True)
class Case:
    """One kernel call: its arrays but for Y, what must be in Y afterwards, and the block of rows it computes, if any."""

    name: str
    kernel: Kernel
    inputs: tuple[np.ndarray, ...]
    expected: np.ndarray
    block: int | None = None


# Scales and shifts that have broken kernels before: zero, minus zero, negative.
SPECIAL_FACTORS = np.array([0.0, -0.0, -1.0, 1.0, -0.37, 1e-30, 3e7], np.float32)


def make_case(
    name: str, specification: Specification, target: Target, seed: int, all_products_minus_one: bool = False
) -> Case:
    """A call of the kernel selected for ``specification`` on random inputs that include the special values."""
    random = np.random.default_rng(seed)
    kernel = select_kernel(specification, target)
    if isinstance(specification, ConvolutionSpecification):
        inputs, expected = convolution_arrays(specification, kernel, random, all_products_minus_one)
    else:
        inputs, expected = pack_arrays(specification, random)
    return Case(name, kernel, tuple(np.ascontiguousarray(array) for array in inputs), expected)


def block_cases(name: str, specification: ConvolutionSpecification, target: Target, seed: int) -> list[Case]:
    """A call for every block of rows of a layer, all on the same inputs."""
    whole = make_case(name, specification, target, seed)
    shape = specification.output_shape
    blocks = whole.expected.reshape(-1, *shape)
    return [
        replace(whole, name=f"{name}, block {block}", expected=np.ascontiguousarray(expected), block=block)
        for block, expected in enumerate(blocks)
    ]


def factors(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 factors, some of them special."""
    values = random.standard_normal(shape).astype(np.float32)
    return np.where(random.random(shape) < 0.3, random.choice(SPECIAL_FACTORS, shape), values)


def convolution_arrays(
    layer: ConvolutionSpecification, kernel: Kernel, random: np.random.Generator, all_products_minus_one: bool
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(X, weights, scale, shift) and Y of a convolution."""
    signs, packed = reference.random_weights(random, layer)
    values = reference.random_values(random, layer)
    if all_products_minus_one:
        values, signs, packed = np.ones_like(values), np.full_like(signs, -1), np.zeros_like(packed)
    outputs = layer.out_channels
    scale = factors(random, (outputs, layer.taps) if layer.tap_scaled else (outputs,))
    shift = factors(random, (outputs,))
    inputs = (reference.pack_values(values, layer), kernel.pack_weights(packed), kernel.pack_scale(scale), shift)
    return inputs, reference.convolution(values, signs, scale, shift, layer)


def pack_arrays(
    specification: SignPackSpecification | TernaryPackSpecification, random: np.random.Generator
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(X, threshold) or (X,), and the words; half of X lies on a threshold or on the floats beside it."""
    shape = specification.input_shape
    x = random.standard_normal(shape).astype(np.float32)
    if isinstance(specification, TernaryPackSpecification):
        bounds = np.full(shape, 0.5, np.float32) * random.choice(np.array([-1, 1], np.float32), shape)
    else:
        threshold = random.choice(np.array([0.0, -0.0, 1.5, -np.inf, np.inf, np.nan], np.float32), (1, 1, 1, 1))
        threshold = np.where(random.random(specification.threshold_shape) < 0.3, threshold, 0.25).astype(np.float32)
        bounds = np.broadcast_to(threshold, shape)
    beside = np.nextafter(bounds, random.choice(np.array([-np.inf, np.inf], np.float32), shape))
    x = np.choose(random.integers(0, 6, shape), [x, x, bounds, beside, bounds, beside]).astype(np.float32)
    special = np.array([np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45], np.float32)
    x = np.where(random.random(shape) < 0.2, random.choice(special, shape), x)
    if isinstance(specification, TernaryPackSpecification):
        words = np.stack([reference.pack_channels(np.abs(x) > 0.5), reference.pack_channels(x > 0.5)], axis=2)
        return (x,), words
    return (x, threshold), reference.sign_words(x, threshold, specification.zero)


def layer(size: tuple[int, int, int, int], outputs: int, **options: object) -> ConvolutionSpecification:
    """A convolution of an (N, H, W, C) image."""
    return ConvolutionSpecification(*size, outputs, **options)


SAME = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
ROW = {"kernel_shape": (1, 7), "pads": (0, 3, 0, 3)}
COLUMN = {"kernel_shape": (7, 1), "pads": (3, 0, 3, 0)}

# Every edge that a kernel can fall over, by what it is.
LAYERS = {
    "one of everything": layer((1, 1, 1, 1), 1),
    "one channel": layer((2, 5, 4, 1), 3, **SAME),
    "tail bits": layer((1, 4, 4, 45), 16, **SAME),
    "3x3 on one pixel": layer((1, 1, 1, 64), 32, **SAME),
    "3x3 on 2x2": layer((1, 2, 2, 33), 20, **SAME),
    "stride 2": layer((1, 7, 9, 64), 32, strides=(2, 2), **SAME),
    "strides differ": layer((1, 8, 9, 32), 8, strides=(1, 3), **SAME),
    "pads differ": layer((1, 5, 6, 40), 17, kernel_shape=(3, 2), pads=(2, 0, 1, 1)),
    "no pads": layer((1, 6, 7, 64), 16, kernel_shape=(3, 3)),
    "5x5": layer((1, 5, 11, 32), 24, kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
    "pads wider than image": layer((1, 2, 1, 32), 4, kernel_shape=(5, 5), pads=(3, 4, 3, 2)),
    "batch 3": layer((3, 4, 5, 64), 32, **SAME),
    "tiles of 7 and blocks overlap": layer((1, 3, 15, 64), 80, **SAME),
    "1x1": layer((1, 7, 7, 256), 64),
    "1x1 batch 3": layer((3, 9, 9, 96), 40),
    "1x1 long rows": layer((1, 16, 16, 32), 16),
    "1x1 stride 2": layer((1, 6, 6, 64), 32, strides=(2, 2)),
    "linear": layer((5, 1, 1, 200), 10),
    "linear, one row": layer((1, 1, 1, 784), 130),
    "1x1, one column": layer((2, 19, 1, 96), 40),
    "byte counters flushed per chunk": layer((1, 1, 3, 32 * 65), 16),
    "byte counters full": layer((1, 1, 3, 32 * 31), 16),
    "byte counters one word too short": layer((1, 1, 3, 32 * 32), 16),
    "byte counters flushed per tap": layer((1, 3, 3, 32 * 20), 16, **SAME),
    "byte counters flushed per row": layer((1, 4, 3, 32 * 10), 16, **SAME),
    "chain of half vectors": layer((1, 1, 5, 320), 24),
    "longest chain of half vectors": layer((1, 3, 5, 64), 40, **SAME),
    "chains of whole vectors": layer((1, 1, 5, 32 * 31), 17),
    "chains in a loop": layer((1, 2, 5, 224), 24, **SAME),
    "words on the stack": layer((1, 1, 3, 32 * 252), 9),
    "too many words for the stack": layer((1, 1, 3, 32 * 253), 9),
    "one word, one vector of outputs": layer((1, 2, 5, 32), 16),
    "tree in a loop, every level waits": layer((1, 2, 5, 32 * 31), 48),
    "tree in a loop, nothing waits": layer((1, 3, 5, 32 * 24), 33),
    "tree, pairs across taps": layer((2, 4, 5, 96), 70, **SAME),
    "two groups": layer((1, 5, 5, 64), 32, group=2, **SAME),
    "three groups, odd outputs": layer((1, 5, 5, 96), 21, group=3, **SAME),
    "windows of 3": layer((1, 4, 5, 36), 24, group=12, **SAME),
    "windows of 12": layer((1, 4, 5, 72), 12, group=6, **SAME),
    "windows of 48": layer((1, 4, 5, 144), 15, group=3, **SAME),
    "windows of 1, two outputs": layer((1, 4, 5, 40), 80, group=40, **SAME),
    "depthwise": layer((2, 4, 5, 45), 45, group=45, **SAME),
    "depthwise row": layer((1, 3, 14, 96), 96, group=96, **ROW),
    "depthwise column": layer((1, 14, 3, 40), 40, group=40, **COLUMN),
    "depthwise pairs": layer((1, 5, 9, 136), 68, group=68, **ROW),
    "depthwise pairs, column": layer((1, 9, 3, 128), 64, group=64, **COLUMN),
    "depthwise of 4": layer((1, 3, 4, 72), 18, group=18, **SAME),
    "depthwise of 16": layer((1, 3, 4, 80), 5, group=5, **SAME),
    "depthwise, many taps": layer((1, 17, 17, 34), 17, group=17, kernel_shape=(17, 16), pads=(8, 8, 8, 8)),
    "depthwise stride 2": layer((1, 7, 8, 64), 64, group=64, strides=(2, 2), **SAME),
}

PACKS = {
    "sign": SignPackSpecification(1, 3, 4, 64),
    "sign, threshold per channel": SignPackSpecification(2, 3, 1, 96, (1, 1, 1, 96)),
    "sign, threshold per image": SignPackSpecification(3, 1, 2, 40, (3, 1, 1, 1)),
    "sign, threshold per image and channel": SignPackSpecification(2, 2, 2, 130, (2, 1, 1, 130)),
    "sign, zero is +1": SignPackSpecification(2, 2, 2, 130, (2, 1, 1, 130), zero=1),
    "sign, one channel": SignPackSpecification(1, 5, 5, 1, zero=1),
    "sign, 31 channels": SignPackSpecification(1, 2, 5, 31, (1, 1, 1, 31)),
    "sign, zero is 0": SignPackSpecification(2, 2, 3, 130, (2, 1, 1, 130), zero=0),
    "sign, zero is 0, one threshold": SignPackSpecification(1, 3, 4, 64, zero=0),
    "sign, zero is 0, one channel": SignPackSpecification(2, 3, 4, 1, zero=0),
    "ternary": TernaryPackSpecification(1, 3, 4, 64),
    "ternary, tail": TernaryPackSpecification(2, 3, 4, 39),
    "ternary, one channel": TernaryPackSpecification(2, 3, 4, 1),
}


# Layers cut into blocks of rows, each with the name of what is special about it.
BLOCKS = {
    "1x1, batch 2": layer((2, 6, 5, 96), 40, block_rows=2),
    "1x1, one row": layer((1, 4, 7, 320), 24, block_rows=1),
    "1x1, whole image": layer((2, 3, 7, 64), 16, block_rows=3),
    "1x1, stride 2": layer((2, 7, 6, 64), 32, strides=(2, 2), block_rows=2),
    "3x3, batch 2": layer((2, 6, 5, 64), 32, block_rows=3, **SAME),
    "3x3, one row": layer((2, 5, 6, 96), 17, block_rows=1, **SAME),
    "3x3, stride 2": layer((2, 8, 9, 40), 24, strides=(2, 2), block_rows=2, **SAME),
    "pads differ": layer((2, 5, 6, 40), 17, kernel_shape=(3, 2), pads=(2, 0, 1, 1), block_rows=2),
    "three groups": layer((2, 4, 5, 96), 24, group=3, block_rows=2, **SAME),
    "windows of 12": layer((2, 4, 5, 72), 12, group=6, block_rows=1, **SAME),
    "depthwise row": layer((2, 4, 14, 96), 96, group=96, block_rows=2, **ROW),
    "depthwise column": layer((2, 14, 3, 40), 40, group=40, block_rows=7, **COLUMN),
    "depthwise pairs, column": layer((2, 6, 3, 128), 64, group=64, block_rows=1, **COLUMN),
    "depthwise, stride 2": layer((2, 7, 8, 64), 64, group=64, strides=(2, 2), block_rows=2, **SAME),
}


VARIANTS = (
    (", ternary", {"ternary": True}),
    (", tap scaled", {"tap_scaled": True}),
    (", ternary, tap scaled", {"ternary": True, "tap_scaled": True}),
)


def edge_bank(first_variant: int = 0) -> dict[str, Specification]:
    """Every edge as a plain binary layer and in one of the variants, which take turns from ``first_variant`` on."""
    bank: dict[str, Specification] = dict(PACKS)
    for index, (name, plain) in enumerate(LAYERS.items()):
        suffix, options = VARIANTS[(index + first_variant) % len(VARIANTS)]
        bank[name] = plain
        bank[name + suffix] = replace(plain, **options)
    return bank


def block_bank(first_variant: int = 0) -> dict[str, ConvolutionSpecification]:
    """Layers cut into blocks of rows, as plain binary layers and in one of the variants each."""
    bank = {}
    for index, (name, plain) in enumerate(BLOCKS.items()):
        suffix, options = VARIANTS[(index + first_variant) % len(VARIANTS)]
        bank[name] = plain
        bank[name + suffix] = replace(plain, **options)
    return bank
