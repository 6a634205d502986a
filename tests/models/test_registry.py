"""Building models by name, and the errors for what does not exist."""

from __future__ import annotations

import pytest
import torch

from bnn_deploy.errors import InputError
from bnn_deploy.models.registry import MODELS, build_model, input_shape


@pytest.mark.parametrize("name", ["bimlp_tiny", "bcdnet_tiny"])
def test_defaults(name: str) -> None:
    """Fails if a model did not take images of its default shape, or were left in training mode."""
    model = build_model(name)
    assert not model.training
    assert input_shape(name) == MODELS[name].default_shape
    with torch.no_grad():
        assert model(torch.zeros(2, *input_shape(name))).shape == (2, 10)


def test_paper_is_the_default_variant() -> None:
    """Fails if leaving the variant out built the released code."""
    default, paper, released = (build_model("bimlp_tiny", variant=variant) for variant in (None, "paper", "released"))
    assert str(default) == str(paper) != str(released)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bimlp", {}, "choose one of bimlp_s"),
        ("bimlp_s", {"variant": "mine"}, "choose 'paper' or 'released'"),
        ("bcdnet_a", {"variant": "paper"}, "leave the variant out"),
        ("bimlp_tiny", {"num_classes": 0}, "0 classes"),
        ("bimlp_tiny", {"num_classes": 10**9}, "1000000000 classes"),
        ("bimlp_s", {"input_size": 2}, "2x2"),
        ("bimlp_s", {"input_size": -224}, "-224 pixels"),
        ("bimlp_s", {"input_size": 10**6}, "1000000 pixels"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, options: dict, message: str) -> None:
    """Fails if a wrong name, variant, class count or size were accepted, or reported without saying what to do."""
    with pytest.raises(InputError, match=message):
        build_model(name, **options)
