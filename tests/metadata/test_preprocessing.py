"""How inputs are made of pictures travels with the model, and comes back from files that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata.entries import PREPROCESSING
from bnn_deploy.metadata.preprocessing import (
    Preprocessing,
    digits,
    imagenet,
    preprocessing_of,
    required_preprocessing,
)
from bnn_deploy.models.registry import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_one(name: str) -> None:
    """Breaks if a model's pictures get another size than it takes, or a description does not survive being stored."""
    spec = MODELS[name]
    for size in (spec.input_size, 64):
        preprocessing = spec.preprocessing(size)
        assert preprocessing.shape == (spec.channels, size, size)
        assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_imagenet_as_published() -> None:
    """Breaks if the evaluation of the papers' models is another one than the authors'."""
    assert imagenet(224) == Preprocessing(
        256, "bilinear", (224, 224), "RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


def test_export_and_compile_keep_it(tiny_onnx: Path, tiny_bundle: Path) -> None:
    """Breaks if a bundle on a device no longer says how its inputs are made."""
    metadata = {item.key: item.value for item in onnx.load(tiny_onnx).metadata_props}
    assert preprocessing_of(metadata, "x") == digits(8)
    assert Bundle.open(tiny_bundle).manifest["model"][PREPROCESSING] == metadata[PREPROCESSING]


GOOD = json.loads(imagenet(224).to_json())
BAD = {
    "no object": ("[]", "expected a JSON object"),
    "no JSON": ("{", "Expecting"),
    "deep": ("[" * 4000, "nested too deeply"),
    "long": (" " * 5000, "5000 characters"),
    "version": ({"version": 2}, '"version": 1'),
    "scale": ({"scale": 1}, '"scale": "1/255"'),
    "missing": ({"mean": None}, "mean is no list"),
    "unknown": ({"exec": "x"}, "'exec' is unknown"),
    "huge": ({"resize": 10**9}, "resize is 1000000000"),
    "real": ({"resize": 256.0}, "resize is 256.0"),
    "truth": ({"resize": True}, "resize is True"),
    "zero": ({"crop": [0, 224]}, "crop is 0"),
    "crop": ({"crop": [224, 257]}, "larger than resize"),
    "sides": ({"crop": [224]}, "expected a height and a width"),
    "interpolation": ({"interpolation": ["x"]}, "interpolation is"),
    "channels": ({"channels": {}}, "channels is"),
    "means": ({"mean": [0.5]}, "mean is"),
    "infinite": ({"mean": [0.5, 0.5, float("inf")]}, "mean is"),
    "nan": ({"std": [0.5, 0.5, float("nan")]}, "std is"),
    "no deviation": ({"std": [0.5, 0.5, 0.0]}, "std is"),
    "long number": ({"std": [0.5, 0.5, 10**3000]}, "std is"),
    "words": ({"std": ["a", "b", "c"]}, "std is"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_entry(name: str) -> None:
    """Breaks if metadata of an untrusted file crash, or make anything of impossible sizes."""
    entry, message = BAD[name]
    text = entry if isinstance(entry, str) else json.dumps(GOOD | entry)
    with pytest.raises(ModelFileError, match=message) as caught:
        preprocessing_of({PREPROCESSING: text}, "some.onnx")
    assert str(caught.value).startswith("some.onnx: ") and len(str(caught.value)) < 400


def test_entry_that_is_missing_or_of_other_images() -> None:
    """Breaks if pictures are prepared by guesswork, or for another size than the model's."""
    with pytest.raises(InputError, match=f"add the metadata entry {PREPROCESSING}"):
        required_preprocessing({}, "some.onnx", (3, 224, 224))
    with pytest.raises(InputError, match=r"\(3, 224, 224\), but the model takes \(3, 32, 32\)"):
        required_preprocessing({PREPROCESSING: imagenet(224).to_json()}, "some.onnx", (3, 32, 32))
    with pytest.raises(ModelFileError, match="not a text"):
        preprocessing_of({PREPROCESSING: 7}, "some.onnx")
