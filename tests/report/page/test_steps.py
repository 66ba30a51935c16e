"""What a page shows of the steps after a fold."""

from __future__ import annotations

import pytest

from bnfold.pipeline.steps import Done
from bnfold.report.page import figures, html, plots
from bnfold.report.record import plain
from tests.report.sample_page import sample
from tests.report.terminal.test_steps import converted

MOVED = {"operator": "Conv", "moved": 1, "channels": 4, "bits_before": 2.0, "bits_after": 1.0}


def test_half_precision_is_shown_with_what_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a record as JSON has it: an infinity is null there."""
    monkeypatch.setattr(plots, "_both", lambda *_: plots.Plot("wide", "narrow"))
    view = sample(3, steps=[plain(converted(2))])
    [step] = view["steps"]
    assert [(one["value"], one["reach"], one["outcome"]) for one in step["out_of_range"]] == [
        ("a", "1e+05", "its nodes stay in float32"),
        ("b", "5e+04", "scaled by powers of two"),
        ("[c]", "infinity", "its nodes stay in float32"),
        ("d", "1e-06", "nothing; it loses digits"),
    ]
    page = html.render(view)
    assert "Tensors out of range (4) as a table" in page
    assert "Nodes in float32 (2) as a table" in page
    assert "<td>it was asked for</td>" in page
    assert "<td>&#39;a&#39;, computed by Conv conv, reaches 1e+05</td>" in page
    assert "<td>an input</td>" in page


@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        ("", "–"),
        ("is an output of the model", "its output is an output of the model"),
        ("Clip does not let a scale through", "Clip does not let a scale through"),
    ],
)
def test_what_stopped_a_layer_is_a_clause(stopped: str, said: str) -> None:
    layers = [{"layer": "conv", "stopped": stopped, **MOVED}]
    view = figures.step(plain(Done("equalize", "Equalised.", {"layers": layers})))
    assert [one["stopped"] for one in view["layers"]] == [said]
    assert not view["kept"]
