"""`bnfold doctor` says what is wrong, and its exit code whether something is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from bnfold.system import doctor as module
from bnfold.system.doctor import Diagnosis, Finding
from bnfold.system.environment import environment

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
GOOD = Finding("good", "cpu", "It runs.")
OPTIONAL = Finding("optional", "bnfold[mnn]", "Not installed: mnn.", 'pip install "bnfold[mnn]"')
WARNING = Finding("warning", "threads", "Too many.", "export OMP_NUM_THREADS=2")
PROBLEM = Finding("problem", "ONNX Runtime", "There are two.", "pip uninstall -y a b")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch):
    def pretend(*findings: Finding) -> None:
        monkeypatch.setattr(module, "doctor", lambda: Diagnosis(environment(), findings))

    return pretend


def test_nothing_wrong(run, found) -> None:
    found(GOOD)
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("No problem.\n")


def test_a_warning_is_no_failure(run, found) -> None:
    found(GOOD, WARNING)
    result = run("doctor")
    assert result.exit_code == 0
    assert "No problem, 1 warning." in result.stdout
    assert WARNING.fix in result.stdout


def test_an_extra_that_nobody_asked_for_is_no_warning(run, found) -> None:
    found(GOOD, OPTIONAL, OPTIONAL)
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert OPTIONAL.fix in result.stdout
    assert "warning" not in result.stdout
    assert result.stdout.splitlines()[-1].startswith("No problem. 2 optional extras are not installed")
    assert run("doctor", "-q").output == ""


def test_a_problem_is_one(run, found) -> None:
    found(GOOD, WARNING, PROBLEM, PROBLEM)
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "2 problems, 1 warning." in result.stdout
    assert result.stdout.index(PROBLEM.found) < result.stdout.index(PROBLEM.fix)
    quiet = run("doctor", "--quiet")
    said = "bnfold: ONNX Runtime: There are two.\n  pip uninstall -y a b\n"
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (1, "", said * 2)


def test_the_report_follows_the_schema(run, found, tmp_path: Path) -> None:
    found(GOOD, PROBLEM)
    result = run("doctor", "--json", "-")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert report["healthy"] is False
    assert [finding["state"] for finding in report["findings"]] == ["good", "problem"]
    described = SCHEMA["$defs"]
    assert set(report) == set(described["doctor"]["properties"])
    assert set(report["environment"]) == set(described["environment"]["properties"])
    assert set(report["findings"][0]) == set(described["finding"]["properties"])
    assert run("doctor", "--json", tmp_path / "r.json").exit_code == 1
    assert json.loads((tmp_path / "r.json").read_text()) == report


def test_a_real_process_is_quick_and_loads_neither_torch_nor_onnxruntime() -> None:
    program = (
        "import sys\nfrom bnfold_cli import main\n"
        "try:\n    main(['doctor'])\nexcept SystemExit as end:\n    assert end.code in (0, 1)\n"
        "print(sorted({'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    start = os.times()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    end = os.times()
    # it takes two seconds of the processor's time, which other processes lengthen far less than the clock's
    assert end.children_user + end.children_system - start.children_user - start.children_system < 15
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""
