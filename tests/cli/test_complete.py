"""Completion: the scripts for three shells, and what they offer after TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete, get_completion_class

from bnfold.gate.rules import RULES
from bnfold.reasons import RULES as REASONS
from bnfold.targets.profile import names
from bnfold_cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "completion.md").read_text(encoding="utf-8")


def offered(*words: str) -> list[str]:
    """What is offered for the last word, after the others."""
    complete = BashComplete(main, {}, "bnfold", "_BNFOLD_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def kinds(*words: str) -> set[str]:
    """Whether words are offered (plain) or the shell is to offer files."""
    complete = BashComplete(main, {}, "bnfold", "_BNFOLD_COMPLETE")
    return {item.type for item in complete.get_completions(list(words[:-1]), words[-1])}


def test_commands_and_options() -> None:
    assert offered("") == list(COMMANDS)
    assert offered("ex") == ["export", "explain"]
    assert "--version" in offered("--")
    assert {"--input-shape", "--inputs", "--int8"} <= set(offered("export", "net.pt", "--in"))
    assert offered("export", "net.pt", "--to", "") == ["pt2", "module", "state_dict"]
    assert offered("fleet", "") == ["check", "export", "fold"]
    assert "--out" in offered("fleet", "check", "--o")


def test_codes() -> None:
    assert offered("explain", "BN") == list(REASONS)
    assert offered("explain", "m1") == [code for code in RULES if code.startswith("M1")]
    assert offered("explain", "") == [*REASONS, *RULES]
    assert offered("check", "--select", "M101,M40") == [
        f"M101,{code}" for code in RULES if code.startswith("M40")
    ]
    assert offered("check", "--ignore", "M31") == [code for code in RULES if code.startswith("M31")]


@pytest.mark.parametrize("words", [("check", "--target"), ("export", "net.onnx", "--target"), ("targets",)])
def test_targets(words: tuple[str, ...]) -> None:
    assert offered(*words, "") == list(names())
    assert offered(*words, "t") == ["tensorrt", "tflite-micro"]
    assert kinds(*words, "my") == {"file"}, "a TOML file is a target, too"


@pytest.mark.parametrize(
    "words", [("fold",), ("check",), ("fleet", "check"), ("export", "net.onnx", "-o"), ("inspect", "a.onnx")]
)
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert kinds(*words, "mo") == {"file"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_and_the_page_that_installs_it(shell: str) -> None:
    found = get_completion_class(shell)
    assert found is not None
    made = found(main, {}, "bnfold", "_BNFOLD_COMPLETE")
    script = made.source_template % made.source_vars()
    assert f"_BNFOLD_COMPLETE={shell}_complete" in script
    assert "%(" not in script
    assert f"_BNFOLD_COMPLETE={shell}_source bnfold" in PAGE


def ask(line: str) -> tuple[str, float]:
    """What a real process answers at TAB, and the seconds of the processor's time that it takes."""
    words = line.split()
    variables = {"_BNFOLD_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = "from bnfold_cli import main; main(prog_name='bnfold')"
    start = os.times()
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True
    )
    end = os.times()
    return done.stdout, end.children_user + end.children_system - start.children_user - start.children_system


@pytest.mark.parametrize("line", ["bnfold explain M1", "bnfold export net.onnx --target r", "bnfold ex"])
def test_it_answers_while_one_types(line: str) -> None:
    """The quickest of three, since other processes on the machine make each take longer."""
    answers = [ask(line) for _ in range(3)]
    assert answers[0][0].startswith("plain,")
    assert min(seconds for _, seconds in answers) < 0.3


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_really_completes() -> None:
    bash = """
    eval "$(_BNFOLD_COMPLETE=bash_source bnfold)"
    COMP_WORDS=(bnfold explain BN40) COMP_CWORD=2
    _bnfold_completion bnfold
    echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", bash], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["BN401", "BN402", "BN403"], done.stderr
