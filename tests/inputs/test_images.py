"""Pictures become the tensors that a model takes, and what cannot be read is named."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnfold.errors import InputError
from bnfold.inputs import images
from bnfold.inputs.images import Look
from bnfold.runtime.interface import Port

RGB = Port("x", "float32", (1, 3, 4, 6))
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture of 4 rows and 6 columns."""
    Image.fromarray(PIXELS).save(tmp_path / "one.png")
    return tmp_path


def tensor(folder: Path, port: Port, look: Look | None = None) -> np.ndarray:
    """The first sample."""
    array: np.ndarray = images.read(folder, [port], look or Look()).feeds[0][port.name]
    return array


def test_channels_first_and_last(folder: Path):
    first = tensor(folder, RGB)
    assert (first.dtype, first.shape) == (np.float32, (1, 3, 4, 6))
    np.testing.assert_array_equal(first[0], (PIXELS / 255).astype(np.float32).transpose(2, 0, 1))
    last = tensor(folder, Port("x", "float64", ("N", 4, 6, 3)))
    np.testing.assert_array_equal(last[0], PIXELS / 255)


def test_mean_and_std_of_each_channel(folder: Path):
    look = Look((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    expected = (PIXELS / 255 - look.mean) / look.std
    np.testing.assert_allclose(
        tensor(folder, Port("x", "float32", (1, 4, 6, 3)), look)[0], expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        tensor(folder, RGB, look)[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-7
    )
    half = tensor(folder, Port("x", "float16", (1, 3, 4, 6)), Look((0.5,), (2.0,)))
    np.testing.assert_array_equal(half[0], ((PIXELS / 255 - 0.5) / 2).astype(np.float16).transpose(2, 0, 1))


def test_bytes_stay_bytes(folder: Path):
    raw = tensor(folder, Port("x", "uint8", (1, 4, 6, 3)))
    np.testing.assert_array_equal(raw[0], PIXELS)
    with pytest.raises(InputError, match="bytes, which are not normalised"):
        tensor(folder, Port("x", "uint8", (1, 4, 6, 3)), Look(mean=(0.5,)))


def test_grey_and_colour(folder: Path):
    grey = tensor(folder, Port("x", "uint8", (1, 1, 4, 6)))
    np.testing.assert_array_equal(grey[0, 0], np.asarray(Image.fromarray(PIXELS).convert("L")))
    Image.fromarray(PIXELS[..., 0]).save(folder / "one.png")
    coloured = tensor(folder, Port("x", "uint8", (1, 3, 4, 6)))
    assert all(np.array_equal(channel, PIXELS[..., 0]) for channel in coloured[0])


@pytest.mark.parametrize(
    ("mode", "suffix"), [("1", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "jpg")]
)
def test_modes_of_eight_bits(folder: Path, mode: str, suffix: str):
    (folder / "one.png").unlink()
    Image.new(mode, (6, 4)).save(folder / f"one.{suffix}")
    assert tensor(folder, RGB).shape == (1, 3, 4, 6)


def test_a_palette_with_a_transparent_colour(folder: Path):
    Image.fromarray(PIXELS).quantize(8).save(folder / "one.png", transparency=bytes(range(8)))
    assert tensor(folder, RGB).shape == (1, 3, 4, 6)


def test_sixteen_bits_are_refused(folder: Path):
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(folder / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png has pixels of the mode I"):
        tensor(folder, RGB)


def test_the_whole_picture_is_resized(folder: Path):
    """The left half is black and the right half white, whatever the size: nothing is cropped or turned."""
    halves = np.zeros((40, 20, 3), np.uint8)
    halves[:, 10:] = 255
    Image.fromarray(halves).save(folder / "one.png")
    for look, shape in ((Look(), (1, 3, 8, 32)), (Look(size=(8, 32)), (1, 3, "H", "W"))):
        resized = tensor(folder, Port("x", "float32", shape), look)
        assert resized.shape == (1, 3, 8, 32)
        assert resized[..., :14].max() < 0.01
        assert resized[..., 18:].min() > 0.99


def test_sorted_by_name_and_only_pictures(folder: Path):
    for name in ("b.JPG", "a.webp", "c.bmp", "d.jpeg"):
        Image.new("RGB", (3, 9)).save(folder / name)
    (folder / ".hidden.png").write_text("not a picture")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "more.png").mkdir()
    samples = images.read(folder, [RGB], Look())
    assert samples.labels == ("a.webp", "b.JPG", "c.bmp", "d.jpeg", "one.png")
    assert {feeds["x"].shape for feeds in samples.feeds} == {(1, 3, 4, 6)}
    assert samples.notes == ()


def test_batches(folder: Path):
    for name in ("two", "three", "four", "five"):
        Image.new("RGB", (6, 4), "red").save(folder / f"{name}.png")
    samples = images.read(folder, [Port("x", "float32", (2, 3, 4, 6))], Look())
    assert samples.labels == ("five.png … four.png", "one.png … three.png")
    assert samples.notes == ("1 of 5 pictures were left out: the model takes 2 at a time.",)
    np.testing.assert_array_equal(samples.feeds[1]["x"][0], tensor_of(PIXELS))
    with pytest.raises(InputError, match="takes 8 pictures at a time"):
        images.read(folder, [Port("x", "float32", (8, 3, 4, 6))], Look())


def tensor_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels / 255).astype(np.float32).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("shape", "type_name", "look", "said"),
    [
        ((1, 3, 4), "float32", Look(), "not a picture"),
        (None, "float32", Look(), "not a picture"),
        ((1, 3, 4, 6), "int64", Look(), "not a picture"),
        ((1, 4, 8, 8), "float32", Look(), "It is not clear"),
        ((1, "C", 8, 8), "float32", Look(), "It is not clear"),
        ((1, 3, 8, 3), "float32", Look(), "It is not clear"),
        ((1, 3, "H", 8), "float32", Look(), "leaves the size of pictures open"),
        ((1, 3, "H", 8), "float32", Look(size=(8, 9)), "--size is 8x9"),
        ((1, "S", "S", 3), "float32", Look(size=(8, 9)), r"the shape \[1, 8, 9, 3\]"),
        ((1, 3, 4, 6), "float32", Look(mean=(0.1, 0.2)), "--mean has 2 numbers, .* 3 channels"),
        ((1, 1, 4, 6), "float32", Look(std=(1.0, 1.0, 1.0)), r"--std has 3 numbers, .* 1 channel\."),
    ],
)
def test_models_that_pictures_do_not_fit(folder: Path, shape, type_name: str, look: Look, said: str):
    with pytest.raises(InputError, match=said) as caught:
        images.read(folder, [Port("x", type_name, shape)], look)
    assert caught.value.fix


def test_several_inputs(folder: Path):
    with pytest.raises(InputError, match="the model has 2"):
        images.read(folder, [RGB, RGB], Look())


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(InputError, match="has no pictures in it") as caught:
        images.files(tmp_path)
    assert ".png" in caught.value.fix


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_an_unreadable_picture_is_named(folder: Path, cut: int):
    (folder / "bad.png").write_bytes((folder / "one.png").read_bytes()[:cut])
    with pytest.raises(InputError, match=r"bad\.png cannot be read as a picture") as caught:
        tensor(folder, RGB)
    assert "remove it" in caught.value.fix


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "webp"])
def test_damage_is_an_input_error_or_no_harm(folder: Path, suffix: str):
    """Each decoder has its own exceptions; none may get through."""
    (folder / "one.png").unlink()
    Image.fromarray(PIXELS).save(folder / f"x.{suffix}")
    whole = (folder / f"x.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    problems = []
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        (folder / f"x.{suffix}").write_bytes(damaged)
        try:
            tensor(folder, RGB)
        except InputError as error:
            problems.append(error.problem)
    assert problems
    assert all(f"x.{suffix}" in problem for problem in problems)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused(folder: Path, side: int):
    """Pillow warns of the smaller one and raises at the larger; only the header is read of both."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    (folder / "bomb.png").write_bytes(bomb)
    with pytest.raises(InputError, match=r"bomb\.png is so large"):
        tensor(folder, RGB)


def test_other_warnings_are_no_matter(folder: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(folder / "one.png", exif=exif.tobytes()[:-3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tensor(folder, RGB).shape == (1, 3, 4, 6)
