"""cuda_source: each launch of a kernel becomes a CUDA function of its own, and is launched by that name."""

from __future__ import annotations

import re

import numpy as np
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from tests.passes.gpu_threads import compiled, kernels_of
from tests.passes.networks import build


def test_launches_of_one_kernel_have_names_of_their_own() -> None:
    """Breaks: the steps of a softmax bear one name, so that one of them runs several times and the others never."""
    module = fuse_float(build([(3, 20)], lambda emit, x: relax.op.nn.softmax(x, axis=-1)))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    launches, source = compiled(function, "softmax")
    names = [launch.symbol for launch in launches]
    assert len(names) > 1 and names == [f"softmax_{number}" for number in range(len(names))]
    assert sorted(set(re.findall(r"\b(softmax\w*)\(", kernels_of(source)))) == names


def test_a_kernel_of_one_launch_keeps_its_name() -> None:
    """Breaks: what is launched is not what the plan calls it."""
    module = fuse_float(build([(3, 20)], lambda emit, x: relax.op.add(x, relax.const(np.float32(1)))))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    assert [launch.symbol for launch in compiled(function, "sum")[0]] == ["sum"]
