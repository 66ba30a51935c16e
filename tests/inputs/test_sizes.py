"""What a sample is drawn with: every dimension has its role, and integers suit what they are used for."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.inputs import sizes
from bnfold.inputs.sizes import Sizing
from bnfold.inputs.uses import Use
from bnfold.inputs.values import KINDS
from bnfold.runtime.interface import Port


def drawn(port: Port, use: Use, kind: str = "normal", **sizing: int) -> np.ndarray:
    return sizes.draw([port], Sizing(**sizing), seed=0, kind=kind, uses={port.name: use})[port.name]


def test_a_width_follows_the_length_unless_it_is_given():
    assert Sizing(length=5).of("width") == 5
    assert Sizing(length=5, width=7).of("width") == 7


def test_a_state_has_the_batch_in_the_middle():
    state, audio = Port("h", "float32", (2, "?", 128)), Port("x", "float32", ("N", "T"))
    assert sizes.roles([audio, state]) == {"N": "batch", "T": "length", "?": "batch"}
    assert sizes.roles([state]) == {"?": "channels"}  # nothing else has a batch


@pytest.mark.parametrize("kind", KINDS)
def test_indices_reach_every_row_of_their_table_and_none_after_it(kind: str):
    found = set(drawn(Port("k", "int64", (500,)), Use(table=7), kind).flat)
    expected = {"zeros": {0}, "ones": {1}, "large": {6}, "tiny": {0, 1}}
    assert found == expected.get(kind, set(range(7)))


def test_a_table_of_one_row():
    for kind in ("normal", "uniform", "large", "zeros"):
        assert set(drawn(Port("k", "int64", (9,)), Use(table=1), kind)) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_tensors_are_from_one_to_the_extent(kind: str):
    found = set(drawn(Port("k", "int32", (200,)), Use(sizes=True), kind, extent=4).flat)
    expected = {"zeros": {1}, "ones": {1}, "large": {4}, "tiny": {1, 2}}
    assert found == expected.get(kind, {1, 2, 3, 4})


def test_masks_are_ones_or_begin_with_ones():
    port = Port("attention_mask", "int64", (50, 8))
    for kind in KINDS:
        mask = drawn(port, Use(mask=True), kind)
        assert mask[:, 0].all()
        assert (np.diff(mask, axis=1) <= 0).all()
        assert mask.all() == (kind != "uniform")


def test_steps_are_not_more_than_the_sequence_has():
    port = Port("lengths", "int32", (40,))
    for kind in KINDS:
        steps = drawn(port, Use(steps=True), kind, length=9)
        assert steps.max() == 9
        assert steps.min() >= 1
        assert (len(set(steps)) > 1) == (kind == "uniform")


@pytest.mark.parametrize(("choice", "number"), [(0, 16000), (1, 5), (2, 8000)])
def test_each_choice_and_one_that_is_none_of_them(choice: int, number: int):
    rate = drawn(Port("sr", "int64", ()), Use(choices=(16000, 5)), choice=choice)
    assert rate == number


def test_another_number_than_zero_or_one():
    assert drawn(Port("k", "int64", ()), Use(choices=(0,)), choice=1) == 1
    assert drawn(Port("k", "int64", ()), Use(choices=(0, 1)), choice=2) == 2


def test_the_extreme_holds_what_other_samples_may_hold():
    ports = [Port("k", "int64", (3,)), Port("t", "int64", (3,)), Port("s", "int64", (3,))]
    uses = {"t": Use(table=7), "s": Use(sizes=True)}
    sizing = Sizing(extent=8)
    feeds = sizes.extreme(sizes.draw(ports, sizing, seed=0, uses=uses), ports, sizing, uses)
    assert (feeds["k"][0], feeds["t"][0]) == (99, 6)
    assert set(feeds["s"]) == {8}
