"""The authors' state dicts fit as they are: the same names and shapes, listed in authors_names/."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnn_deploy.models.registry import build_model

LISTS = Path(__file__).parent / "authors_names"


def read_names(name: str) -> dict[str, tuple[int, ...]]:
    rows = (line.split() for line in (LISTS / f"{name}.txt").read_text().splitlines())
    return {key: tuple(map(int, shape.split("x"))) if shape != "scalar" else () for key, shape in rows}


@pytest.mark.parametrize("name", ["bcdnet_a", "reactnet_a", "reactnet_r18"])
def test_same_names_and_shapes(name: str) -> None:
    """Fails if a parameter were renamed, so that the authors' weights no longer loaded."""
    found = {key: tuple(tensor.shape) for key, tensor in build_model(name).state_dict().items()}
    assert found == read_names(name)


def test_bimlp_names() -> None:
    """Fails if BiMLP's stem, first block, first downsampling or head lost the names of the released code."""
    found = {
        key: tuple(tensor.shape) for key, tensor in build_model("bimlp_s", variant="released").state_dict().items()
    }
    expected = read_names("bimlp_s")
    assert {key: found.get(key) for key in expected} == expected
    # The list leaves out the parts of the network that repeat these.
    others = [key for key in found if key not in expected]
    assert all(key.startswith("network.") for key in others)
    assert not any(key.startswith(("network.0.0.", "network.1.")) for key in others)
