"""The tables of the steps after a fold."""

from __future__ import annotations

import math

from rich.console import Console, Group

from bnfold.pipeline.steps import Done
from bnfold.report.terminal.steps import steps

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


def shown(*, verbose: bool) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as said:
        console.print(Group(*steps([QUANTISED], verbose=verbose)))
    return said.get()


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
