"""What the GitHub action and the hooks are; test_check_pull_request.py runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
STEPS = {step["name"]: step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]}


def test_the_action_takes_every_value_from_its_inputs_by_the_environment() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", ""), "a value put into a script could be a command"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_the_command_and_respects_what_is_excluded(hook: dict[str, str]) -> None:
    """pre-commit names files one by one, so that what is excluded would be looked at after all."""
    program, command, *options = shlex.split(hook["entry"])
    assert (program, command, hook["language"]) == ("bnfold", "check", "python")
    assert "--force-exclude" in options
    pattern = re.compile(hook["files"])
    assert pattern.search("models/net.onnx")
    assert not pattern.search("models/net.onnx.md")
