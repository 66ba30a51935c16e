"""With --quiet, every failure of every command says its cause in one line, and below it what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnfold.ops.conv import Conv


@pytest.fixture
def other(make_model: Callable[..., Path]) -> Path:
    """The model with other weights."""
    return make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)


def line(result) -> str:
    """The one line of standard error that is not advice; nothing else is printed."""
    assert result.stdout == ""
    only, *advice = result.stderr.splitlines()
    assert only.startswith("bnfold: ")
    assert all(one.startswith("  ") for one in advice)
    return only


def test_validate_says_which_output_disagrees_and_by_how_much(run, model: Path, other: Path) -> None:
    result = run("validate", model, other, "-q")
    assert result.exit_code == 1
    said = line(result)
    assert said.startswith(f"bnfold: {other} does not compute what {model} computes: Output 'y' (cpu, ")
    assert "of its scale away from" in said
    loud = run("validate", model, other)
    assert said.partition(": Output ")[2] in " ".join(loud.stdout.split()), "the report says the same"
    assert loud.stderr == f"bnfold: {other} does not compute what {model} computes.\n"


def test_validate_strict_says_what_callers_meet(run, model: Path, tmp_path: Path) -> None:
    import onnx

    renamed = onnx.load(model)
    renamed.opset_import[0].version = 19
    onnx.save(renamed, tmp_path / "renamed.onnx")
    result = run("validate", model, tmp_path / "renamed.onnx", "--strict", "--quiet")
    assert result.exit_code == 1
    assert "for its callers: " in line(result)
    assert "opset" in line(result)


def test_validate_replay_says_what_has_changed(run, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert run("validate", model, model, "--samples", "1", "--json", report, "-q").exit_code == 0
    record = json.loads(report.read_text())
    record["validation"]["passed"] = False
    report.write_text(json.dumps(record))
    result = run("validate", "--replay", report, "-q")
    assert result.exit_code == 1
    assert "does not hold any more: " in line(result)
    (moved := tmp_path / "moved.onnx").write_bytes(model.read_bytes())
    model.write_bytes(b"")
    assert moved.exists()
    result = run("validate", "--replay", report, "-q")
    assert result.exit_code == 1
    assert str(model) in line(result).partition("any more: ")[2]


def test_export_says_which_fold_is_wrong(run, model: Path, tmp_path: Path, monkeypatch) -> None:
    honest = Conv.bias

    def bias(*given):
        array = honest(*given)
        array[0] += 0.01
        return array

    monkeypatch.setattr(Conv, "bias", bias)
    result = run("export", model, "-o", tmp_path / "out.onnx", "--no-bench", "-q")
    assert result.exit_code == 1
    assert "out.onnx was not written: " in line(result)
    assert "batchnormalization_1" in line(result)


COMMANDS = {
    "export": ("export", "absent.onnx", "-o", "out.onnx"),
    "fold": ("fold", "absent.onnx", "-o", "out.onnx"),
    "inspect": ("inspect", "absent.onnx"),
    "validate": ("validate", "absent.onnx", "absent.onnx"),
    "bench": ("bench", "absent.onnx", "absent.onnx"),
    "explain": ("explain", "BN999"),
}


@pytest.mark.parametrize("quiet", ["-q", "--quiet"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_done_keeps_its_advice(run, command: str, quiet: str) -> None:
    result = run(*COMMANDS[command], quiet)
    assert result.exit_code == 2
    assert line(result)
    assert len(result.stderr.splitlines()) > 1, "there is advice"
    assert run(*COMMANDS[command]).stderr == result.stderr


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("validate", "model.onnx"), "Name two models"),
        (("inspect", "model.onnx", "--no-such-option"), "--no-such-option"),
        (("fold", "model.onnx"), "Name the file to write"),
        (("export",), "MODEL"),
        (("bench", "a.onnx", "b.onnx", "--seconds", "never"), "never"),
        (("explode",), "explode"),
    ],
)
def test_wrong_usage_keeps_its_advice(run, words: tuple[str, ...], cause: str) -> None:
    result = run(*words, "-q")
    assert result.exit_code == 2
    assert cause in line(result)
    assert len(result.stderr.splitlines()) > 1
    assert run(*words).stderr == result.stderr


def test_a_bug_is_one_line_too(run, model: Path, monkeypatch) -> None:
    from bnfold.pipeline import read

    def broken(*_given, **_options):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(read, "read_model", broken)
    result = run("inspect", model, "-q")
    assert result.exit_code == 2
    assert line(result) == "bnfold: ZeroDivisionError: division"
    assert "bnfold --bug-report" in result.stderr


def test_a_model_that_fail_on_names_is_named(run, model: Path, stubborn: Path) -> None:
    result = run("inspect", model, stubborn, "--fail-on", "foldable", "-q")
    assert result.exit_code == 1
    assert line(result) == f"bnfold: {model}: there are BatchNorms that --fail-on names."
    assert "Leave --quiet out" in result.stderr


def test_what_stands_in_the_way_to_a_target_is_said(run, model: Path, tmp_path: Path) -> None:
    given = ("--no-bench", "--no-validate")
    (own := tmp_path / "own.toml").write_text(
        'title = "Ours"\n[[rules]]\nkind = "operators"\nwhat = "It has no Conv."\n'
        'limit = {refused = ["Conv"]}\nsource = "https://example.com"\ndate = 2026-11-28\n'
    )
    result = run("export", model, "-o", tmp_path / "out.onnx", *given, "--target", own, "-q")
    assert result.exit_code == 1, result.stderr
    assert line(result) == "bnfold: 1 thing stands in the way to own."
    assert "It has no Conv." in result.stderr


def test_a_process_adds_nothing_to_the_line(model: Path, other: Path, tmp_path: Path) -> None:
    """Of ONNX Runtime, NumPy or Python's warnings, which a test that runs inside of one would not see."""
    (tmp_path / "sitecustomize.py").write_text(
        "import bnfold.validation.validate as module\n"
        "import warnings\n"
        "honest = module.validate\n"
        "def noisy(*given, **options):\n"
        "    warnings.warn('noise', RuntimeWarning)\n"
        "    return honest(*given, **options)\n"
        "module.validate = noisy\n"
    )
    command = [sys.executable, "-m", "bnfold", "validate", str(model), str(other)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    loud, quiet = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=False, env=environment)
        for more in ([], ["--quiet"])
    )
    assert "RuntimeWarning: noise" in loud.stderr
    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert len(quiet.stderr.splitlines()) == 1
