"""Pictures of any size and kind become the same bits as in training; anything else becomes one sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bnn_deploy.data.image_file import read_image
from bnn_deploy.errors import InputError
from bnn_deploy.metadata.preprocessing import INTERPOLATIONS, Preprocessing

SMALL = Preprocessing(6, "bilinear", (4, 5), "RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Where each kind of pixels is kept without loss, so that the test knows them.
LOSSLESS = {"RGB": "png", "L": "pgm", "1": "bmp", "LA": "png", "P": "png", "RGBA": "webp"}


def picture(width: int, height: int, mode: str, seed: int) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = Image.fromarray(colours).convert(mode)
    if "A" in mode:
        made.putalpha(Image.fromarray(colours[..., 1]))
    return made


def saved(folder: Path, image: Image.Image, extension: str, **options: object) -> Path:
    path = folder / f"x.{extension}"
    image.save(path, **({"lossless": True, "exact": True} if extension == "webp" else {}), **options)
    return path


def straightforward(path: Path, wanted: Preprocessing) -> np.ndarray:
    """What torchvision's documentation says of Resize, CenterCrop, ToTensor and Normalize, written down once more."""
    image = Image.open(path).convert("RGB")
    if wanted.channels == "grey":
        image = image.convert("L")
    width, height = image.size
    if width < height:
        size = (wanted.resize, int(wanted.resize * height / width))
    else:
        size = (int(wanted.resize * width / height), wanted.resize)
    if min(width, height) != wanted.resize:
        image = image.resize(size, Image.Resampling[wanted.interpolation.upper()])
    pixels = np.array(image).reshape(*np.array(image).shape[:2], -1)
    crop_height, crop_width = wanted.crop
    top, left = round((pixels.shape[0] - crop_height) / 2.0), round((pixels.shape[1] - crop_width) / 2.0)
    pixels = pixels[top : top + crop_height, left : left + crop_width]
    planes = []
    for channel, (mean, std) in enumerate(zip(wanted.mean, wanted.std, strict=True)):
        scaled = pixels[..., channel].astype(np.float32) / np.float32(255)
        planes.append((scaled - np.float32(mean)) / np.float32(std))
    return np.stack(planes)


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    mode=st.sampled_from(sorted(LOSSLESS)),
    seed=st.integers(0, 99),
    resize=st.integers(3, 30),
    data=st.data(),
    interpolation=st.sampled_from(INTERPOLATIONS),
    channels=st.sampled_from(["RGB", "grey"]),
)
@settings(max_examples=120, deadline=None)
def test_same_bits_as_torchvision(
    width: int,
    height: int,
    mode: str,
    seed: int,
    resize: int,
    data: st.DataObject,
    interpolation: str,
    channels: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Breaks if resize, crop offsets or arithmetic differ from those that models are trained with, by a single bit."""
    crop = (data.draw(st.integers(1, resize)), data.draw(st.integers(1, resize)))
    count = 3 if channels == "RGB" else 1
    wanted = Preprocessing(
        resize, interpolation, crop, channels, (0.485, 0.456, 0.406)[:count], (0.229, 0.2, 0.3)[:count]
    )
    path = saved(tmp_path_factory.mktemp("picture"), picture(width, height, mode, seed), LOSSLESS[mode])
    found = read_image(path, wanted)
    assert found.shape == wanted.shape and found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found.view(np.uint32), straightforward(path, wanted).view(np.uint32))


def test_middle_rounds_to_even(tmp_path: Path) -> None:
    """Breaks if an odd border is split otherwise than by torchvision, and every such image shifts by a pixel."""
    path = saved(tmp_path, Image.fromarray(np.arange(49, dtype=np.uint8).reshape(7, 7)), "png")
    wanted = Preprocessing(7, "bilinear", (4, 2), "grey", (0.0,), (1.0,))
    # (7 - 4) / 2 = 1.5 and (7 - 2) / 2 = 2.5 both round to 2.
    expected = np.arange(49, dtype=np.float32).reshape(7, 7)[2:6, 2:4] / np.float32(255)
    np.testing.assert_array_equal(read_image(path, wanted)[0], expected)


@pytest.mark.parametrize("extension", ["png", "pgm"])
def test_sixteen_bits(extension: str, tmp_path: Path) -> None:
    """Breaks if grey pixels of 16 bits become white, as Pillow's own conversion makes them."""
    wide = np.arange(6 * 6, dtype=np.uint16).reshape(6, 6) * 1800
    path = tmp_path / f"x.{extension}"
    if extension == "png":
        Image.frombytes("I;16", (6, 6), wide.tobytes()).save(path)
    else:
        path.write_bytes(b"P5 6 6 65535\n" + wide.astype(">u2").tobytes())
    wanted = Preprocessing(6, "bilinear", (6, 6), "grey", (0.0,), (1.0,))
    np.testing.assert_array_equal(read_image(path, wanted)[0], (wide >> 8).astype(np.float32) / np.float32(255))


def test_orientation_is_ignored_and_cmyk_is_converted(tmp_path: Path) -> None:
    """Breaks if photos of telephones come out otherwise than in torchvision, or JPEGs of printers cannot be used."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image = picture(9, 6, "RGB", 0)
    plain, turned = saved(tmp_path, image, "jpg"), tmp_path / "turned.jpg"
    image.save(turned, exif=exif)
    np.testing.assert_array_equal(read_image(plain, SMALL), read_image(turned, SMALL))
    printed = tmp_path / "cmyk.jpg"
    image.convert("CMYK").save(printed)
    np.testing.assert_array_equal(read_image(printed, SMALL), straightforward(printed, SMALL))


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares this size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def content(extension: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(64, 48, "RGB", 1).save(buffer, extension, **options)
    return buffer.getvalue()


BAD_FILES = {
    "empty.jpg": (b"", "not a picture that can be read"),
    "text.jpg": (b"hello, world", "not a picture that can be read"),
    "truncated.jpg": (content("JPEG")[:-600], "truncated"),
    "header.jpg": (content("JPEG")[:200], "not a picture that can be read"),
    "truncated.png": (content("PNG")[:-600], "not a picture that can be read"),
    "truncated.webp": (content("WEBP")[:-200], "not a picture that can be read"),
    "truncated.bmp": (content("BMP")[:-200], "not a picture that can be read"),
    "short.ppm": (b"P6 9 9 255\nabc", "not a picture that can be read"),
    "gif.png": (content("GIF"), "not a picture that can be read"),
    "bomb.png": (bomb(60000, 60000), "more than 89478485 pixels"),
    "suspicious.png": (bomb(10000, 10000), "more than 89478485 pixels"),
    "line.pgm": (b"P5 4000000 1 255\n" + bytes(4000000), "more than 89478485 pixels"),
    "real.ppm": (b"Pf 2 2 -1.0\n" + bytes(16), "mode 'F'"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name: str, tmp_path: Path) -> None:
    """Breaks if a damaged picture is compared as if it were whole, skipped, allocated for, or crashes without a sentence."""
    data, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    wanted = Preprocessing(30, "bilinear", (4, 5), "RGB", SMALL.mean, SMALL.std)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / name, wanted)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_pipe_does_not_block(tmp_path: Path) -> None:
    """Breaks if a pipe with a picture's name makes the run wait for ever."""
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(InputError, match="not a file"):
        read_image(tmp_path / "x.png", SMALL)


@given(
    noise=st.binary(max_size=60),
    where=st.integers(0, 3000),
    extension=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "PPM"]),
)
@settings(max_examples=150, deadline=None)
def test_damaged_bytes(noise: bytes, where: int, extension: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks if any damage gives something else than an image of the right shape or one sentence."""
    whole = bytearray(content(extension))
    where %= len(whole)
    whole[where : where + len(noise)] = noise
    path = tmp_path_factory.mktemp("picture") / "x"
    path.write_bytes(whole)
    try:
        assert read_image(path, SMALL).shape == SMALL.shape
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
