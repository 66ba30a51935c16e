"""`--dynamic`: what it says, which axes it means, and which sizes are tried."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from bnfold.errors import InputError  # noqa: E402
from bnfold.torch.export.open_sizes import (  # noqa: E402
    OpenSize,
    assign,
    open_for_tracing,
    other_sizes,
    parse_dynamic,
    resized,
)

INPUTS = {"x": torch.zeros(1, 3, 8, 6), "mask": torch.zeros(1, 8), "scale": torch.tensor(1.0)}


def test_parse() -> None:
    assert parse_dynamic(["batch", "2=height", "x:-1=width", " b "]) == (
        OpenSize(None, 0, "batch"),
        OpenSize(None, 2, "height"),
        OpenSize("x", -1, "width"),
        OpenSize(None, 0, "b"),
    )


@pytest.mark.parametrize("text", ["", "x:2", "x:=h", "x:h", "2=", "=h", "x.y:2=h", "2=3", "x:2=h w"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InputError, match="does not name a size") as caught:
        parse_dynamic([text])
    assert "x:2=height" in caught.value.fix


def test_axes_that_are_meant() -> None:
    assert assign(parse_dynamic(["batch"]), INPUTS) == {"x": {0: "batch"}, "mask": {0: "batch"}, "scale": {}}
    found = assign(parse_dynamic(["x:2=h", "mask:1=h", "3=w"]), INPUTS)
    assert found == {"x": {2: "h", 3: "w"}, "mask": {1: "h"}, "scale": {}}
    assert assign(parse_dynamic(["x:-1=w"]), INPUTS)["x"] == {3: "w"}


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["y:0=batch"], "no input 'y'"),
        (["x:4=deep"], "x has no axis 4"),
        (["4=deep"], "No input has an axis 4"),
        (["scale:0=batch"], "scale has no axis 0"),
        (["batch", "x:0=n"], "both batch and n"),
        (["x:2=h", "x:3=h"], "both 8 and 6"),
    ],
)
def test_axes_that_contradict(texts: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        assign(parse_dynamic(texts), INPUTS)


def test_sizes_of_one_are_doubled_for_tracing() -> None:
    sizes = assign(parse_dynamic(["batch", "x:2=h"]), INPUTS)
    opened = open_for_tracing(INPUTS, sizes)
    assert {name: tuple(x.shape) for name, x in opened.items()} == {
        "x": (2, 3, 8, 6), "mask": (2, 8), "scale": ()
    }  # fmt: skip


def test_resized_repeats_and_cuts() -> None:
    x = torch.arange(6).reshape(2, 3)
    assert resized(x, {0: 3, 1: 2}).tolist() == [[0, 1], [3, 4], [0, 1]]
    assert resized(x, {}) is x


def test_other_sizes_change_every_axis_of_the_name_and_no_other() -> None:
    inputs = {"x": torch.zeros(2, 3, 8), "y": torch.zeros(2, 8)}
    found = list(other_sizes(inputs, {"x": {0: "batch", 2: "n"}, "y": {0: "batch", 1: "n"}}))
    assert [name for name, _ in found] == ["batch", "batch", "n", "n"]  # a larger and a smaller one each
    assert found[0][1][0][0] == 3
    assert found[1][1][0][0] == 1
    for name, tries in found:
        for length, given in tries:
            shapes = [tuple(one.shape) for one in given.values()]
            assert shapes == (
                [(length, 3, 8), (length, 8)] if name == "batch" else [(2, 3, length), (2, length)]
            )
            assert length >= 1
            assert length != (2 if name == "batch" else 8)
