"""What docs/ci.md shows can be typed and pasted as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from bnfold.gate import fix
from bnfold.gate import run as gate
from bnfold.gate.configuration import load
from bnfold_cli import main
from tests.gate.models import answering, here, layers, save

pytest.importorskip("junitparser")
pytest.importorskip("sarif_pydantic")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
GIT = ("git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


SHOWN = [line for block in blocks("console") for line in block.splitlines()]
COMMANDS = [line.removeprefix("$ ") for line in SHOWN if line.startswith("$ ")]
GITHUB, GITLAB, PRE_COMMIT = map(yaml.safe_load, blocks("yaml"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, one of them cut off; the other one is not in git's last commit yet as it is."""
    detector = save(layers(), tmp_path / "models" / "detector.onnx")
    (tmp_path / "models" / "old.onnx").write_bytes(detector.read_bytes()[:-60])
    for words in ("init --quiet --initial-branch=main", "add .", "commit --quiet -m Models"):
        subprocess.run([*GIT, *words.split()], cwd=tmp_path, check=True)
    save(layers(seed=1), detector)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNFOLD_CACHE_DIR", raising=False)
    monkeypatch.setattr(gate, "_answers", answering([]))
    monkeypatch.setattr(fix, "outcomes", here)
    return tmp_path


def typed(command: str) -> Result:
    """What a line does that may begin with a command of git's."""
    first, _, second = command.rpartition(" | ")
    given = subprocess.run(shlex.split(first), capture_output=True, check=True).stdout if first else b""
    program, *words = shlex.split(second)
    assert program == "bnfold"
    return CliRunner().invoke(main, words, input=given)


@pytest.mark.usefixtures("repository")
def test_every_command_does_what_it_is_shown_for() -> None:
    ends = {}
    for command in COMMANDS:
        done = typed(command)
        ends[command] = done.exit_code
        if "--fix" in command:
            assert done.stderr == "Folded and proved: models/detector.onnx.\n"
        elif "baseline" not in command and "--diff" not in command.split():
            assert done.stderr == ""
    assert [ends[command] for command in COMMANDS] == [
        *(1, 1, 1),  # check, --diff, --fix: one model is broken
        *(0, 0),  # which the baseline accepts
        *(1, 1, 0),  # against main it computes something else; SARIF; what git diff names is as it should be
        0,  # --exit-zero
    ]


def test_the_lines_that_are_shown_are_those_of_the_command() -> None:
    (shown,) = (block for block in blocks("console") if "\n2 findings" in block)
    lines = shown.splitlines()[1:]
    assert len(lines) == 3
    assert all(re.fullmatch(r"models/\w+\.onnx: M\d{3} .+", one) for one in lines[:2])
    assert lines[2] == "2 findings in 6 models, 1 fixable with --fix."


def test_the_settings_can_be_pasted(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "bnfold.toml").write_text(text)
    settings = load(tmp_path / "bnfold.toml").settings
    assert settings.extend_exclude == ("experiments", "models/drafts")
    assert settings.limits.bytes == 100 * 10**6
    assert settings.source("models/detector.onnx") is not None


def test_the_action_has_the_inputs_that_are_shown() -> None:
    steps: list[dict[str, Any]] = GITHUB["jobs"]["models"]["steps"]
    (own,) = (step for step in steps if step["uses"].startswith("bnfold/bnfold@"))
    assert own["with"].keys() <= ACTION["inputs"].keys()


def test_the_hooks_that_are_shown_exist() -> None:
    (repo,) = PRE_COMMIT["repos"]
    assert {hook["id"] for hook in repo["hooks"]} == HOOKS


def test_the_job_of_gitlab_writes_its_reports(repository: Path) -> None:
    job = GITLAB["models"]
    install, check = job["script"]
    assert install.startswith("pip install ")
    assert typed(check).exit_code == 1
    for report in job["artifacts"]["reports"].values():
        assert (repository / report).stat().st_size


@pytest.mark.usefixtures("repository")
def test_the_programs_run(assert_same_function, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("detector", "detector.float"):
        save(layers(), Path("models", f"{name}.onnx"))
    with_fixture, script = blocks("python")
    names: dict[str, Any] = {}
    exec(with_fixture, names)
    names["test_the_exported_model"](assert_same_function)
    exec(script, names)
    assert "models/detector.onnx M101 1 BatchNorm can be folded" in capsys.readouterr().out
