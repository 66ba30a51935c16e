"""What the pages show can be typed as it stands, in its order, and what they show of its output is printed.

A command is run in this process, in a folder that has what the pages speak of. Of a page's output lines
each has to be printed; what is not shown is not compared. `$ echo $?` shows an exit code other than 0.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bnfold_cli import main
from tests.docs.pages import DOCS, NOT_RUN, TOUR, blocks, commands
from tests.docs.workplace import ROOT, prepare

pytest.importorskip("torch")

PAGES = ["contract.md", "tutorials/repository.md", "tutorials/device.md"]
SLOW = [
    "tasks.md",
    "troubleshooting.md",
    "tutorials/pytorch.md",
]  # tests/docs/test_notebook.py does the same as the last
QUICK = {"export": ("--seconds", "0.1"), "bench": ("--seconds", "0.1"), "check": ("--jobs", "1")}


def type_in(command: str, printed: str, code: int) -> None:
    """Run a command of bnfold, and compare it with what its page says."""
    program, *words = shlex.split(command)
    if program in NOT_RUN:
        return
    if command == TOUR:
        (made := Path(words[-1])).mkdir()
        prepare(made)
        return
    if program == "cd":
        os.chdir(words[0])
        return
    assert program == "bnfold", command
    quick = () if "--no-bench" in words else QUICK.get(words[0], ())
    done = CliRunner().invoke(main, [*words, *quick])
    assert done.exit_code == code, f"{command}\n{done.output}"
    lines = {" ".join(line.split()) for line in done.output.splitlines()}
    assert {" ".join(line.split()) for line in printed.splitlines()} <= lines, done.output


@pytest.mark.filterwarnings("ignore")  # of torch.onnx, about itself
@pytest.mark.parametrize("page", [*PAGES, *(pytest.param(page, marks=pytest.mark.release) for page in SLOW)])
def test_a_page_can_be_typed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makes_its_own = TOUR in (DOCS / page).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path if makes_its_own else prepare(tmp_path))
    names: dict[str, object] = {}
    ran = 0
    with warnings.catch_warnings():
        for language, block in blocks(DOCS / page):
            if language == "python":
                exec(compile(block, page, "exec"), names)
            elif language == "toml":
                Path("bnfold.toml").write_text(block)
            elif language == "console":
                for shown in commands(block):
                    type_in(*shown)
                    ran += 1
    assert ran


def test_what_a_page_has_people_type_first_makes_its_folder(tmp_path: Path) -> None:
    words = shlex.split(TOUR)[1:-1]
    for code in (0, 2):  # what is there already stays
        done = subprocess.run(
            [sys.executable, *words, tmp_path / "tour"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
    assert {file.name for file in (tmp_path / "tour" / "models").iterdir()} >= {
        "classifier.onnx",
        "truncated.onnx",
    }


def test_every_tutorial_is_run() -> None:
    assert {f"tutorials/{path.name}" for path in (DOCS / "tutorials").glob("*.md")} <= {*PAGES, *SLOW}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_names_only_options_that_there_are(page: Path) -> None:
    """In lines of blocks that begin with the command's name, after a prompt or not, and in code in text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    shown = re.findall(r"`bnfold ([^`\n]+)`", text)
    shown += re.findall(r"^(?:\$ )?bnfold (.+)$", "".join(blocks), re.MULTILINE)
    for line in shown:
        name, *words = line.partition(" | ")[0].split()
        if name in main.list_commands(click.Context(main)):
            command = main.get_command(click.Context(main), name)
            if isinstance(command, click.Group) and words:
                command = command.commands[words[0]]
            known = {
                option
                for parameter in command.params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            used = {word.partition("=")[0].rstrip(",;:.") for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known | {"--help", "-h"}, line
