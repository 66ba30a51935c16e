"""Inputs are seeded, fit the model, and go through the sizes that it accepts."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from bnfold.errors import InputError, ModelError
from bnfold.runtime import samples
from bnfold.runtime.interface import Port
from bnfold.runtime.samples import Sizing


def anything(_feeds: object) -> None:
    """A model that accepts everything."""


def only(accepts):
    """A model that accepts the inputs of which `accepts` is true."""

    def run(feeds):
        if not accepts(feeds):
            raise ModelError("wrong size")

    return run


IMAGE = Port("x", "float32", ("N", 3, "H", "W"))


def shapes(chosen: samples.Samples) -> set[tuple[int, ...]]:
    return {feeds["x"].shape for feeds in chosen.feeds}


def test_same_seed_same_samples():
    port = Port("x", "float32", (2, 5))
    one, two, other = (samples.choose([port], anything, count=3, seed=seed).feeds for seed in (1, 1, 2))
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
        assert not np.array_equal(a["x"], c["x"])
    assert not np.array_equal(one[0]["x"], one[1]["x"])


def test_values_by_type():
    types = ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", "string"]
    feeds = samples.draw([Port(name, name, (1000,)) for name in types], Sizing(), seed=0)
    assert [feeds[name].dtype for name in types[:-1]] == types[:-1]
    assert abs(feeds["float32"].mean()) < 0.2
    assert 0.9 < feeds["float32"].std() < 1.1
    assert (feeds["int8"].min(), feeds["uint8"].max()) == (-128, 255)
    assert (feeds["int64"].min(), feeds["int64"].max()) == (0, 99)
    assert 300 < feeds["bool"].sum() < 700
    assert set(feeds["string"]) == {"a", "b", "c"}
    assert samples.draw([Port("s", "float32", ())], Sizing(), seed=0)["s"].shape == ()


def test_static_shapes_are_not_tried_beforehand():
    def forbidden(_feeds):
        raise AssertionError("nothing to choose")

    assert shapes(samples.choose([Port("x", "float32", (2, 3))], forbidden)) == {(2, 3)}


def test_dynamic_dimensions_at_two_sizes():
    chosen = samples.choose([IMAGE], anything)
    assert shapes(chosen) == {(1, 3, 64, 64), (3, 3, 96, 96)}
    assert len(chosen.feeds) == 3
    assert chosen.notes == ()
    assert len(samples.choose([IMAGE], anything, count=1).feeds) == 2  # every size is used


def test_one_symbol_one_size():
    ports = [Port("x", "int64", ("N", "L")), Port("m", "bool", ("N", "L")), Port("t", "float32", ("L",))]
    for feeds in samples.choose(ports, anything).feeds:
        assert feeds["x"].shape == feeds["m"].shape
        assert feeds["t"].shape == feeds["x"].shape[:1] or feeds["t"].shape == feeds["x"].shape[1:]


def test_unnamed_dimensions_are_independent_and_varied():
    ports = [Port("x", "float32", (None, 3, None)), Port("z", "float32", (None, 2))]
    assert shapes(samples.choose(ports, anything)) == {(1, 3, 64), (3, 3, 96)}


def test_a_network_that_wants_one_resolution():
    chosen = samples.choose([IMAGE], only(lambda f: f["x"].shape[2:] == (224, 224)))
    assert shapes(chosen) == {(1, 3, 224, 224), (3, 3, 224, 224)}
    assert sorted(note.split()[3] for note in chosen.notes) == ["H", "W"]


def test_a_network_that_wants_one_batch_size():
    chosen = samples.choose([IMAGE], only(lambda f: f["x"].shape[0] == 1))
    assert shapes(chosen) == {(1, 3, 64, 64), (1, 3, 96, 96)}
    assert chosen.notes == ("The dynamic dimension N was tried at the size 1 only.",)


def test_dynamic_channels_are_found():
    port = Port("x", "float32", ("N", "C", 8, 8))
    assert shapes(samples.choose([port], only(lambda f: f["x"].shape[1] == 4))) == {
        (1, 4, 8, 8),
        (3, 4, 8, 8),
    }


def test_small_vocabulary():
    chosen = samples.choose([Port("x", "int64", ("N", 50))], only(lambda f: f["x"].max() < 2))
    assert all(set(np.unique(feeds["x"])) == {0, 1} for feeds in chosen.feeds)


def test_an_accepted_ceiling_is_accepted_whole():
    """Two numbers below 100 are often both below 90; the probe holds the largest all the same."""
    port, model = Port("x", "int64", (2,)), only(lambda f: f["x"].max() < 90)
    for seed in range(20):
        chosen = samples.choose([port], model, count=8, seed=seed)
        assert max(feeds["x"].max() for feeds in chosen.feeds) == 1
    empty = samples.choose([Port("x", "int64", (0,))], anything)
    assert {feeds["x"].size for feeds in empty.feeds} == {0}


def test_a_drawn_sample_that_is_rejected_asks_for_real_inputs():
    assert samples.run_drawn(len, {}) == 0
    with pytest.raises(InputError, match=r"random input .* wrong size") as caught:
        samples.run_drawn(only(lambda _: False), {})
    assert "--inputs FILE.npz" in caught.value.fix


def test_nothing_is_accepted():
    with pytest.raises(InputError, match=r"rejects all values .*wrong size") as caught:
        samples.choose([IMAGE], only(lambda _: False))
    assert "--inputs" in caught.value.fix


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (Port("x", "float32", None), "how many dimensions"),
        (Port("x", "sequence(float32)", (1,)), r"sequence\(float32\)"),
        (Port("x", "bfloat16", (1,)), "bfloat16"),
    ],
)
def test_inputs_that_cannot_be_drawn(port: Port, said: str):
    with pytest.raises(InputError, match=said):
        samples.choose([port], anything)


def test_no_samples():
    with pytest.raises(InputError, match="0 samples"):
        samples.choose([IMAGE], anything, count=0)


# --- given inputs


PORTS = [Port("x", "float32", ("N", 3)), Port("k", "int64", ("N",))]
GOOD = {"x": np.zeros((2, 3), np.float32), "k": np.zeros(2, np.int64)}


def test_npz_round_trip(tmp_path: Path):
    np.savez(tmp_path / "in.npz", **GOOD)
    fitted = samples.fit(samples.load_npz(tmp_path / "in.npz"), PORTS)
    assert {name: (array.dtype, array.shape) for name, array in fitted.items()} == {
        "x": (np.float32, (2, 3)),
        "k": (np.int64, (2,)),
    }


def test_types_convert_where_nothing_is_lost():
    fitted = samples.fit({"x": np.full((2, 3), 0.5), "k": np.array([1, 2], np.uint8)}, PORTS)
    assert (fitted["x"].dtype, fitted["k"].dtype) == (np.float32, np.int64)
    words = samples.fit({"s": np.array(["a", "bc"])}, [Port("s", "string", (2,))])
    assert words["s"].dtype == object


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"z": np.zeros(1)}, "named k, x, z"),
        ({"x": np.zeros((2, 4), np.float32)}, r"'x' was given with the shape \[2, 4\]"),
        ({"x": np.zeros((2, 3, 1), np.float32)}, r"\[2, 3, 1\]"),
        ({"k": np.zeros(5, np.int64)}, r"'k' was given with the shape \[5\]"),  # N is 2 already
        ({"k": np.zeros(2)}, "'k' was given as float64"),
        ({"x": np.zeros((2, 3), complex)}, "complex128"),
        ({"k": np.array([0, 2**63], np.uint64)}, "uint64"),
    ],
)
def test_inputs_that_do_not_fit(change: dict, said: str):
    with pytest.raises(InputError, match=said) as caught:
        samples.fit({**GOOD, **change}, PORTS)
    assert "x: float32 [N, 3]; k: int64 [N]" in caught.value.fix


def test_files_that_are_no_npz(tmp_path: Path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:60])
    for name in ("absent.npz", "text.npz", "empty.npz", "one.npy", "pickled.npz", "cut.npz"):
        with pytest.raises(InputError, match=name) as caught:
            samples.load_npz(tmp_path / name)
        assert "numpy.savez" in caught.value.fix


def test_an_absent_npz_is_said_in_words(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        samples.load_npz(tmp_path / "absent.npz")
    assert caught.value.problem == (
        f"{tmp_path / 'absent.npz'} cannot be read as an .npz file: No such file or directory."
    )


def test_a_damaged_npz_is_an_input_error(tmp_path: Path):
    """Every byte in turn is damaged: zipfile and zlib have many words for it."""
    np.savez_compressed(tmp_path / "in.npz", x=np.arange(20.0))
    whole = (tmp_path / "in.npz").read_bytes()
    causes = set()
    for place in range(len(whole)):
        for flip in (0x01, 0x0E, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            (tmp_path / "damaged.npz").write_bytes(damaged)
            try:
                samples.load_npz(tmp_path / "damaged.npz")
            except InputError as error:
                causes.add(type(error.__cause__))
    assert {zlib.error, NotImplementedError, RuntimeError} <= causes
