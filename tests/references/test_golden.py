"""Golden files: what is recorded comes back, the same bytes each time, and no damaged file is believed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import InputError
from bnn_deploy.references.golden import Golden
from bnn_deploy.references.golden_recording import record_golden
from bnn_deploy.references.layer_values import LayerValues
from bnn_deploy.references.stored_arrays import StoredArrays, write_arrays
from tests.conftest import Invoke
from tests.references.graphs import FEATURES, images, layers_of, two_signs

COUNT = 5


def pictures() -> np.ndarray:
    """Of which one is nearly all on the threshold, and one just beside it."""
    made = images(COUNT)
    made[1:3] = 0
    made[2, 0] = 2.0**-14
    return made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its golden file, of labelled images with values on and near thresholds."""
    folder = tmp_path_factory.mktemp("golden")
    np.savez(folder / "data.npz", x=pictures(), y=np.arange(COUNT) % 3)
    model = two_signs(folder / "m.onnx")
    record_golden(model, folder / "g.npz", data=folder / "data.npz")
    return model, folder / "g.npz"


def check_equal(found: LayerValues, expected: LayerValues) -> None:
    assert list(found.signs) == list(expected.signs) and found.notes == expected.notes
    np.testing.assert_array_equal(found.logits, expected.logits)
    for tensor, sign in expected.signs.items():
        for field in dataclasses.fields(sign):
            one, other = getattr(found.signs[tensor], field.name), getattr(sign, field.name)
            if isinstance(other, np.ndarray):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype and one.shape == other.shape
            else:
                assert one == other, field.name


def test_round_trip(recorded: tuple[Path, Path]) -> None:
    """Breaks if a golden file gives other values than the reference gave, or loses images, labels or the model's name."""
    model, path = recorded
    golden, layers = Golden.open(path), layers_of(model)
    np.testing.assert_array_equal(golden.images, pictures())
    assert golden.labels is not None and golden.labels.tolist() == [0, 1, 2, 0, 1]
    assert (golden.header.onnx_file, golden.header.reference, golden.input_shape) == (
        "m.onnx",
        "onnxruntime",
        (FEATURES,),
    )
    expected = layers.capture(golden.images)
    # The case is one: there are values on the threshold, stored as bits, and near it.
    signs = expected.signs.values()
    on = [int((sign.near_distance == 0).sum()) for sign in signs]
    assert max(on) > FEATURES * COUNT // 64 and any(sign.near_distance.any() for sign in signs)
    check_equal(golden.capture(golden.images), expected)
    assert golden.values.float_margins == expected.float_margins
    np.testing.assert_array_equal(golden.run(golden.images[::-1]), expected.logits[::-1])


def test_some_of_the_images(recorded: tuple[Path, Path]) -> None:
    """Breaks if the values of some images, in another order or repeated to fill a batch, are those of others."""
    golden = Golden.open(recorded[1])
    numbers = [3, 0, 0, 4]
    values = golden.capture(golden.images[numbers])
    for tensor, sign in golden.values.signs.items():
        found = values.signs[tensor]
        np.testing.assert_array_equal(found.values, sign.values[numbers])
        np.testing.assert_array_equal(found.histograms, sign.histograms[numbers])
        distance = np.full(sign.values.size, np.inf, np.float32)
        distance[sign.near_index] = sign.near_distance
        wanted = distance.reshape(COUNT, -1)[numbers].reshape(-1)
        np.testing.assert_array_equal(found.near_index, np.flatnonzero(np.isfinite(wanted)))
        np.testing.assert_array_equal(found.near_distance, wanted[found.near_index])
    for strange in (golden.images + 1, golden.images[:0], golden.images.astype(np.float64), golden.images[:, :3]):
        with pytest.raises(InputError, match="its own 5 images only"):
            golden.capture(strange)


