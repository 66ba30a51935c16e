"""The page of a check: model by model, complete without a script, and every name is text."""

from __future__ import annotations

import re

from bnfold.gate.finding import Finding, Found
from bnfold.gate.rules import RULES
from bnfold.report.page import html
from bnfold.report.page.findings import view
from tests.report.findings.outcome import EVERYTHING, FINDINGS, NOTHING, outcome
from tests.report.page.test_html import Tree


def text(checked=EVERYTHING) -> str:
    return html.of_check(checked, command="bnfold check")


def test_findings_stand_under_their_models() -> None:
    shown = view(EVERYTHING, command="bnfold check")
    assert [model["path"] for model in shown["models"]] == list(dict.fromkeys(one.path for one in FINDINGS))
    first = shown["models"][0]
    assert first["count"] == "2 findings"
    assert [one["code"] for one in first["findings"]] == ["M101", "M107"]
    assert first["findings"][0]["nodes"] == "69 nodes now, 65 folded"
    assert shown["clean"] == ["models/fine.onnx"]
    assert shown["verdict"]["sentence"].startswith("4 findings in 4 models, 1 fixable with --fix")
    assert {tile["label"]: tile["after"] for tile in shown["tiles"]} == {
        "Models with findings": "3 of 4", "Errors": "2", "Warnings": "1", "Notes": "1", "Mended by --fix": "1"
    }  # fmt: skip


def test_a_finding_has_its_code_name_severity_places_and_what_to_do() -> None:
    page = Tree(text())
    words = " ".join(" ".join(page.words).split())
    for part in ("warning M101", RULES["M101"].name, "layer1_0__bn2", "--fix mends it", "error M201"):
        assert part in words, part
    said = re.sub("`", "", " ".join(RULES["M201"].advice.split()))
    assert said in words
    assert "Run <code>bnfold check --fix</code>" in text()
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_names_are_text_and_nothing_is_fetched() -> None:
    page = text()
    assert "<damaged>" not in page
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert re.findall(r"""(?:src|href|action)=["'](?!#)""", page) == []
    assert Tree(page).tags.count("script") == 1


def test_without_findings_it_passed() -> None:
    shown = view(NOTHING, command="bnfold check")
    assert shown["verdict"] | {"details": []} == {
        "state": "good", "heading": "Passed", "sentence": "No findings in 1 model.", "details": []
    }  # fmt: skip
    assert "no rule found anything" in text(NOTHING)
    assert "no rule found anything that the baseline does not accept" in text(outcome((), ("a.onnx",), 3, ()))


def test_notes_alone_pass_and_are_shown() -> None:
    note = (FINDINGS[1],)
    shown = view(outcome(note, ("models/net.onnx",), 0, ()), command="bnfold check")
    assert shown["verdict"]["heading"] == "Passed"
    assert shown["models"][0]["findings"][0]["state"] == "none"


def test_many_places_are_folded_away_and_all_there() -> None:
    sites = tuple(f"place{number}" for number in range(300))
    many = Finding("a.onnx", "M101", Found("1 stays", "{} stay", sites), "warning")
    page = text(outcome((many,), ("a.onnx",), 0, ()))
    assert "<summary>All 300 places</summary>" in page
    assert page.count("<code>place") == 300


def test_what_the_baseline_lists_in_vain_is_said() -> None:
    assert "models/fine.onnx: M307 is in the baseline and not in the model any more" in text()
