"""`bnfold --help` says of each command what the command says of itself, and imports none."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from bnfold_cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_first_sentence_of_its_command(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert COMMANDS[name] == command.get_short_help_str(limit=1000)


def test_the_help_imports_no_command() -> None:
    program = (
        "import sys; from bnfold_cli import main; main(['--help'], standalone_mode=False);"
        " print(sorted(name for name in sys.modules if name.startswith(('bnfold_cli.', 'bnfold.'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert done.stdout.splitlines()[-1] == "['bnfold_cli._lazy']"
