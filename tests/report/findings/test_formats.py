"""Every format, byte by byte, and what programs make of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import jsonschema
import pytest

from bnfold.errors import MissingExtraError
from bnfold.gate.finding import Finding, Found
from bnfold.gate.run import Checked
from bnfold.report.findings import FORMATS, renderer
from bnfold.report.findings._words import fingerprint, sentence
from tests.report.findings.outcome import EMPTY, EVERYTHING, FILES, FINDINGS, NOTHING, outcome
from tests.report.findings.sarif_schema import SARIF

pytest.importorskip("junitparser")
pytest.importorskip("sarif_pydantic")

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
OUTCOMES = {"everything": EVERYTHING, "nothing": NOTHING, "empty": EMPTY}
WHICH = [(name, kind) for name in OUTCOMES for kind in FORMATS]
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\ud800-\udfff]")


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that stays."""
    for kind in ("json", "sarif"):
        monkeypatch.setattr(f"bnfold.report.findings.{kind}.__version__", "0.0.0")


def rendered(kind: str, checked: Checked = EVERYTHING) -> str:
    return renderer(kind)(checked)


def test_the_formats_are_those_of_the_command() -> None:
    assert FORMATS == ("concise", "full", "github", "gitlab", "json", "junit", "markdown", "sarif")


@pytest.mark.parametrize(("name", "kind"), WHICH)
def test_a_format_is_the_same_bytes_as_ever(name: str, kind: str) -> None:
    """After a change that is meant: python -m tests.report.findings.test_formats."""
    expected = (GOLDEN / f"{name}.{kind}").read_bytes()
    assert rendered(kind, OUTCOMES[name]).encode() == expected
    assert rendered(kind, OUTCOMES[name]).encode() == expected


def test_every_file_of_golden_is_of_a_format() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.{kind}" for name, kind in WHICH}


@pytest.mark.parametrize("kind", FORMATS)
def test_no_control_character_reaches_a_terminal_or_a_page(kind: str) -> None:
    assert not CONTROLS.search(rendered(kind))
    rendered(kind).encode()


def test_a_line_a_finding_whatever_its_names_hold() -> None:
    lines = rendered("concise").splitlines()
    assert len(lines) == len(FINDINGS) + len(EVERYTHING.gone) + 1
    assert lines[0].endswith(": bn1, layer1.0.bn1, layer1_0__bn2 and 1 more [*]")
    assert "␛[31m␤" in lines[3]
    assert "\t" not in lines[3]
    assert lines[-1] == "4 findings in 4 models, 1 fixable with --fix, 2 accepted by the baseline."
    assert rendered("concise", NOTHING) == "No findings in 1 model.\n"


def test_that_batchnorms_of_pytorch_files_are_not_looked_for() -> None:
    """Of files that could be read; the others have a finding."""
    two = replace(outcome((), ("a.pt", "b.pt"), 0, ()), paths=(ROOT / "models" / "convnet.pt",) * 2)
    end = "BatchNorms not looked for; bnfold inspect does.\n"
    assert rendered("concise", two) == f"No findings in 2 models. 2 PyTorch files: {end}"
    unread = Finding("b.pt", "M302", Found("it is damaged"), "error")
    assert rendered("concise", replace(two, all=(unread,))) == (
        f"No findings in 2 models. 1 PyTorch file: {end}"
    )


def test_the_full_format_has_every_site_and_what_to_do() -> None:
    text = rendered("full")
    assert "    layer1_0__bn2\n    neck\n  Run `bnfold check --fix`" in text
    assert "Take an earlier checkpoint." in text


# --- GitHub -----------------------------------------------------------------------------------------------

COMMAND = re.compile(r"::(error|warning|notice) file=([^,:]*),title=([^,:]*)::(.*)")


def test_workflow_commands_say_what_was_meant() -> None:
    lines = rendered("github").split("\n")
    assert lines.pop() == ""
    parsed = [COMMAND.fullmatch(line) for line in lines]
    assert all(parsed)
    assert [one[1] for one in parsed if one] == ["warning", "notice", "error", "error"]
    assert next(one[3] for one in parsed if one) == "M101 foldable-batchnorm"
    odd = parsed[2]
    assert odd is not None
    assert odd[2] == "old%2C 100%25%3A a|b.onnx"
    assert odd[4].startswith("it is <damaged>, 100%25: see␤the next line")
    assert rendered("github", NOTHING) == ""


