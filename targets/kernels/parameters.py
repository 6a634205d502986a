"""The parameters of the kernels of binary convolutions, on processors and on GPUs alike.

In order::

    (X, weights, scale, shift, image_0 …, vector_0 …, [thresholds], [Y], words_0 …, [block])

X: uint32 ``input_shape``; weights: uint32 of the kernel's own shape; scale: float32 ``scale_shape``; shift: float32 (O,).
What an epilogue reads and stores: image_i: float32 (1 or N, rows, columns, operand.channels); vector_i: float32 (O,);
thresholds: float32 (planes, O); Y: float32 ``output_shape``, if floats are stored; words_i: uint32 (1 or N, rows, columns,
O / 32). block, int32, is there with ``block_rows`` (see ``operands.block_origin``).
"""

from __future__ import annotations

from bnn_deploy.targets.kernels.pack_specification import Parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import FLOAT, WORD
from bnn_deploy.targets.kernels.words import WORD_BITS


def convolution_parameters(layer: ConvolutionSpecification, weights_shape: tuple[int, ...]) -> Parameters:
    """All parameters but ``block``."""
    return {"X": (layer.input_shape, WORD), "weights": (weights_shape, WORD), **result_parameters(layer)}


def result_parameters(layer: ConvolutionSpecification) -> Parameters:
    """The parameters after ``weights``: those that dot products meet."""
    return {
        "scale": (layer.scale_shape, FLOAT),
        "shift": ((layer.out_channels,), FLOAT),
        **epilogue_parameters(layer),
    }


def epilogue_parameters(layer: ConvolutionSpecification) -> Parameters:
    """The parameters after ``shift``."""
    epilogue, shape, outputs = layer.epilogue, layer.output_shape, layer.out_channels
    found: Parameters = {
        f"image_{i}": ((*shape[:-1], operand.channels), FLOAT) for i, operand in enumerate(epilogue.images)
    }
    found |= {f"vector_{i}": ((outputs,), FLOAT) for i in range(epilogue.vectors)}
    if epilogue.planes:
        found["thresholds"] = ((epilogue.planes, outputs), FLOAT)
    if epilogue.stores:
        found["Y"] = (shape, FLOAT)
    return found | {f"words_{i}": ((*shape[:-1], outputs // WORD_BITS), WORD) for i in range(epilogue.planes)}
