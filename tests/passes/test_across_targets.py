"""Kernels for different processors compute the same bits, for every operator that rounds and for any number of threads."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tvm
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from tvm import relax

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.writing import write_bundle
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import ToolError
from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.passes.relax.decompose_group_norm import decompose_group_norm
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.merge_layers import merge_layers
from bnn_deploy.passes.relax.name_layers import name_layers
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.split_means import split_means
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import get_target, missing_cpu_flags
from tests.passes.contraction import contractible
from tests.passes.execute import run_plan
from tests.passes.networks import build, constant, convolution, geometry, sign
from tests.passes.random_networks import networks

TARGETS = [get_target(name) for name in ("x86-64-v3", "x86-64-v4", "x86-64-v4-vpopcntdq", "arm64")]
RUNNABLE = [target for target in TARGETS if not missing_cpu_flags(target)]
PASSES = (
    *(name_layers, drop_identity, fold_threshold, fold_affine, to_channels_last, decompose_group_norm, split_means),
    *(pack, merge_layers),
)
# Large enough that some kernels are shared out to threads.
SHAPE = (12, 16, 16)
IMAGES = np.random.default_rng(1).standard_normal((4, *SHAPE), dtype=np.float32)


def packed(module: tvm.IRModule) -> tvm.IRModule:
    for transform in PASSES:
        module = transform(module)
    return module


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=networks(deepest=4))
def test_random_networks(case: tuple[tvm.IRModule, np.ndarray]) -> None:
    """Breaks: on some shape or sequence of operators, the width of a processor's vectors decides how often a value rounds."""
    module, x = case
    # Unlike the numbers that the networks are made for, these do round.
    x = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    found = []
    for target in RUNNABLE:
        with tempfile.TemporaryDirectory() as folder:
            found.append(run_plan(lower_packed(packed(module), target), target, x, Path(folder)))
    for target, result in zip(RUNNABLE, found, strict=True):
        assert result.tobytes() == found[0].tobytes(), target.name


def rounding_network(batch: int) -> tvm.IRModule:
    """Every operator that rounds, with numbers that do not fit: dense and depthwise convolutions in channels that fill vectors and
    that do not, a binary layer with what its kernel takes in, pools, means, group norm, and all functions of ``vector_math``."""
    random = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return random.normal(size=shape)

    def body(emit: object, x: relax.Var) -> relax.Expr:
        def affine(value: relax.Expr, channels: int) -> relax.Var:
            scaled = emit(relax.op.multiply(value, emit(relax.op.nn.relu(value))))
            return emit(relax.op.add(scaled, constant(numbers(1, channels, 1, 1))))

        stem = emit(relax.op.nn.conv2d(x, constant(numbers(32, 12, 3, 3)), padding=[1, 1, 1, 1]))
        stem = affine(emit(relax.op.nn.prelu(stem, constant(numbers(32)), axis=1)), 32)
        binary = emit(
            convolution(emit(sign(stem)), 32, geometry(32, (3, 3), (1, 1), (1, 1, 1, 1)), numbers(32), numbers(32))
        )
        joined = emit(relax.op.add(binary, stem))
        joined = emit(
            relax.op.add(emit(relax.op.nn.prelu(joined, constant(numbers(32)), axis=1)), constant(numbers(1, 32, 1, 1)))
        )
        depthwise = emit(
            relax.op.nn.conv2d(joined, constant(numbers(32, 1, 3, 3)), padding=[1, 1, 1, 1], strides=[2, 2], groups=32)
        )
        waves = emit(relax.op.multiply(emit(relax.op.cos(depthwise)), emit(relax.op.sin(joined_pool(emit, joined)))))
        gates = emit(relax.op.multiply(emit(relax.op.sigmoid(waves)), emit(relax.op.tanh(depthwise))))
        odd = emit(relax.op.nn.conv2d(gates, constant(numbers(7, 32, 1, 1))))
        odd = affine(emit(relax.op.nn.avg_pool2d(odd, pool_size=[3, 3], strides=[2, 2], padding=[1, 1, 1, 1])), 7)
        normal = emit(relax.op.nn.group_norm(odd, constant(numbers(7)), constant(numbers(7)), 1, 1, [2, 3]))
        shares = emit(relax.op.nn.softmax(emit(relax.op.exp(normal)), axis=1))
        mean = emit(relax.op.mean(emit(relax.op.add(affine(shares, 7), normal)), axis=[2, 3]))
        scores = emit(relax.op.matmul(mean, constant(numbers(7, 10))))
        return relax.op.add(scores, constant(numbers(10)))

    return build([(batch, *SHAPE)], body)


def joined_pool(emit: object, x: relax.Var) -> relax.Var:
    return emit(relax.op.nn.max_pool2d(x, pool_size=[2, 2], strides=[2, 2]))


def bundled(target: Target, batch: int, folder: Path) -> Bundle:
    """The network above as a bundle, of whose final code nothing is left to contract."""
    lowered = lower_packed(packed(rounding_network(batch)), target)
    paths = []
    for (name, variant), kernels in zip(target.variants, lowered.kernels, strict=True):
        paths.append(folder / f"{name}.o")
        built = tvm.tirx.build(kernels, tvm.target.Target(variant.llvm))
        assert contractible(built.inspect_source("ll")) == []
        built.write_to_file(str(paths[-1]), "o")
    cache = ObjectCache(cache_folder())
    return write_bundle(
        folder / "bundle", plan=lowered.plan, target=target, model_info={}, kernels_objects=paths, cache=cache
    )


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Of a kernel set for AVX2, image by image, on one thread."""
    bundle = bundled(TARGETS[0], 1, tmp_path_factory.mktemp("bundle"))
    result = get_device("local").run(bundle, IMAGES)
    assert np.isfinite(result).all()
    assert len(np.unique(result)) == result.size
    return result


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
def test_rounding_network(target: Target, logits: np.ndarray, tmp_path: Path) -> None:
    """Breaks: a value depends on the processor, on the batch, on the number of threads or on the run."""
    bundle = bundled(target, 2, tmp_path)
    for threads in (1, 3, 1):
        assert get_device("local").run(bundle, IMAGES, threads).tobytes() == logits.tobytes(), threads


def require_qemu() -> None:
    try:
        find_qemu()
    except ToolError as error:
        pytest.skip(str(error))


@pytest.mark.qemu
def test_rounding_network_on_arm(logits: np.ndarray, tmp_path: Path) -> None:
    """Breaks: a value depends on whether an x86-64 or an arm64 processor computes it."""
    require_qemu()
    bundle = bundled(get_target("rpi4"), 2, tmp_path)
    for threads in (1, 3):
        assert get_device("qemu").run(bundle, IMAGES, threads).tobytes() == logits.tobytes(), threads


@pytest.mark.qemu
def test_tiny_model(tiny_bundle: Path, arm_compilation: tuple[Path, Result]) -> None:
    """Breaks: a whole model gives other logits on another processor, in batches of another size, or on more threads."""
    require_qemu()
    here, arm = Bundle.open(tiny_bundle), Bundle.open(arm_compilation[0] / "bundle")
    assert (here.batch, arm.batch) == (2, 3)
    images = np.random.default_rng(0).standard_normal((6, *here.inputs[0].shape[1:]), dtype=np.float32)
    expected = get_device("local").run(here, images)
    assert get_device("local").run(here, images, 3).tobytes() == expected.tobytes()
    for threads in (1, 3):
        assert get_device("qemu").run(arm, images, threads).tobytes() == expected.tobytes(), threads
