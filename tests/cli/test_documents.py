"""What each command writes with --json follows the schema and says nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that a key that is not documented is an error."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and schema.get("additionalProperties", True) is True:
            schema["additionalProperties"] = False
        return schema
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def follows():
    """Check a document against the closed schema of one command; the document comes back."""

    def check(path: Path, command: str, definition: str = "") -> dict[str, Any]:
        document: dict[str, Any] = json.loads(path.read_text())
        assert document["command"] == command
        schema = {**closed(SCHEMA), "$ref": f"#/$defs/{definition or command}"}
        del schema["oneOf"]
        jsonschema.Draft202012Validator(schema).validate(document)
        jsonschema.Draft202012Validator(SCHEMA).validate(document)
        required = set(SCHEMA["$defs"][definition or command]["properties"])
        assert set(document) == required, "a command that is run says all that its report can say"
        return document

    return check


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


@pytest.fixture
def folded(run, model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "folded.onnx"
    assert run("fold", model, "-o", path, "-q").exit_code == 0
    return path


def test_export(run, model, tmp_path, report, follows) -> None:
    given = ("--seconds", "0.1", "--per-layer", "--samples", "2")
    assert run("export", model, "-o", tmp_path / "o.onnx", "--json", report, *given).exit_code == 0
    document = follows(report, "export")
    assert document["benchmarks"]
    assert document["validation"]["layers"]
    assert document["environment"]["cpu"]


def test_an_export_that_disagrees(run, model, tmp_path, report, follows) -> None:
    given = ("--tolerance", "0", "--no-bench", "--samples", "2")
    assert run("export", model, "-o", tmp_path / "o.onnx", "--json", report, *given).exit_code == 1
    document = follows(report, "export")
    assert (document["output"], document["benchmarks"], document["rolled_back"]) == (None, [], [])


def test_fold(run, stubborn, tmp_path, report, follows) -> None:
    assert run("fold", stubborn, "-o", tmp_path / "o.onnx", "--json", report).exit_code == 0
    assert follows(report, "fold", "fold_command")["fold"]["summary"]["kept"] == 1


def test_inspect(run, stubborn, report, follows) -> None:
    assert run("inspect", stubborn, "--json", report).exit_code == 0
    follows(report, "inspect")


def test_targets(run, report, follows) -> None:
    assert run("targets", "--json", report).exit_code == 0
    assert len(follows(report, "targets")["targets"]) > 10


def test_an_export_for_a_target(run, model, tmp_path, report, follows) -> None:
    given = ("--no-bench", "--no-validate", "--target", "tensorrt")
    assert run("export", model, "-o", tmp_path / "o.onnx", "--json", report, *given).exit_code == 0
    target = follows(report, "export")["target"]
    assert (target["name"], target["obstacles"]) == ("tensorrt", [])
    assert target["next"][0].startswith("trtexec")


def test_explain(run, report, follows) -> None:
    assert run("explain", "BN108", "--json", report).exit_code == 0
    follows(report, "explain")


def test_validate_and_replay(run, model, folded, make_model, tmp_path, report, follows) -> None:
    assert run("validate", model, folded, "--per-layer", "--json", report).exit_code == 0
    assert follows(report, "validate")["validation"]["passed"]
    again = tmp_path / "again.json"
    assert run("validate", "--replay", report, "--json", again).exit_code == 0
    assert follows(again, "replay")["holds"]
    folded.write_bytes(make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1).read_bytes())
    assert run("validate", "--replay", report, "--json", again).exit_code == 1
    assert follows(again, "replay")["validation"] is None
    assert run("validate", model, folded, "--json", report).exit_code == 1
    assert follows(report, "validate")["validation"]["blame"]["value"]


def test_bench(run, model, folded, report, follows) -> None:
    assert run("bench", model, folded, "--seconds", "0.1", "--json", report).exit_code == 0
    follows(report, "bench")


def test_doctor(run, report, follows) -> None:
    assert run("doctor", "--json", report).exit_code in (0, 1)
    assert follows(report, "doctor")["findings"]
