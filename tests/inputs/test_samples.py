"""Random inputs are seeded, of every kind, and those that prove nothing are left out."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.errors import InputError, ModelError
from bnfold.inputs import samples
from bnfold.inputs.values import KINDS
from bnfold.runtime.interface import Port, as_ir, interface
from tests.graphs import build, run


def anything(_feeds: object) -> None:
    """A model that accepts everything."""


def only(accepts):
    """A model that accepts the inputs of which `accepts` is true, and gives them back."""

    def run(feeds):
        if not accepts(feeds):
            raise ModelError("wrong size")
        return list(feeds.values())

    return run


IMAGE = Port("x", "float32", ("N", 3, "H", "W"))
VECTOR = Port("x", "float32", (1, 5))
CODES = Port("k", "int64", (20,))


def test_same_seed_same_samples():
    one, two, other = (samples.choose([VECTOR], anything, count=2, seed=seed).feeds for seed in (1, 1, 2))
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
        assert not np.array_equal(a["x"], c["x"])
    assert not np.array_equal(one[0]["x"], one[1]["x"])


def test_one_of_each_kind():
    chosen = samples.choose([VECTOR], anything)
    assert chosen.labels == tuple(f"{kind} 1×5" for kind in KINDS)
    assert chosen.notes == ()
    _, uniform, zeros, ones, large, tiny = (feeds["x"] for feeds in chosen.feeds)
    assert (uniform >= 0).all()
    assert set(zeros.flat) | set(ones.flat) == {0, 1}
    assert np.abs(large).max() > 100 > 0.01 > np.abs(tiny).max()
    assert samples.choose([VECTOR], anything, count=1).labels == ("normal 1×5",)


def test_more_samples_are_new_ones_of_the_same_kinds():
    chosen = samples.choose([VECTOR], anything, count=8)
    assert chosen.labels[6:] == ("normal 1×5", "uniform 1×5")
    assert not np.array_equal(chosen.feeds[0]["x"], chosen.feeds[6]["x"])


def test_sizes_alternate_and_each_kind_comes_at_each():
    labels = samples.choose([IMAGE], anything, count=36).labels
    assert labels[:6] == (
        "normal 1×3×64×64",
        "uniform 3×3×65×65",
        "zeros 1×3×1×1",
        "ones 2×3×1×1",
        "large 2×3×96×65",
        "tiny 2×3×65×96",
    )
    assert len(set(labels)) == 36


def test_fewer_samples_are_asked_for_than_there_are_sizes():
    for count in range(1, 6):
        assert len(samples.choose([IMAGE], anything, count=count).feeds) == count


def test_one_sample_needs_no_search_for_other_sizes():
    runs = []
    samples.choose([IMAGE], lambda feeds: runs.append(feeds), count=1)
    assert len(runs) == 2  # the size is tried, and the sample is run


def test_more_sizes_than_kinds_are_all_used():
    model = build(
        """g (float[N,3,H,W] x, int64 rate) => (float[N,3,H,W] y) {
            is = Equal(rate, known) number = Cast<to = 1>(is) y = Add(x, number)
        }""",
        {"known": np.array(16000)},
    )
    ports = interface(as_ir(model)).inputs
    chosen = samples.choose(ports, lambda feeds: run(model, feeds), model=as_ir(model))
    assert [int(feeds["rate"]) for feeds in chosen.feeds] == [16000] * 6 + [8000]


def test_what_was_covered_is_data():
    ports = [IMAGE, CODES]
    chosen = samples.choose(ports, only(lambda f: f["x"].shape[2] % 2 == 0 and len(f["x"]) == 1))
    batch, height, width = chosen.dimensions
    assert (batch.symbol, batch.sizes, batch.rejected) == ("N", (1,), (2, 3))
    assert (height.symbol, height.odd) == ("H", ())
    assert set(height.even) >= {2, 64}
    assert 65 in height.rejected
    assert width.odd
    assert width.even
    assert batch.gap == "The dynamic dimension N was tried at the size 1 only."
    assert (height.gap or "").startswith("The dynamic dimension H was tried at even sizes only: 2, 64")
    assert width.gap is None
    assert chosen.notes == ()
    (codes,) = chosen.integers
    assert (codes.name, codes.low, codes.high) == ("k", 0, 99)


def test_the_same_seed_gives_the_same_sizes():
    one, two = (samples.choose([IMAGE], anything, seed=3) for _ in range(2))
    assert (one.labels, one.dimensions) == (two.labels, two.dimensions)


def test_labels_of_several_inputs():
    ports = [VECTOR, Port("k", "bool", ())]
    assert samples.choose(ports, anything, count=1).labels == ("normal x 1×5, k scalar",)


def test_a_kind_that_the_model_rejects_is_left_out():
    chosen = samples.choose([CODES], only(lambda f: f["k"].any()))
    assert [label.split()[0] for label in chosen.labels] == [kind for kind in KINDS if kind != "zeros"]
    assert chosen.notes == ("The sample zeros 20 was left out: the model rejects it. wrong size",)


def test_a_kind_that_gives_nothing_finite_is_left_out():
    def inverse(feeds):
        with np.errstate(divide="ignore"):
            return [feeds["x"], {"inverse": [1 / feeds["x"], None]}]

    chosen = samples.choose([VECTOR], inverse)
    assert "zeros 1×5" not in chosen.labels
    assert len(chosen.labels) == len(chosen.feeds) == len(chosen.outputs) == 5
    assert chosen.notes == ("The sample zeros 1×5 was left out: the original gives no finite value for it.",)


def test_one_finite_value_is_enough_and_no_value_is_too():
    def mostly_nan(_feeds):
        return [np.array([np.nan, 1.0]), np.zeros((0, 3)), np.array(["nan"]), np.array([7])]

    assert samples.choose([VECTOR], mostly_nan).labels == samples.choose([VECTOR], anything).labels


def test_a_model_that_gives_nothing_finite_at_all_keeps_its_samples():
    def broken(feeds):
        if feeds["x"].max() > 100:
            raise ModelError("too large")
        return [np.full(3, np.nan)]

    chosen = samples.choose([VECTOR], broken, seed=1)
    assert len(chosen.feeds) == 5
    assert [note.split()[2] for note in chosen.notes] == ["large"]


def test_samples_that_are_all_rejected_ask_for_real_inputs():
    with pytest.raises(InputError, match=r"random input .* wrong size") as caught:
        samples.choose([VECTOR], only(lambda _: False))
    assert "--inputs FILE.npz" in caught.value.fix
    with pytest.raises(InputError, match=r"rejects all values"):
        samples.choose([IMAGE], only(lambda _: False))


def test_nothing_is_run_twice():
    runs = []

    def run(feeds):
        runs.append(feeds)
        return [feeds["x"] + 1]

    chosen = samples.choose([VECTOR], run)
    for label, feeds, (output,) in chosen.each(run):
        assert label in chosen.labels
        np.testing.assert_array_equal(output, feeds["x"] + 1)
    assert len(runs) == len(KINDS)


def test_outputs_that_are_too_large_to_keep_are_computed_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(samples, "_KEPT_BYTES", 2 * 5 * 4 + 1)  # two outputs of five float32
    run = only(lambda _: True)
    chosen = samples.choose([VECTOR], run)
    assert [outputs is not None for outputs in chosen.outputs] == [True, True, *[False] * 4]
    for _, feeds, (output,) in chosen.each(run):
        np.testing.assert_array_equal(output, feeds["x"])


def test_a_drawn_sample_that_is_rejected_asks_for_real_inputs():
    assert samples.run_drawn(len, {}) == 0
    with pytest.raises(InputError, match=r"random input .* wrong size") as caught:
        samples.run_drawn(only(lambda _: False), {})
    assert "--inputs FILE.npz" in caught.value.fix


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
