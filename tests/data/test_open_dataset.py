"""Images come from files that nobody vouches for: right data in any batch size, one sentence for anything else."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.data.arrays import load_images
from bnn_deploy.data.dataset import Dataset, random_inputs
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import InputError
from bnn_deploy.files import save_array

SHAPE = (1, 2, 3)


def images(count: int, offset: float = 0) -> np.ndarray:
    return (np.arange(count * 6, dtype=np.float32) + offset).reshape(count, *SHAPE)


def collect(dataset: Dataset, size: int, samples: int | None = None) -> tuple[np.ndarray, list[int], np.ndarray | None]:
    batches = list(dataset.batches(size, samples))
    labels = [batch_labels for _, batch_labels in batches if batch_labels is not None]
    return (
        np.concatenate([batch for batch, _ in batches]),
        [len(batch) for batch, _ in batches],
        np.concatenate(labels) if labels else None,
    )


@given(counts=st.lists(st.integers(1, 7), min_size=1, max_size=4), size=st.integers(1, 9), data=st.data())
@settings(max_examples=30, deadline=None)
def test_folder_in_batches(
    counts: list[int], size: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Breaks if images or labels are lost, repeated, misaligned or reordered across file and batch borders."""
    folder = tmp_path_factory.mktemp("data")
    start, everything = 0, images(sum(counts))
    for index, count in enumerate(counts):
        part = slice(start, start + count)
        np.savez(folder / f"{index}.npz", x=everything[part], y=np.arange(start, start + count) % 5)
        start += count
    samples = data.draw(st.integers(1, start))
    dataset = open_dataset(folder, SHAPE, 5)
    assert dataset.samples == start and dataset.labelled
    found, sizes, labels = collect(dataset, size, samples)
    np.testing.assert_array_equal(found, everything[:samples])
    np.testing.assert_array_equal(labels, np.arange(samples) % 5)
    assert all(length == size for length in sizes[:-1]) and 0 < sizes[-1] <= size


def test_array_names_and_labels(tmp_path: Path) -> None:
    """Breaks if images/labels are not accepted for x/y, or if half-labelled folders count as labelled."""
    np.savez_compressed(tmp_path / "a.npz", images=images(3), labels=np.array([0, 1, 2], np.uint8))
    assert collect(open_dataset(tmp_path / "a.npz", SHAPE, 3), 2)[2].tolist() == [0, 1, 2]
    np.save(tmp_path / "b.npy", images(2, 100))
    both = open_dataset(tmp_path, SHAPE, 3)
    assert not both.labelled
    found, _, labels = collect(both, 4)
    np.testing.assert_array_equal(found, np.concatenate([images(3), images(2, 100)]))
    assert labels is None


def test_random_inputs_do_not_depend_on_batch_size() -> None:
    """Breaks if another batch size compares other images."""
    dataset = random_inputs(SHAPE, 11, seed=3)
    np.testing.assert_array_equal(collect(dataset, 4)[0], collect(dataset, 11)[0])
    assert dataset.note


def test_images_are_read_in_batches_only(tmp_path: Path) -> None:
    """Breaks if a file is read whole, which would take memory in proportion to the data."""
    import tracemalloc

    # 8 MB compress to a few kB, so only reading them costs memory.
    np.savez_compressed(tmp_path / "many.npz", x=np.zeros((350_000, *SHAPE), np.float32))
    dataset = open_dataset(tmp_path / "many.npz", SHAPE, 2)
    tracemalloc.start()
    assert sum(len(batch) for batch, _ in dataset.batches(64)) == 350_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def corrupt_size(path: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(images(1)) | {"shape": (10**12, *SHAPE)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(24))


def npz_with(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


def saved(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def newer_zip(path: Path) -> None:
    """An archive that says it needs version 9.9 of zip."""
    np.savez(path, x=images(2))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)


BAD_FILES = {
    "newer.npz": (newer_zip, "not a .npz file"),
    "empty.npy": (lambda path: path.write_bytes(b""), "not a numpy array file"),
    "text.npy": (lambda path: path.write_text("hello, world"), "not a numpy array file"),
    "truncated.npy": (lambda path: path.write_bytes(saved(images(4))[:-3]), "truncated"),
    "huge.npy": (corrupt_size, "truncated"),
    "objects.npy": (lambda path: path.write_bytes(saved(np.array([{}], object), True)), "Python objects"),
    "fortran.npy": (lambda path: np.save(path, np.asfortranarray(images(4))), "Fortran"),
    "double.npy": (lambda path: np.save(path, images(4).astype(np.float64)), "found float64"),
    "shape.npy": (lambda path: np.save(path, images(4).reshape(4, 6)), r"found float32 \(4, 6\)"),
    "single.npy": (lambda path: np.save(path, images(1)[0]), r"found float32 \(1, 2, 3\)"),
    "none.npy": (lambda path: np.save(path, images(0)), "no image"),
    "other.txt": (lambda path: path.write_text("x"), "expected a .npy or .npz"),
    "text.npz": (lambda path: path.write_text("x"), "not a .npz file"),
    "names.npz": (lambda path: np.savez(path, a=images(1)), "no array named 'x' or 'images' .found: a"),
    "inside.npz": (lambda path: npz_with(path, "x.npy", b"nothing"), "not a numpy array file"),
    "pickle.npz": (lambda path: npz_with(path, "x.npy", saved(np.array([{}], object), True)), "Python objects"),
    "labels.npz": (lambda path: np.savez(path, x=images(2), y=np.zeros(3, int)), "expected 2 integer labels"),
    "real.npz": (lambda path: np.savez(path, x=images(2), y=np.zeros(2)), "integer labels, found float64"),
    "range.npz": (lambda path: np.savez(path, x=images(2), y=np.array([1, 2])), "labels run from 1 to 2"),
    "missing.npz": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name: str, tmp_path: Path) -> None:
    """Breaks if a damaged or unfitting file is accepted, unpickled, allocated for, or crashes without a sentence."""
    make, message = BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(tmp_path / name, SHAPE, 2)
    assert name in str(caught.value)
    if name.endswith(".npy"):
        with pytest.raises(InputError, match=message):
            load_images(tmp_path / name, SHAPE)


def test_damaged_data_inside_npz(tmp_path: Path) -> None:
    """Breaks if flipped bytes in a compressed file are compared as if they were the images."""
    path = tmp_path / "x.npz"
    np.savez(path, x=images(100))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged .npz file"):
        collect(open_dataset(path, SHAPE, 2), 8)


def test_empty_folder(tmp_path: Path) -> None:
    """Breaks if a folder without images counts as a passed comparison of nothing."""
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"no \.npy or \.npz file"):
        open_dataset(tmp_path, SHAPE, 2)


def test_save_array(tmp_path: Path) -> None:
    """Breaks if the output has another name or content, or if an error leaves half a file."""
    path = tmp_path / "logits"
    save_array(path, images(2))
    np.testing.assert_array_equal(np.load(path), images(2))
    with pytest.raises(InputError, match="cannot be written"):
        save_array(tmp_path, images(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["logits"]
    assert not list(tmp_path.parent.glob("*.partial"))
