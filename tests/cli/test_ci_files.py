"""The GitHub action and the hooks do what docs/ci.md says, run here as their platforms run them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bnfold_cli import main
from tests.gate.models import layers, save

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
STEPS = {step["name"]: step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with one model that can be folded and one that is as it should be."""
    save(layers(), tmp_path / "foldable.onnx")
    save(layers("y = Relu(a)"), tmp_path / "good.onnx")
    return tmp_path


def _environment(**more: str) -> dict[str, str]:
    own = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ['PATH']}", **more}


def test_the_action_annotates_writes_a_summary_and_fails(repository: Path) -> None:
    step = STEPS["Check the models"]
    summary = repository / "step-summary.md"
    summary.write_text("Before.\n")
    given = {"PATHS": ".", "AGAINST": "", "ARGUMENTS": "--no-cache", "SARIF": "bnfold.sarif"}
    assert given.keys() == step["env"].keys()
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=repository,
        env=_environment(GITHUB_STEP_SUMMARY=str(summary), **given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("::warning file=foldable.onnx,title=M101")
    assert done.stdout.count("::") == 2
    results = json.loads((repository / "bnfold.sarif").read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["M101"]
    assert summary.read_text().startswith("Before.\n### bnfold check: failed")


def test_the_action_takes_every_value_from_its_inputs_by_the_environment() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", ""), "a value put into a script could be a command"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_finds_and_mends(repository: Path, hook: dict[str, str], monkeypatch) -> None:
    monkeypatch.chdir(repository)
    program, *words = shlex.split(hook["entry"])
    assert program == "bnfold"
    names = ["foldable.onnx", "good.onnx"]
    before = Path("foldable.onnx").read_bytes()
    first = CliRunner().invoke(main, [*words, "--no-cache", *names])
    assert first.exit_code == (0 if "--fix" in words else 1)
    assert (Path("foldable.onnx").read_bytes() != before) == ("--fix" in words)
