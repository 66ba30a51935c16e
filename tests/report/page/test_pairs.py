"""The pages of `validate`, `bench` and `fold`: those parts of an export's page that are theirs."""

from __future__ import annotations

from typing import Any

import pytest

from bnfold.report.page import html, plots
from bnfold.report.page import view as views
from tests.report.page.test_html import Tree
from tests.report.page.test_view import tile
from tests.report.sample_page import record, row, sample, timings, validation


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_both", lambda *_: plots.Plot("<svg></svg>", "<svg></svg>"))


def pair(**changes: Any) -> dict[str, Any]:
    """The document of a command with two models."""
    whole = record(3)
    file = whole["source"]
    kept = {key: whole[key] for key in ("versions", "environment")}
    models = {
        "original": file | {"path": "in/model.onnx"},
        "folded": file | {"path": "model.folded.onnx", "bytes": 1_400_000},
    }
    return kept | models | changes


def compared(**changes: Any) -> views.View:
    given = validation(6) | changes
    for layer in given["layers"]:
        layer["agrees"] = layer["fold_error"] <= layer["bound"]
    document = pair(command="validate", validation=given)
    return views.of_validation(document, command="bnfold validate a b")


def timed(*rows: dict[str, Any], **changes: Any) -> views.View:
    benchmark = record(3)["benchmarks"][0] | {"rows": list(rows)} | changes
    for model in ("original", "folded"):
        benchmark[model] = benchmark[model] | {"nodes": 20 if model == "original" else 15}
    document = pair(command="bench", benchmarks=[benchmark])
    times = [timings(len(rows))]
    return views.of_benchmarks(document, command="bnfold bench a b", times=times, threshold=0.03)


def test_a_comparison_has_its_verdict_its_counts_and_both_files() -> None:
    shown = compared()
    assert [part["name"] for part in shown["parts"]] == ["error", "evidence"]
    assert shown["title"] == "model.onnx → model.folded.onnx"
    assert shown["verdict"]["heading"] == "Agrees with the original"
    assert tile(shown, "Outputs that agree")["after"] == "1 of 1"
    assert tile(shown, "Inner values that agree")["after"] == "5 of 6"
    assert [tile(shown, "File size")[key] for key in ("before", "after")] == ["1.5", "1.4 MB"]
    assert [file["role"] for file in shown["evidence"]["files"]] == ["Original", "Folded"]
    assert Tree(html.render(shown)).open == []


def test_outputs_that_disagree_are_counted_once_each() -> None:
    wrong = validation(6)["checks"]
    wrong[0] |= {"passed": False, "problem": "Off."}
    wrong[1] |= {"passed": False, "problem": "Off, too.", "output": "other", "excused": True}
    shown = compared(passed=False, checks=wrong)
    assert (tile(shown, "Outputs that agree")["after"], shown["verdict"]["state"]) == ("1 of 2", "bad")


@pytest.mark.parametrize(
    ("verdicts", "heading", "state"),
    [
        (("faster", "faster"), "Faster on CPU", "good"),
        (("slower", "faster"), "Slower in part", "bad"),
        (("no measurable difference",), "No measurable difference on CPU", "none"),
        (("too noisy to say",), "Too noisy to say on CPU", "warn"),
    ],
)
def test_a_latency_begins_with_what_is_faster(verdicts: tuple[str, ...], heading: str, state: str) -> None:
    rows = [row("default", verdict=verdict, batch=at + 1) for at, verdict in enumerate(verdicts)]
    shown = timed(*rows, row("off", verdict="slower"))
    assert (shown["verdict"]["heading"], shown["verdict"]["state"]) == (heading, state)
    assert [part["name"] for part in shown["parts"]] == ["latency", "evidence"]
    assert shown["tiles"][0]["label"] == "Speed on CPU"
    assert [tile(shown, "Nodes")[key] for key in ("before", "after")] == ["20", "15"]


def test_a_page_of_latency_is_whole() -> None:
    text = html.render(timed(row("default"), row("off")))
    assert Tree(text).open == []
    assert text.index('<th scope="col">Verdict</th>') < text.index("Original, ms"), "first of all"
    assert "BatchNorm" not in text.partition("</style>")[2].partition("<script>")[0]


def test_several_numbers_of_threads_are_told_apart() -> None:
    shown = timed(row("default", threads=1), row("default", threads=4), row("off", threads=4))
    settings = [one["setting"] for one in shown["latency"][0]["rows"]]
    assert settings == ["default, 1 thread", "default, 4 threads", "off, 4 threads"]


def test_a_fold_shows_what_a_fold_knows() -> None:
    shown = sample(3, command="fold", validation=None, benchmarks=[], graphs=None)
    assert [part["name"] for part in shown["parts"]] == ["sites", "ranges", "evidence"]
    text = html.render(shown)
    assert "Not compared" in text
    assert "not run against each other" not in text
    assert Tree(text).open == []


def test_why_there_is_no_graph_is_said() -> None:
    assert "were not compared: it is not installed." in html.render(
        sample(3, graphs=None, no_graphs="it is not installed")
    )