# --- Markdown ---------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    """The cells of a row, as GitHub splits them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_table_keeps_its_form_whatever_names_hold() -> None:
    text = rendered("markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(cells(row)) for row in rows] == [6] * (2 + len(FINDINGS))
    assert cells(rows[2])[1:] == [
        "`models/net.onnx`",
        "M101",
        r"4 BatchNorms can be folded: bn1, layer1.0.bn1, layer1\_0\_\_bn2 and 1 more",
        "69",
        "65",
    ]
    assert cells(rows[4])[1] == r"`old, 100%: a\|b.onnx`"
    finding = cells(rows[4])[3]
    assert r"&lt;damaged>" in finding
    assert r"\*bold\* \[link\](x) &amp; more" in finding
    assert r"\`.onnx" in cells(rows[5])[1]
    assert text.startswith("### bnfold check: failed\n")
    assert rendered("markdown", NOTHING) == "### bnfold check: passed\n\nNo findings in 1 model.\n"


def test_what_is_gone_is_a_list_under_the_table() -> None:
    items = [line for line in rendered("markdown").splitlines() if line.startswith("- ")]
    assert len(items) == len(EVERYTHING.gone)
    assert r"bn\|1␛␤next" in items[0]


# --- JSON -------------------------------------------------------------------------------------------------


def test_the_json_is_that_of_its_schema() -> None:
    schema = json.loads((ROOT / "docs" / "check.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for checked in OUTCOMES.values():
        jsonschema.validate(json.loads(rendered("json", checked)), schema)
    document = json.loads(rendered("json"))
    assert document["passed"] is False
    assert document["files"] == list(FILES)
    assert [one["sites"] for one in document["findings"]] == [list(one.found.sites) for one in FINDINGS]
    assert document["findings"][0]["nodes"] == {"now": 69, "folded": 65}
    assert json.loads(rendered("json", NOTHING))["passed"] is True


def test_the_schema_describes_every_key_and_takes_no_other() -> None:
    schema = json.loads((ROOT / "docs" / "check.schema.json").read_text())
    objects = [schema]
    while objects:
        one = objects.pop()
        if one.get("type") == "object" or "properties" in one:
            assert one["additionalProperties"] is False
            assert sorted(one["required"]) == sorted(one["properties"])
            assert all(of["description"] for of in one["properties"].values())
        objects += one.get("properties", {}).values()
        objects += [of for of in (one.get("items"), *one.get("oneOf", ())) if of]


# --- GitLab -----------------------------------------------------------------------------------------------

GITLAB = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": r"^(?!\./)"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}
"""What GitLab demands: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format"""


def test_gitlab_gets_what_it_demands() -> None:
    for checked in OUTCOMES.values():
        jsonschema.validate(json.loads(rendered("gitlab", checked)), GITLAB)
    entries = json.loads(rendered("gitlab"))
    assert [one["severity"] for one in entries] == ["major", "info", "critical", "critical"]
    assert len({one["fingerprint"] for one in entries}) == len(entries)


def test_a_fingerprint_is_of_the_file_the_code_and_the_sites() -> None:
    first = FINDINGS[0]
    assert fingerprint(first) == fingerprint(first.of(first.sites))
    others = [first.of(["bn1"]), *FINDINGS[1:]]
    assert len({fingerprint(one) for one in (first, *others)}) == 1 + len(others)
    assert sentence(first.of(["bn1"])) == "1 BatchNorm can be folded: bn1"


# --- JUnit ------------------------------------------------------------------------------------------------


def test_junit_has_a_suite_a_model_and_a_case_a_finding(tmp_path: Path) -> None:
    from junitparser import JUnitXml

    (tmp_path / "bnfold.xml").write_bytes(rendered("junit").encode())
    document = JUnitXml.fromfile(str(tmp_path / "bnfold.xml"))
    suites = list(document)
    assert [len(list(suite)) for suite in suites] == [1, 2, 1, 1]
    assert (document.tests, document.failures, document.skipped, document.errors) == (5, 3, 1, 0)
    (passed,) = suites[0]
    assert passed.is_passed
    folded, kept = suites[1]
    assert (folded.name, folded.classname) == ("M101 foldable-batchnorm", "models/net.onnx")
    assert folded.result[0].type == "M101"
    assert folded.result[0].text.startswith("bn1\nlayer1.0.bn1\nlayer1_0__bn2\nneck\n")
    assert kept.is_skipped


# --- SARIF ------------------------------------------------------------------------------------------------


def place(run):
    return run["results"][0]["locations"][0]["physicalLocation"]


def test_sarif_is_that_of_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SARIF)
    for checked in OUTCOMES.values():
        jsonschema.validate(json.loads(rendered("sarif", checked)), SARIF)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run["results"][0].update(level="bad"),
        lambda run: run["results"][0].update(message="text"),
        lambda run: run["results"][0].update(ruleIndex=-2),
        lambda run: run["results"][0].update(unknown=1),
        lambda run: place(run)["region"].update(startLine=0),
        lambda run: place(run)["artifactLocation"].update(uri="a b"),
        lambda run: run["tool"].pop("driver"),
        lambda run: run["tool"]["driver"]["rules"].append(run["tool"]["driver"]["rules"][0]),
    ],
)
def test_the_schema_of_sarif_refuses_what_the_standard_does(damage) -> None:
    document = json.loads(rendered("sarif"))
    damage(document["runs"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SARIF)


def test_sarif_points_to_rules_and_files() -> None:
    (run,) = json.loads(rendered("sarif"))["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[one["ruleIndex"]]["id"] for one in run["results"]] == [one.code for one in FINDINGS]
    assert [one["level"] for one in run["results"]] == [one.severity for one in FINDINGS]
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]]
    assert [unquote_to_bytes(place) for place in places] == [
        one.path.encode(errors="surrogateescape") for one in FINDINGS
    ]
    assert len({one["partialFingerprints"]["bnfold/v1"] for one in run["results"]}) == len(FINDINGS)


# --- packages that are missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "package"), [("junit", "junitparser"), ("sarif", "sarif_pydantic")])
def test_a_package_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        rendered(kind)
    assert caught.value.fix == 'Type: pip install "bnfold[ci]"'


def test_a_format_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys; from bnfold.report.findings import renderer; renderer('concise'); renderer('github');"
        "print(sorted({'onnx', 'numpy', 'pydantic', 'junitparser', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":  # write the golden files
    with pytest.MonkeyPatch.context() as patch:
        for module in ("json", "sarif"):
            patch.setattr(f"bnfold.report.findings.{module}.__version__", "0.0.0")
        for outcome, form in WHICH:
            (GOLDEN / f"{outcome}.{form}").write_bytes(rendered(form, OUTCOMES[outcome]).encode())