def test_the_same_bytes(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """Breaks if recording twice gives files that differ, so that nobody can keep one under version control."""
    model, path = recorded
    record_golden(model, tmp_path / "again.npz", data=path.parent / "data.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], pictures())


def test_reading_needs_numpy_only(recorded: tuple[Path, Path]) -> None:
    """Breaks if a device or a CI job needs PyTorch, onnx, onnxruntime or TVM to read a golden file."""
    code = (
        "import sys; from pathlib import Path; from bnn_deploy.references.golden import Golden; "
        "golden = Golden.open(Path(sys.argv[1])); golden.capture(golden.images[:1]); "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'tvm', 'onnx_ir', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(recorded[1])],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def content(recorded: tuple[Path, Path]) -> bytes:
    return recorded[1].read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Breaks if a file that was cut short or altered gives a traceback, or other values than were recorded."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(InputError):
            Golden.open(path)
        return
    # The ends are where zip keeps its lists, and a header starts.
    place = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 900, len(content) - 1)))
    damaged = bytearray(content)
    damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found = Golden.open(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        return
    # What zip keeps twice, or nobody reads: dates, permissions, versions.
    path.write_bytes(content)
    intact = Golden.open(path)
    check_equal(found.values, intact.values)
    np.testing.assert_array_equal(found.images, intact.images)


def altered(path: Path, output: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """The golden file with its header and arrays changed, all checksums right."""
    stored = StoredArrays(path, "golden file")
    header = json.loads(stored.text("header", 2**20))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_arrays(output, arrays)
    return output


def _set(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda header, arrays: header.__setitem__(key, value)


def _sign(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda header, arrays: header["signs"][0].__setitem__(key, value)


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, dict[str, np.ndarray]], None]:
    return lambda header, arrays: arrays.__setitem__(name, change(arrays[name]))


WRONG = {
    "newer": (_set("version", 2), "version 2 of the format, but this bnn-deploy reads version 1"),
    "something else": (_set("format", "x"), "that of something else"),
    "no images": (_set("images", 0), "histogram of .sign1. does not count"),
    "huge": (_set("images", 2**39), "histogram of 'sign1' does not count"),
    "negative": (_set("classes", -1), "in its header, classes is -1, expected a whole number"),
    "huge image": (_set("image_shape", [2**30]), "array 'images' takes"),
    "metadata": (_set("metadata", {"a": 1}), "metadata.a is 1, expected a text"),
    "notes": (_set("notes", "x"), "notes is 'x', expected a list"),
    "no layers": (_set("signs", 3), "signs is 3, expected a list"),
    "no layer": (_set("signs", [3]), r"signs\[0\] is 3, expected an object"),
    "one name": (lambda header, arrays: header["signs"][1].__setitem__("tensor", "s1"), "two layers have one name"),
    "huge layer": (_sign("shape", [2**20, 2**19]), "does not count its"),
    "other layer": (_sign("shape", [COUNT, FEATURES + 1]), "does not count its"),
    "counts": (_sign("on_threshold", 41), "more values near its threshold than values"),
    "infinite": (_sign("scale", float("inf")), "signs\\[0\\].scale is inf"),
    "not a number": (_sign("margin", float("nan")), "signs\\[0\\].margin is nan"),
    "labels": (_array("labels", lambda labels: labels + 1), "its labels are not from 0 to 2"),
    "type": (_array("labels", lambda labels: labels.astype(np.float64)), "array 'labels' is not int64"),
    "shape": (_array("logits", lambda logits: logits.T), "array 'logits' is not float32 of shape"),
    "short": (_array("sign_0.bits", lambda bits: bits[:, :-1]), "array 'sign_0.bits' takes"),
    "missing": (lambda header, arrays: arrays.pop("sign_1.distance"), "array 'sign_1.distance' is missing"),
    "both signs": (_array("sign_1.bits", lambda bits: bits | 255), "values that are \\+1 and -1"),
    "far": (_array("sign_0.distance", lambda distance: distance + 1e9), "not between 0 and"),
    "nan": (_array("sign_0.distance", lambda distance: distance * np.float32(np.nan)), "not between 0 and"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_do_not_add_up(case: str, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """Breaks if a file with right checksums and wrong contents is believed, or makes arrays larger than itself."""
    change, message = WRONG[case]
    path = altered(recorded[1], tmp_path / "g.npz", change)
    with pytest.raises(InputError, match=f"g.npz: is no golden file of bnn-deploy, or is damaged: .*{message}"):
        Golden.open(path)


def test_positions_that_cannot_be(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """Breaks if a position behind the last value, twice, or in both lists is taken."""

    def lists(on: list[int], near: list[int]) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
        def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
            shape = [8 * 10 * COUNT, FEATURES]
            header["images"], header["signs"] = 1, header["signs"][:1]
            header["signs"][0] |= {"shape": shape, "on_threshold": len(on), "near": len(near), "scale": 1.0}
            header["signs"][0]["histograms"] = [[0] * 9 + [shape[0] * shape[1]]]
            for name in ("images", "labels", "logits"):
                arrays[name] = arrays[name][:1]
            arrays["sign_0.bits"] = np.zeros((1, shape[0]), np.uint8)
            arrays["sign_0.on_threshold"], arrays["sign_0.near"] = np.array(on, np.int64), np.array(near, np.int64)
            arrays["sign_0.distance"] = np.full(len(near), 1e-7, np.float32)

        return change

    output = tmp_path / "g.npz"
    sign = Golden.open(altered(recorded[1], output, lists([3], [2, 7]))).values.signs["s1"]
    assert sign.near_index.tolist() == [2, 3, 7] and sign.near_distance.tolist() == [
        np.float32(1e-7),
        0,
        np.float32(1e-7),
    ]
    for on, near in ([3200], []), ([-1], []), ([4, 4], []), ([5, 4], []), ([], [3200]):
        with pytest.raises(InputError, match=r"are not . of 3200, ascending"):
            Golden.open(altered(recorded[1], output, lists(on, near)))
    with pytest.raises(InputError, match="on the threshold and beside it"):
        Golden.open(altered(recorded[1], output, lists([3], [3])))


def test_other_files(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """Breaks if text, an ONNX file, another .npz, a compressed one (that may be a bomb) or a pickle is read, or named wrongly."""
    for path, message in (
        (recorded[0], "is no golden file"),
        (tmp_path / "none.npz", "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            Golden.open(path)
    (tmp_path / "text.npz").write_text("header")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", header=np.array([{}], object))
    with np.load(recorded[1]) as arrays:
        np.savez_compressed(tmp_path / "compressed.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(2**24))
    for name in ("text", "other", "pickle", "compressed", "bomb"):
        with pytest.raises(InputError, match=f"{name}.npz: is no golden file"):
            Golden.open(tmp_path / f"{name}.npz")


def test_command(tiny_onnx: Path, invoke: Invoke, tmp_path: Path) -> None:
    """Breaks if the command does not record what it was asked to, says something else, or leaves half a file behind."""
    output = tmp_path / "g.npz"
    result = invoke("golden", tiny_onnx, "-o", output, "--reference", "torch", "--samples", 1, "--format", "json")
    assert result.exit_code == 0, result.stderr
    summary, golden = json.loads(result.stdout), Golden.open(output)
    assert (summary["images"], summary["reference"], summary["labelled"]) == (1, "torch", False)
    assert summary["bytes"] == output.stat().st_size and summary["layers"] == len(golden.values.signs)
    assert golden.header.metadata["bnn_deploy.model"] == "bimlp_tiny"
    text = invoke("golden", tiny_onnx, "-o", output, "--samples", 1)
    assert text.exit_code == 0 and "1 images (1 calibration inputs, seed 0) in onnxruntime" in text.stdout
    before = output.read_bytes()
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    for arguments, message in (
        (("--data", tmp_path / "x.npy", "--samples", 3), "holds 2 images, fewer than --samples 3"),
        (("--weights", tmp_path / "w.pt"), "--weights is for --reference torch"),
        (("-o", tmp_path / "no" / "g.npz"), "does not exist"),
        (("--data", tmp_path / "y.npy"), "no such file or folder"),
    ):
        result = invoke("golden", tiny_onnx, "-o", output, *arguments)
        assert result.exit_code == 2 and message in result.stderr and result.stderr.count("error:") == 1
    result = invoke("golden", tmp_path / "none.onnx", "-o", output)
    assert result.exit_code == 2 and "none.onnx" in result.stderr
    assert output.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["g.npz", "x.npy"]
