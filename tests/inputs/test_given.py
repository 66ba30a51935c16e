"""Files of real inputs are told apart, read, cut into batches, and recorded."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnfold.errors import InputError, MissingExtraError
from bnfold.inputs import given
from bnfold.inputs.given import Given
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import Port

ONE = Port("x", "float32", (1, 3))
OPEN = Port("x", "float32", ("N", 3))
K = Port("k", "int64", (1,))
TEN = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.fixture
def npz(tmp_path: Path):
    """Write an `.npz` and name it as inputs."""

    def write(**arrays: np.ndarray) -> Given:
        np.savez(tmp_path / "real.npz", **arrays)
        return Given(tmp_path / "real.npz")

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of one small picture."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    return tmp_path / "pictures"


# --- an .npz


def test_npz_round_trip(npz):
    samples = npz(x=TEN.astype(np.float64), k=np.zeros(10, np.uint8)).samples(
        [OPEN, Port("k", "int64", ("N",))]
    )
    assert samples.labels == ("real.npz",)
    (feeds,) = samples.feeds
    assert {name: (array.dtype, array.shape) for name, array in feeds.items()} == {
        "x": (np.float32, (10, 3)),
        "k": (np.int64, (10,)),
    }


def test_a_longer_array_is_cut_into_the_batches_of_the_model(npz):
    samples = npz(x=TEN, k=np.arange(10)).samples([ONE, K])
    assert samples.labels[0] == "real.npz 1 of 10"
    assert len(samples.labels) == 10
    for row, feeds in enumerate(samples.feeds):
        np.testing.assert_array_equal(feeds["x"], TEN[[row]])
        assert feeds["k"] == [row]
    pairs = npz(x=TEN).samples([Port("x", "float32", (2, 3))])
    np.testing.assert_array_equal(pairs.feeds[4]["x"], TEN[8:])


def test_an_input_that_is_given_once_goes_with_every_batch(npz):
    ports = [ONE, Port("scale", "float32", ()), Port("anchors", "float32", (2, 2))]
    samples = npz(x=TEN, scale=np.float32(2), anchors=np.ones((2, 2), np.float32)).samples(ports)
    assert len(samples.feeds) == 10
    assert all(feeds["scale"] == 2 and feeds["anchors"].shape == (2, 2) for feeds in samples.feeds)


@pytest.mark.parametrize(
    ("arrays", "said", "fix"),
    [
        ({"x": TEN, "k": np.arange(5)}, "10 for x, 5 for k", "equal numbers"),
        ({"x": TEN[:, :2], "k": np.arange(10)}, r"'x' was given with the shape \[1, 2\]", "k: int64"),
        ({"x": TEN[0], "k": np.arange(1)}, r"'x' was given with the shape \[3\]", "k: int64"),
        ({"y": TEN, "k": np.arange(10)}, "named k, y", "k: int64"),
    ],
)
def test_arrays_that_do_not_fit(npz, arrays: dict, said: str, fix: str):
    with pytest.raises(InputError, match=said) as caught:
        npz(**arrays).samples([ONE, K])
    assert fix in caught.value.fix


def test_rows_that_do_not_fill_a_batch_are_an_error(npz):
    with pytest.raises(InputError, match="'x' was given 10 rows, and the model takes 4") as caught:
        npz(x=TEN).samples([Port("x", "float32", (4, 3))])
    assert "Leave out the last 2, or add 2" in caught.value.fix


# --- an .npy


def test_an_npy_is_the_one_input_of_a_model(tmp_path: Path):
    np.save(tmp_path / "real.npy", TEN)
    (whole,) = Given(tmp_path / "real.npy").samples([OPEN]).feeds
    np.testing.assert_array_equal(whole["x"], TEN)
    cut = Given(tmp_path / "real.npy").samples([ONE])
    assert (len(cut.feeds), cut.labels[9]) == (10, "real.npy 10 of 10")
    with pytest.raises(InputError, match="the model has 2 inputs") as caught:
        Given(tmp_path / "real.npy").samples([ONE, K])
    assert "numpy.savez" in caught.value.fix


# --- what a path is


def test_the_content_tells_what_a_file_is(tmp_path: Path, pictures: Path):
    np.save(tmp_path / "array.npy", TEN)
    np.savez(tmp_path / "arrays.npz", x=TEN)
    (tmp_path / "array.npy").rename(tmp_path / "array")
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.npy")
    assert Given(tmp_path / "array").kind == "npy"
    assert Given(tmp_path / "arrays.npy").kind == "npz"
    assert Given(pictures).kind == "images"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is not there"), (b"", "is empty"), (b"1, 2", "is a text file"), (b"\xff\xd8", "unknown kind")],
)
def test_paths_of_no_known_kind(tmp_path: Path, content: bytes | None, said: str):
    if content is not None:
        (tmp_path / "data").write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        Given(tmp_path / "data")
    assert caught.value.fix


def test_pillow_is_asked_for_at_once(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="Pillow is needed to read pictures") as caught:
        Given(pictures)
    assert caught.value.fix == 'Type: pip install "bnfold[images]"'


# --- what the command line says


def test_the_options_of_pictures(pictures: Path):
    assert Given.parse(pictures) == Given(pictures, (0.0,), (1.0,), None)
    told = Given.parse(pictures, mean="0.5", std="0.1,0.2, 0.3", size="8x6")
    assert (told.mean, told.std, told.size) == ((0.5,), (0.1, 0.2, 0.3), (8, 6))
    imagenet = Given.parse(pictures, mean="imagenet")
    assert imagenet == Given.parse(pictures, std="imagenet")
    assert (imagenet.mean, imagenet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Given.parse(pictures, mean="imagenet", std="1").std == (1.0,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": "coco"}, "'coco' is not a value of --mean"),
        ({"std": "1;2"}, "'1;2' is not a value of --std"),
        ({"std": "0.1,0"}, r"0\.1,0\.0 is not a std"),
        ({"std": "inf"}, "inf is not a std"),
        ({"mean": "nan"}, "nan is not a mean"),
        ({"size": "224"}, "'224' is not a value of --size"),
        ({"size": "0x5"}, "0x5 is not a size"),
    ],
)
def test_options_that_make_no_sense(pictures: Path, options: dict, said: str):
    with pytest.raises(InputError, match=said) as caught:
        Given.parse(pictures, **options)
    assert caught.value.fix


@pytest.mark.parametrize("options", [{"mean": "0.5"}, {"std": "imagenet"}, {"size": "8x8"}])
def test_options_of_pictures_without_pictures(npz, options: dict):
    with pytest.raises(InputError, match="holds no pictures"):
        Given.parse(npz(x=TEN).path, **options)


# --- evidence


def test_the_record_of_a_file(npz):
    inputs = npz(x=TEN)
    digest = hashlib.sha256(inputs.path.read_bytes()).hexdigest()
    assert inputs.record() == {
        "kind": "npz",
        "path": str(inputs.path),
        "count": 1,
        "sha256": {"real.npz": digest},
    }


def test_the_record_of_pictures(pictures: Path):
    Image.new("RGB", (4, 4), "red").save(pictures / "B.png")
    record = Given(pictures, mean=(0.5,), size=(8, 6)).record()
    assert (record["count"], list(record["sha256"])) == (2, ["B.png", "a.png"])
    assert len(set(record["sha256"].values())) == 2
    assert (record["mean"], record["std"], record["size"]) == ([0.5], [1.0], [8, 6])
    assert Given(pictures).record()["size"] is None


# --- what a caller may give


def test_mappings_sequences_and_files(npz):
    one = given.as_samples({"x": TEN.astype(np.float64)}, [OPEN])
    assert one.labels == ("given",)
    assert one.feeds[0]["x"].dtype == np.float32
    two = given.as_samples([{"x": TEN}, {"x": TEN[:2]}], [OPEN])
    assert two.labels == ("given 1 of 2", "given 2 of 2")
    assert [len(feeds["x"]) for feeds in two.feeds] == [10, 2]
    assert given.as_samples(npz(x=TEN), [OPEN]).labels == ("real.npz",)
    assert [outputs for _, _, outputs in two.each(lambda feeds: len(feeds["x"]))] == [10, 2]


def test_samples_that_were_chosen_before_keep_their_labels_and_notes():
    before = Samples(({"x": TEN.astype(np.float64)},), ("One was left out.",), ("normal 10×3",))
    again = given.as_samples(before, [OPEN])
    assert (again.labels, again.notes) == (("normal 10×3",), ("One was left out.",))
    assert again.feeds[0]["x"].dtype == np.float32
    assert again.dimensions[0].sizes == (10,)
    with pytest.raises(InputError, match="named y"):
        given.as_samples(Samples(({"y": TEN},), labels=("y",)), [OPEN])


def test_what_given_inputs_cover_is_said_as_for_drawn_ones():
    ports = [OPEN, Port("k", "int64", ("N",))]
    inputs = [{"x": TEN, "k": np.arange(10)}, {"x": TEN[:4], "k": np.full(4, 20)}]
    samples = given.as_samples(inputs, ports)
    (batch,) = samples.dimensions
    assert (batch.symbol, batch.sizes, batch.odd) == ("N", (4, 10), ())
    (numbers,) = samples.integers
    assert (numbers.low, numbers.high, numbers.distinct) == (0, 20, 11)
    assert samples.notes == ()


def test_mappings_are_checked_and_not_cut():
    with pytest.raises(InputError, match=r"'x' was given with the shape \[10, 3\]"):
        given.as_samples({"x": TEN}, [ONE])
    with pytest.raises(InputError, match="named y"):
        given.as_samples([{"x": TEN}, {"y": TEN}], [OPEN])
    with pytest.raises(InputError, match="list of inputs is empty"):
        given.as_samples([], [OPEN])


# --- arrays that the model does not take, and labels


def test_arrays_that_the_model_does_not_take_are_left_out_with_a_note(npz):
    samples = npz(x=TEN, y=np.arange(10), name=np.array("who")).samples([OPEN])
    assert list(samples.feeds[0]) == ["x"]
    assert samples.notes == ("name, y of real.npz left out: the model takes x.",)
    with pytest.raises(InputError, match="named y"):
        npz(y=TEN).samples([OPEN])


@pytest.fixture
def labels(tmp_path: Path):
    """Write labels for some rows: their numbers."""

    def write(count: int) -> Path:
        np.savetxt(tmp_path / "labels.txt", np.arange(count), fmt="%d")
        return tmp_path / "labels.txt"

    return write


def test_with_labels_every_row_of_an_open_batch_is_used_a_few_at_a_time(npz, labels):
    rows = np.random.default_rng(0).normal(size=(70, 3)).astype(np.float32)
    inputs = npz(x=rows, k=np.arange(70), scale=np.float32(2))
    ports = [OPEN, Port("k", "int64", (None,)), Port("scale", "float32", ())]
    samples = replace(inputs, labels=labels(70)).samples(ports)
    assert [len(feeds["x"]) for feeds in samples.feeds] == [32, 32, 6]
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds in samples.feeds]), rows)
    np.testing.assert_array_equal(np.concatenate([feeds["k"] for feeds in samples.feeds]), np.arange(70))
    np.testing.assert_array_equal(samples.classes, np.arange(70))
    assert len(inputs.samples(ports).feeds) == 1  # without labels a first dimension may be no batch


def test_an_open_batch_follows_one_that_is_fixed(npz, labels):
    inputs = replace(npz(x=TEN, k=np.arange(10)), labels=labels(10))
    samples = inputs.samples([OPEN, Port("k", "int64", (5,))])
    assert [(len(feeds["x"]), feeds["k"].tolist()) for feeds in samples.feeds] == [
        (5, [0, 1, 2, 3, 4]),
        (5, [5, 6, 7, 8, 9]),
    ]


def test_labels_of_another_number_of_rows_are_an_error(npz, labels, pictures: Path):
    with pytest.raises(InputError, match=r"has 9 labels, and .* has rows: 10 for x"):
        replace(npz(x=TEN), labels=labels(9)).samples([OPEN])
    with pytest.raises(InputError, match=r"has 2 labels, and .* has 1 pictures"):
        Given(pictures, labels=labels(2)).samples([Port("x", "float32", (1, 3, 4, 4))])


def test_labels_of_pictures_that_fill_no_batch_are_left_out_too(pictures: Path, tmp_path: Path):
    for name in ("b", "c"):
        Image.new("RGB", (4, 4)).save(pictures / f"{name}.png")
    (tmp_path / "labels.csv").write_text("c.png,2\nb.png,1\na.png,5\n")
    inputs = Given(pictures, labels=tmp_path / "labels.csv")
    assert inputs.samples([Port("x", "float32", (2, 3, 4, 4))]).classes.tolist() == [5, 1]
    assert inputs.samples([Port("x", "float32", ("N", 3, 4, 4))]).classes.tolist() == [5, 1, 2]


def test_labels_are_evidence(npz, labels):
    inputs = Given.parse(npz(x=TEN).path, labels=labels(10), top=3)
    record = inputs.record()
    digest = hashlib.sha256(inputs.labels.read_bytes()).hexdigest()
    assert (record["labels"], record["labels_sha256"], record["top"]) == (str(inputs.labels), digest, 3)


@pytest.mark.parametrize(
    ("options", "said"), [({"labels": Path("none.csv")}, "not a file"), ({"top": 0}, "Top-0 is not")]
)
def test_labels_that_make_no_sense(npz, options: dict, said: str):
    with pytest.raises(InputError, match=said):
        replace(npz(x=TEN), **options)
