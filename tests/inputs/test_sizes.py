"""The sizes that a model is tried at are as many and as different as it accepts."""

from __future__ import annotations

import pytest

from bnfold.errors import InputError, ModelError
from bnfold.inputs import sizes
from bnfold.inputs.sizes import Sizing
from bnfold.runtime.interface import Port


def anything(_feeds: object) -> None:
    """A model that accepts everything."""


def only(accepts):
    """A model that accepts the inputs of which `accepts` is true."""

    def run(feeds):
        if not accepts(feeds):
            raise ModelError("wrong size")

    return run


IMAGE = Port("x", "float32", ("N", 3, "H", "W"))


def tried(ports: Port | list[Port], run=anything) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of every sizing, by input."""
    ports = [ports] if isinstance(ports, Port) else ports
    drawn = [sizes.draw(ports, sizing, seed=0) for sizing in sizes.sizings(ports, run, 0)]
    return [{name: array.shape for name, array in feeds.items()} for feeds in drawn]


def shapes(port: Port, run=anything) -> list[tuple[int, ...]]:
    return [one[port.name] for one in tried(port, run)]


def notes(port: Port, run) -> list[str]:
    return list(sizes.notes([port], sizes.sizings([port], run, 0)))


def test_three_batches_and_a_picture_that_is_not_square():
    assert shapes(IMAGE) == [(1, 3, 64, 64), (3, 3, 96, 128), (2, 3, 64, 64)]
    assert notes(IMAGE, anything) == []


def test_static_shapes_are_not_tried_beforehand():
    def forbidden(_feeds):
        raise AssertionError("nothing to choose")

    assert shapes(Port("x", "float32", (2, 3)), forbidden) == [(2, 3)]


def test_a_batch_alone():
    assert shapes(Port("x", "float32", ("N", 5))) == [(1, 5), (3, 5), (2, 5)]


def test_a_size_alone():
    assert shapes(Port("x", "float32", (1, 3, "H", "W"))) == [(1, 3, 64, 64), (1, 3, 96, 128)]
    assert shapes(Port("x", "float32", (1, 3, 224, "W"))) == [(1, 3, 224, 64), (1, 3, 224, 96)]


def test_channels_that_stand_last():
    port = Port("x", "float32", ("N", "H", "W", 3))
    assert shapes(port) == [(1, 64, 64, 3), (3, 96, 128, 3), (2, 64, 64, 3)]
    volume = Port("x", "float32", (1, None, None, None, 2))
    assert shapes(volume) == [(1, 64, 64, 64, 2), (1, 96, 96, 128, 2)]


def test_one_symbol_one_size():
    ports = [Port("x", "int64", ("N", "L")), Port("m", "bool", ("N", "L")), Port("t", "float32", ("L", "N"))]
    for found in tried(ports):
        assert found["x"] == found["m"] == found["t"][::-1]
    assert shapes(Port("x", "float32", (1, 3, "S", "S"))) == [(1, 3, 64, 64), (1, 3, 96, 96)]


def test_unnamed_dimensions_are_independent_and_varied():
    ports = [Port("x", "float32", (None, 3, None)), Port("z", "float32", (None, 2))]
    assert [found["x"] for found in tried(ports)] == [(1, 3, 64), (3, 3, 96), (2, 3, 64)]


def test_a_network_that_wants_one_resolution():
    run = only(lambda f: f["x"].shape[2:] == (224, 224))
    assert shapes(IMAGE, run) == [(1, 3, 224, 224), (3, 3, 224, 224), (2, 3, 224, 224)]
    assert notes(IMAGE, run) == [
        "The dynamic dimension H was tried at the size 224 only.",
        "The dynamic dimension W was tried at the size 224 only.",
    ]


def test_a_network_that_wants_squares():
    run = only(lambda f: f["x"].shape[2] == f["x"].shape[3])
    assert shapes(IMAGE, run) == [(1, 3, 64, 64), (3, 3, 96, 96), (2, 3, 64, 64)]


def test_a_network_that_halves_many_times():
    run = only(lambda f: all(size % 64 == 0 for size in f["x"].shape[2:]))
    assert shapes(IMAGE, run)[1] == (3, 3, 128, 64)


def test_a_last_resort_that_is_the_smallest():
    run = only(lambda f: max(f["x"].shape[2:]) <= 16 and min(f["x"].shape[2:]) < 16)
    assert shapes(IMAGE, run)[:2] == [(1, 3, 8, 8), (3, 3, 16, 8)]


def test_a_network_with_a_longest_sequence():
    port = Port("x", "float32", (1, "L"))
    assert shapes(port, only(lambda f: f["x"].shape[1] <= 77)) == [(1, 64), (1, 32)]


def test_a_network_that_wants_one_batch_size():
    run = only(lambda f: f["x"].shape[0] == 1)
    assert shapes(IMAGE, run) == [(1, 3, 64, 64), (1, 3, 96, 128)]
    assert notes(IMAGE, run) == ["The dynamic dimension N was tried at the size 1 only."]


def test_a_batch_and_a_size_that_do_not_go_together():
    run = only(lambda f: f["x"].shape[0] == 1 or f["x"].shape[2] == 64)
    assert shapes(IMAGE, run) == [(1, 3, 64, 64), (1, 3, 96, 128), (3, 3, 64, 64), (2, 3, 64, 64)]


def test_dynamic_channels_are_found():
    port = Port("x", "float32", ("N", "C", 8, 8))
    found = shapes(port, only(lambda f: f["x"].shape[1] == 4))
    assert found == [(1, 4, 8, 8), (3, 4, 8, 8), (2, 4, 8, 8)]


def test_a_small_vocabulary():
    port = Port("x", "int64", ("N", 50))
    (first, *_) = sizes.sizings([port], only(lambda f: f["x"].max() < 2), 0)
    assert first.ceiling == 2


def test_an_accepted_ceiling_is_accepted_whole():
    """Two numbers below 100 are often both below 90; the probe holds the largest all the same."""
    port, model = Port("x", "int64", (2,)), only(lambda f: f["x"].max() < 90)
    assert {sizes.sizings([port], model, seed)[0].ceiling for seed in range(20)} == {2}
    assert sizes.sizings([Port("x", "int64", (0,))], anything, 0) == [Sizing()]


def test_nothing_is_accepted():
    with pytest.raises(InputError, match=r"rejects all values .*wrong size") as caught:
        sizes.sizings([IMAGE], only(lambda _: False), 0)
    assert "--inputs" in caught.value.fix


def test_a_width_follows_the_length_unless_it_is_told():
    assert Sizing(length=5).of("width") == 5
    assert Sizing(length=5, width=7).of("width") == 7
