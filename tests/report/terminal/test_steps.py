"""The tables of the steps after a fold."""

from __future__ import annotations

import math
import re

import pytest
from rich.console import Console, Group

from bnfold.files.load import from_proto
from bnfold.pipeline.steps import Done, Equalize
from bnfold.report.terminal.steps import steps
from tests.graphs import build, weight

LAYERS = [
    {"layer": "stem", "operator": "Conv", "weight": 40.7, "sqnr": 35.12, "added": 15.0},
    {"layer": "[fc]", "operator": "Gemm", "weight": 47.0, "sqnr": 28.2, "added": 1.4},
    {"layer": "exact", "operator": "Conv", "weight": math.inf, "sqnr": math.nan, "added": 0.0},
]
QUANTISED = Done(
    "int8",
    "2 layers in int8.",
    {"after": {"sqnr": 28.0}, "layers": LAYERS, "leave": [{"layer": "stem", "gain": 2.66}]},
    passed=True,
)


def tensor(name: str, node: str, **other: object) -> dict[str, object]:
    base = {"operator": "Conv", "largest": 1e5, "side": "above", "limit": 65504.0, "dtype": "float16"}
    return {"value": name, "node": node, **base, **other}


def converted(nodes: int, *, passed: bool = True) -> Done:
    """A conversion that keeps so many nodes in float32, the first of them for a tensor out of range."""
    why = ["'a', computed by Conv conv, reaches 1e+05", *["it was asked for"] * (nodes - 1)]
    details = {
        "precision": "float16",
        "out_of_range": [
            tensor("a", "conv"),
            tensor("b", "relu", largest=5e4),
            tensor("[c]", "", largest=math.inf),
            tensor("d", "mul", largest=1e-6, side="below", limit=6.1e-5),
        ],
        "repaired": ["b"],
        "kept": [
            {"node": "conv" if not at else f"n{at}", "operator": "Conv", "why": one}
            for at, one in enumerate(why)
        ],
    }
    return Done("precision", "Converted.", details, passed)


def shown(done: Done = QUANTISED, *, verbose: bool) -> str:
    console = Console(width=160, no_color=True)
    with console.capture() as said:
        console.print(Group(*steps([done], verbose=verbose)))
    return said.get()


def cells(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def test_the_noise_of_every_layer_is_shown_when_all_is_asked_for() -> None:
    rows = [line.split() for line in shown(verbose=True).splitlines() if line.strip()]
    assert rows[0][:3] == ["Signal", "to", "noise"]
    head = [
        "node",
        "operator",
        "its",
        "weight",
        "its",
        "output",
        "lost",
        "there",
        "output",
        "with",
        "--leave",
    ]
    assert rows[1] == head
    assert rows[2] == ["stem", "Conv", "40.7", "dB", "35.1", "dB", "15.0", "dB", "+2.7", "dB"]
    assert rows[3] == ["[fc]", "Gemm", "47.0", "dB", "28.2", "dB", "1.4", "dB", "–"]
    assert rows[4] == ["exact", "Conv", "no", "noise", "–", "0.0", "dB", "–"]


def test_else_the_answer_alone_says_what_eight_bits_cost() -> None:
    assert not shown(verbose=False).strip()


@pytest.mark.parametrize("passed", [True, False])
def test_what_half_precision_did_about_each_tensor_and_node(passed: bool) -> None:
    rows = cells(shown(converted(2, passed=passed), verbose=True))
    assert rows == [
        ["Tensors out of the range of float16:"],
        ["tensor", "node", "operator", "reaches", "the type holds", "what was done"],
        ["a", "conv", "Conv", "1e+05", "up to 65504", "its nodes stay in float32"],
        ["b", "relu", "Conv", "5e+04", "up to 65504, but half is kept spare", "scaled by powers of two"],
        ["[c]", "(an input)", "Conv", "infinity", "up to 65504", "its nodes stay in float32"],
        ["d", "mul", "Conv", "1e-06", "all digits from 6.1e-05", "nothing; it loses digits"],
        ["Nodes in float32:"],
        ["node", "operator", "why it stays in float32"],
        ["conv", "Conv", "'a', computed by Conv conv, reaches 1e+05"],
        ["n1", "Conv", "it was asked for"],
    ]


def test_of_many_nodes_in_float32_eight_are_shown() -> None:
    short, whole = (shown(converted(30), verbose=verbose) for verbose in (False, True))
    assert "… and 22 more (-v shows them)" in short
    assert ("n7 " in short, "n8 " in short, "n29 " in whole, "more" in whole) == (True, False, True, False)
    assert short.count("it was asked for") == 7


def held_by_clip(layers: int) -> Done:
    """Convolutions with a Clip after each but the last: only the last one's reason is another."""
    names = ["x", *(f"r{at}" for at in range(layers - 1)), "y"]
    nodes = [
        f"[conv{at}] c{at} = Conv ({names[at]}, w{at})\n [clip{at}] {names[at + 1]} = Clip (c{at}, low, high)"
        for at in range(layers - 1)
    ]
    nodes.append(f"[conv{layers - 1}] y = Conv ({names[-2]}, w{layers - 1})")
    model = build(
        f"g (float[2,4,5,5] x, float low, float high) => (float[2,4,5,5] y) {{ {' '.join(nodes)} }}",
        {f"w{at}": weight(4, 4, 1, 1, seed=at) for at in range(layers)},
    )
    return Equalize()(from_proto(model), None)[1]


def test_why_nothing_can_be_equalised_is_said_and_all_reasons_are_shown_when_asked_for() -> None:
    done = held_by_clip(2)
    assert done.sentence == (
        "Nothing to equalise: no channel gains by it, and 2 of 2 layers are held, first 'conv0', because Clip"
        " does not let a scale through."
    )
    assert [[row[0], row[-1]] for row in cells(shown(done, verbose=True))[1:]] == [
        ["layer", "stopped by"],
        ["conv0", "Clip does not let a scale through"],
        ["conv1", "its output is an output of the model"],
    ]
    assert "stopped by" not in shown(done, verbose=False)
    one = held_by_clip(1)
    assert (
        "1 of 1 layer is held, first 'conv0', because its output is an output of the model." in one.sentence
    )


def test_why_a_layer_takes_no_part_is_shown() -> None:
    model = build("g (float[2,4] x, float[4,4] w) => (float[2,4] y) { [fc] y = Gemm (x, w) }", {})
    done = Equalize()(from_proto(model), None)[1]
    assert done.sentence.startswith(
        "Nothing to equalise: no weight can be scaled, first 'fc', because the weight"
    )
    assert cells(shown(done, verbose=True))[2][:3] == ["fc", "–", "–"]
