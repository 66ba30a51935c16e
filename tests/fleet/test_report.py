"""What is said of the whole fleet: numbers, outliers, lines to type, and that every name is only text."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest

from bnfold.fleet import page, parquet, text
from bnfold.fleet.plan import Limits, Plan
from bnfold.fleet.progress import Progress, duration, prometheus
from bnfold.fleet.summary import Summary

NASTY = "s3://zoo/\x1b[2J<script>alert(1)</script>\n\u202e'.onnx"


def record(path: str = "net.onnx", state: str = "done", verdict: str | None = "folded", **others: Any) -> Any:
    blank = {"path": path, "command": "fold", "state": state, "verdict": verdict, "why": "", "size": 100}
    return {
        **blank,
        "options": {},
        "inputs": {},
        "measured": {},
        "content": None,
        "key": None,
        "output": None,
        **others,
    }


def summed(*records: Any, plan: Plan | None = None, again: str = "") -> Any:
    summary = Summary(plan or Plan("fold", "out"), again)
    for one in records:
        summary.add(one)
    return summary.report()


def test_numbers() -> None:
    pair = {"batchnorms": {"before": 3, "after": 1}, "nodes": {"before": 9, "after": 7}}
    report = summed(
        record("a", **pair, bytes={"before": 10, "after": 8}, reasons={"BN201": 1}),
        record("b", **pair, bytes={"before": 10, "after": None}, reasons={"BN101": 4, "BN201": 1}),
        record("c", "killed", None),
    )
    assert (report["models"], report["good"], report["states"]) == (3, 2, {"done": 2, "killed": 1})
    assert report["batchnorms"] == {"before": 6, "after": 2}
    assert report["bytes"] == {"before": 10, "after": 8}, "what has no size afterwards has none before"
    assert [(one["code"], one["models"], one["batchnorms"]) for one in report["reasons"]] == [
        ("BN201", 2, 2),
        ("BN101", 1, 4),
    ]


def test_outliers_are_far_from_what_is_usual() -> None:
    usual = [record(f"m{at}", size=100 + at) for at in range(20)]
    assert "largest" not in summed(*usual)["outliers"]
    [found] = summed(*usual, record("huge", size=1000))["outliers"]["largest"]
    assert found == {"path": "huge", "amount": 1000}


def test_a_line_repeats_one_model_alone() -> None:
    plan = Plan("export", "out", limits=Limits(30, 4 * 10**9))
    options = {"input-shape": ["1x3x8x8"], "no-merge": True, "arch-args": {"classes": 10}, "seed": 3}
    failed = record(
        "s3://zoo/my net.pt", "failed", None, command="export", options=options, inputs={"x": "Nx3"}
    )
    [failure] = summed(failed, plan=plan, again="--config a.toml")["failures"]
    assert failure["again"] == (
        "bnfold fleet export 's3://zoo/my net.pt' --out again --jobs 1"
        " --time-limit 30 --memory-limit 4000000000 --expect x=Nx3 --input-shape 1x3x8x8 --no-merge"
        " --arch-args '{\"classes\": 10}' --seed 3 --config a.toml"
    )


def test_a_line_for_a_model_that_needs_an_option() -> None:
    """With what it needs, in a pipe where its address would be a pattern, and on a quiet worker again."""
    asks = {"command": "export", "options": {"input-shape": ["1x<n>"]}}
    needing = record("s3://zoo/net[1].pt", "needs", None, next=asks, measured={"is_quiet": True})
    report = summed(needing, *(record(f"m{at}.pt", "needs", None, next=asks) for at in range(2)))
    assert (report["good"], report["failures"], len(report["needs"])) == (0, [], 3)
    assert report["needs"][0]["again"] == (
        "echo 's3://zoo/net[1].pt' | BNFOLD_FLEET_QUIET=1 bnfold fleet export - --out again --jobs 1"
        " --time-limit 600 --input-shape '1x<n>'"
    )
    assert report["needed"] == [{"options": "--input-shape '1x<n>'", "models": 3}]
    said = text.render(report).splitlines()
    assert said[0] == "3 models: 3 needing an option or another command."
    assert "       3  --input-shape '1x<n>'" in said


def test_what_a_run_did_itself() -> None:
    report = summed(record("a"), record("b"))
    assert text.render(report).splitlines()[-1].endswith("0 bytes fetched.")
    assert text.render(report, known=1).splitlines()[-1] == "Of this, 1 of 2 results were there before."
    assert text.render(report, known=2).splitlines()[-1] == "Nothing to do: all 2 results are there."


def test_failures_beyond_a_number_are_counted() -> None:
    report = summed(*(record(f"m{at:04}", "failed", None) for at in range(1003)))
    assert (len(report["failures"]), report["failures_left_out"]) == (1000, 3)
    assert "and 983 more in results.jsonl" in text.render(report)
    assert "and 3 more in results.jsonl" in text.render(report, most=None)


def found(code: str, severity: str) -> dict[str, Any]:
    return {"code": code, "severity": severity, "message": "it is", "sites": []}


def test_models_with_findings_are_listed_those_with_errors_first() -> None:
    """Each with the first of what counts, up to a number, and before the outliers."""
    pair = {"batchnorms": {"before": 3, "after": 0}, "command": "check", "verdict": "findings"}
    fold, note, error = found("M101", "warning"), found("M107", "note"), found("M201", "error")
    many = [record(f"m{at:04}", findings=[note, fold], **pair) for at in range(1001)]
    wrong = record("z", findings=[fold, note, error], size=1000, **pair)
    report = summed(*many, wrong, plan=Plan("check", "out"))
    assert (len(report["found"]), report["found_left_out"]) == (1000, 2)
    assert [(one["path"], one["why"]) for one in report["found"][:2]] == [
        ("z", "M201 it is, M101 it is"),
        ("m0000", "M101 it is"),
    ]
    said = text.render(report)
    assert "BatchNorms 3,006 → 0 if folded" in said
    assert "  z: M201 it is, M101 it is\n    bnfold fleet check z --out again" in said
    assert said.index("and 982 more in results.jsonl") < said.index("Outliers")


def test_what_a_check_does_not_look_for_is_in_the_first_line() -> None:
    known = {"command": "check", "verdict": "passed", "findings": []}
    unread = {**known, "verdict": "findings", "findings": [found("M302", "error")]}
    network = record("c.onnx", **known, batchnorms={"before": 0, "after": 0})
    report = summed(record("a.pt", **known), record("b.pt", **unread), network, plan=Plan("check", "out"))
    assert text.headline(report) == (
        "3 models: 2 passed, 1 with findings. 1 PyTorch file: BatchNorms not looked for; bnfold inspect does."
    )


def test_the_first_line_is_the_outcome() -> None:
    report = summed(record("a"), record("b", verdict="unchanged"), record("c", "slow", None))
    assert text.headline(report) == "3 models: 1 folded, 1 with nothing to fold, 1 that took too long."
    assert text.headline(summed()) == "0 models: none."


@pytest.mark.parametrize("render", [text.render, page.render], ids=["text", "page"])
def test_names_are_only_text(render: Any) -> None:
    if render is page.render:
        pytest.importorskip("jinja2")
    said = render(summed(record(NASTY, "failed", None, why=f"{NASTY} is strange"), record(size=10)))
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert render is text.render or "<script>" not in said
    assert "<script>alert(1)" in html.unescape(said)


def test_the_table_has_a_row_for_each(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow.parquet import read_table

    with parquet.Table(tmp_path / "results.parquet") as table:
        table.add(record("a", nodes={"before": 2, "after": 1}, reasons={"BN201": 1}))
        table.add(record("b", "killed", None, measured={"seconds": 1.5}))
    rows = read_table(tmp_path / "results.parquet").to_pylist()
    assert [(row["path"], row["state"], row["nodes_after"]) for row in rows] == [
        ("a", "done", 1),
        ("b", "killed", None),
    ]
    assert (rows[0]["reasons"], rows[1]["seconds"]) == (["BN201"], 1.5)


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress(4, known=1, begin=100.0)
    for size in (9_000_000, 0, 0):
        progress.expect(size)
    assert progress.remaining is None
    now[0] += 10
    progress.add("done", 9_000_000)
    assert (progress.done, progress.rate, progress.remaining) == (2, 0.1, 2.0), "the largest came first"
    progress.add("killed", 0)
    assert progress.sentence == "3 of 4 models, 1 failed, 0.2 a second, 1 s left"
    assert (duration(59.6), duration(61), duration(7322)) == ("1 min 0 s", "1 min 1 s", "2 h 2 min")


def test_prometheus_reads_it() -> None:
    """Each line is a comment, or a name with labels and a number."""
    progress = Progress(4)
    lines = prometheus(progress, "check").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("# "))
    assert values['bnfold_fleet_models{command="check"}'] == "4"
    assert values['bnfold_fleet_models_ended{command="check",state="killed"}'] == "0"
    assert all(float(value) == float(value) or value == "NaN" for value in values.values())
    assert json.dumps(sorted(values)) == json.dumps(sorted(set(values)))
