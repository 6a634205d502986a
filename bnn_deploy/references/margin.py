"""How far two correct computations of a real value may lie apart: the rounding margin of every layer.

With all signs forced equal, the network from one binarisation to the next is continuous, and a compiled network differs from
its reference by rounding only: fused multiply-adds, folded constants, another order of summation. How much that is depends on the
layer. Measured with the same bits, as |x - x in float64| / scale (scale: largest |x| or |t| of the layer), largest over
all positions of one image, the worst layer and the median layer:

    model                  onnxruntime          PyTorch             between the two, worst layer
    bcdnet_a               2^-21.3  2^-21.7     2^-21.3             2^-21.7
    reactnet_a             2^-21.3  2^-21.8     2^-21.5             2^-21.7
    reactnet_r18           2^-20.0  2^-21.3     2^-20.5             2^-20.0
    bimlp_s, released      2^-14.4  2^-18.9     2^-13.4             2^-14.3
    bimlp_s, paper         2^-10.9  2^-17.9     2^-10.8             2^-11.3
    bcdnet_b_r18           2^-20.4  2^-20.8     2^-20.7             2^-20.2

One number for all would be 2^-9, which is blind in ReActNet, or 2^-18, which is wrong in BiMLP: its worst layers are those of x
= a cos(b), where an error of b that is small beside a large b is large beside x. So the margin is measured, layer by layer, by
letting every constant and every pixel of the network move by a random amount of up to 2^-22 of itself, which is what the
rounding of each operation is like, and seeing how far x moves with the bits held. In bimlp_s and bimlp_tiny (both variants) and
bcdnet_tiny onnxruntime's error is 0.06 to 1.7 times that distance in every one of 348 layers, though the errors span ten binary
orders. Two computations are each off by their own error, about 2 * 1.7 = 3.4 distances together; ``SAFETY`` is 8. The compiled
arithmetic itself (``ExactNetwork`` with onnxruntime's bits forced, one random image) used 0.11 (bimlp_tiny), 0.13
(bcdnet_tiny), 0.23 (reactnet_r18), 0.33 (bcdnet_a) and 0.49 (bimlp_s) of the margin at its worst real value. No bit differed
outside of the margin: in all 1 bit of bcdnet_a (of 5.1 million) and 5 of bimlp_s (of 15.4 million) did inside. Within it were
at most 6 in 10^5 bits, and in bimlp_s 1 in 135.

What a margin hides is what is as small as rounding. A fault of the compiler (another channel's scale, a dropped bias, a shifted
bit) moves x by a part of the scale itself; a fault that shows at the threshold only is for integers and edges, level 1.
"""

from __future__ import annotations

# The part of itself by which every constant and pixel moves: a few roundings of float32 (2^-24 each).
NOISE = 2.0**-22
SAFETY = 8
# The least margin: x is rounded a few times more after the last constant, each time by 2^-24 of the scale or less.
RELATIVE_MARGIN = 2.0**-21
# The largest margin: where values jump (a rounding that was not recognised as binary) the measured distance says nothing.
LARGEST_MARGIN = 2.0**-5
# Distances from the threshold are kept as far as this, for users who set another margin.
NEAR_MARGINS = 8
LEAST_NEAR = 2.0**-10


def margin_of(moved: float, scale: float) -> float:
    """The relative margin of a layer whose values moved by ``moved`` at most; ``scale`` is its largest magnitude."""
    return min(max(SAFETY * moved / scale if scale else 0.0, RELATIVE_MARGIN), LARGEST_MARGIN)


def near_limit(margin: float) -> float:
    """Up to which part of the scale the distances from the threshold are kept, for a layer of this margin."""
    return max(NEAR_MARGINS * margin, LEAST_NEAR)
