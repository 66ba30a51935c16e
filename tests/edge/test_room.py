"""How far channels move before a number loses a bit: to the ends of its type and no farther."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.edge.channels import Channels
from bnfold.edge.measure import Measured
from bnfold.edge.room import Room
from bnfold.graph.facts import Facts
from tests.graphs import build

PAIR = "a = Conv (x, w1, b1) y = Conv (a, w2)"
STREAM = "a = Conv (x, w1) b = Conv (a, w2) s = Add (a, b) y = Conv (s, w3)"
ONES = np.ones((2, 2, 1, 1), np.float32)


def room(
    text: str, constants: dict[str, np.ndarray], layer: int = 0
) -> tuple[list[list[int]], list[str | None]]:
    """How far 99 up and 99 down are let for the outputs of a layer, and what holds them."""
    model = build(f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {text} }}", constants)
    channels = Channels(Facts(ir.from_proto(model)))
    measured = [Measured.of(one, channels) for one in channels.layers]
    found = Room(channels, measured)
    own = measured[layer].outputs.reshape(-1)
    place = np.full(channels.classes.size, -1)
    place[own] = np.arange(len(own))
    tried = np.array([[99] * len(own), [-99] * len(own)])
    steps = np.zeros(channels.classes.size, np.int64)
    clipped = found.clipped(tried, own, measured, steps, place)
    return clipped.tolist(), channels.classes.why_fixed(own)


def at(row: int, column: int, exponent: int) -> np.ndarray:
    """Ones, with another power of two in one place."""
    weight = ONES.copy()
    weight[row, column] = 2.0**exponent
    return weight


@pytest.mark.parametrize(
    ("one", "two", "bias", "up", "down"),
    [
        # at most 2^126, and 2^24 above the smallest normal number, 2^-126
        (ONES, ONES, [1, 1], [99, 99], [-99, -99]),
        (at(0, 1, 100), ONES, [1, 1], [26, 99], [-99, -99]),
        (at(1, 0, -90), ONES, [1, 1], [99, 99], [-99, -13]),
        (ONES, at(0, 1, 100), [1, 1], [99, 99], [-99, -26]),  # what reads a channel moves the other way
        (ONES, at(1, 0, -90), [1, 1], [13, 99], [-99, -99]),
        (ONES, ONES, [2.0**60, 2.0**-60], [66, 99], [-99, -43]),
        (0 * ONES, 0 * ONES, [0, 0], [99, 99], [-99, -99]),
    ],
)
def test_room(one: np.ndarray, two: np.ndarray, bias: list[float], up: list[int], down: list[int]) -> None:
    constants = {"w1": one, "w2": two, "b1": np.array(bias, np.float32)}
    assert room(PAIR, constants) == ([up, down], [None, None])


def test_what_is_outside_is_held() -> None:
    for odd in (2.0**-110, 2.0**-140, 3e38, np.inf, np.nan):
        one = ONES.copy()
        one[1, 0] = odd
        constants = {"w1": one, "w2": ONES, "b1": np.ones(2, np.float32)}
        assert [bool(why) for why in room(PAIR, constants)[1]] == [False, True], odd
        assert all(room(PAIR, constants | {"w1": ONES, "w2": one})[1][:1]), odd
        assert all(room(PAIR, constants | {"w1": ONES, "b1": np.array([odd, 1], np.float32)})[1][:1]), odd


def test_both_sides_of_a_layer_share_its_room() -> None:
    """The second layer computes the channels that it reads: its weights move by the difference."""
    constants = {"w1": ONES, "w2": at(0, 1, 100), "w3": ONES}
    assert room(STREAM, constants)[0] == [[13, 63], [-63, -13]]
    constants["w2"] = at(1, 1, 100)  # and not at all on the diagonal
    assert room(STREAM, constants)[0] == [[51, 51], [-51, -51]]


def test_moves_so_far_count() -> None:
    model = build(
        f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {PAIR} }}",
        {"w1": at(0, 1, 100), "w2": ONES, "b1": np.ones(2, np.float32)},
    )
    channels = Channels(Facts(ir.from_proto(model)))
    measured = [Measured.of(one, channels) for one in channels.layers]
    found, own = Room(channels, measured), measured[0].outputs.reshape(-1)
    place, steps = np.full(channels.classes.size, -1), np.zeros(channels.classes.size, np.int64)
    place[own], steps[own] = (0, 1), (20, -80)
    tried = np.array([[99, 99], [-99, -99]])
    assert found.clipped(tried, own, measured, steps, place).tolist() == [[6, 99], [-99, -23]]
