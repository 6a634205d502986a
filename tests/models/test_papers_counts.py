"""Operation and parameter counts against the papers' tables."""

from __future__ import annotations

import pytest

from bnn_deploy.models.registry import MODELS, build_model
from tests.models.counting import count_operations

# Exact BOPs, FLOPs, binary and real parameters, then what the papers print of BOPs, FLOPs and OPs (None: not printed).
# BiMLP's paper prints 2.25e9 and 4.32e9 BOPs: with the biases of its float ancestor, which no binary layer has.
TABLE = {
    "reactnet_a": (4816896000, 11862016, 28253184, 1090408, 4.82e9, 0.12e8, 0.87e8),
    "bcdnet_a": (4816896000, 11862016, 43981824, 2164560, 4.82e9, 0.12e8, 0.87e8),
    "bcdnet_b": (4816896000, 13775616, 43981824, 4086432, 4.82e9, 0.14e8, 0.89e8),
    "reactnet_r18": (1676279808, 137793536, 10985472, 718952, None, None, None),
    "bcdnet_a_r18": (1676279808, 137793536, 10985472, 737384, None, None, None),
    "bcdnet_b_r18": (1676279808, 138076160, 10985472, 1022776, None, None, None),
    "bimlp_s": (2241835008, 120885224, 14735616, 1104796, None, 1.21e8, 1.56e8),
    "bimlp_m": (4309377024, 120885224, 28237056, 1449772, None, 1.21e8, 1.88e8),
}


def rounds_to(value: float, printed: float | None) -> bool:
    """Whether value, rounded to the last digit of a figure printed as x.xxe8 or x.xxe9, is that figure."""
    if printed is None:
        return True
    unit = 1e9 if printed >= 1e9 else 1e8
    return round(value / unit, 2) == round(printed / unit, 2)


@pytest.mark.parametrize("name", TABLE)
def test_counts_match_the_papers(name: str) -> None:
    """Fails if a model's structure or the counting convention strayed from the papers."""
    counts = count_operations(build_model(name), (3, 224, 224))
    bops, flops, binary, real, printed_bops, printed_flops, printed_ops = TABLE[name]
    assert (counts.bops, counts.flops, counts.binary_params, counts.real_params) == (bops, flops, binary, real)
    assert rounds_to(counts.bops, printed_bops)
    assert rounds_to(counts.flops, printed_flops)
    assert rounds_to(counts.ops, printed_ops)


@pytest.mark.parametrize("name", MODELS)
def test_variants_count_the_same_and_rows_add_up(name: str) -> None:
    """Fails if a variant changed the operation counts, or a row were missing from the totals."""
    spec = MODELS[name]
    shape = (spec.channels, 32, 32)
    totals = []
    for variant in spec.variants or (None,):
        counts = count_operations(build_model(name, variant=variant), shape)
        assert counts.bops == sum(row.bops for row in counts.layers)
        assert counts.flops == sum(row.flops for row in counts.layers)
        assert counts.binary_params == sum(row.binary_params for row in counts.layers)
        totals.append((counts.bops, counts.flops, counts.binary_params, counts.real_params))
    assert len(set(totals)) == 1


def test_block_of_bcdnets_table_5() -> None:
    """Fails if a 512-channel 3x3 layer at 7x7 were not the operations that BCDNet's Table 5 builds on."""
    counts = count_operations(build_model("reactnet_r18"), (3, 224, 224))
    row = next(row for row in counts.layers if row.name == "layer4.1.binary_conv")
    assert row.bops == 512 * 512 * 9 * 49
    # Table 5: a block is two such layers, plus 4 elementwise operations for each output.
    assert 2 * (row.bops / 64 + 4 * 512 * 49) == pytest.approx(3.813e6, abs=500)
