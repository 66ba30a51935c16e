"""Help in groups, options that are given twice, and names that are nearly right."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from bnfold_cli import _groups, main


@click.command(cls=_groups.Command)
@_groups.together(
    "Shape",
    click.option("--width", type=int),
    click.option("--corner", multiple=True),
)
@click.option("--loud", is_flag=True)
def command(width: int | None, corner: tuple[str, ...], loud: bool) -> None:
    """Print the options."""
    click.echo(f"{width} {corner} {loud}")


def test_the_help_has_a_section_for_each_group() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    shape, other = text.index("\nShape:\n"), text.index("\nOther options:\n")
    assert shape < text.index("--width") < text.index("--corner") < other < text.index("--loud")


def test_an_option_that_takes_one_value_is_given_once() -> None:
    run = CliRunner().invoke
    twice = run(command, ["--width", "1", "--width", "2"])
    assert twice.exit_code == 2
    assert "--width is given 2 times; it takes one value." in twice.output
    right = run(command, ["--corner", "a", "--corner", "b", "--loud", "--loud", "--width=3"])
    assert right.output == "3 ('a', 'b') True\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["exprt"], "bnfold: No such command 'exprt'.\n  Did you mean 'export'?"),
        (["qqq"], "No such command 'qqq'."),
        (["fold", "--inplace"], "--in-place"),
    ],
)
def test_what_is_nearly_right_is_named(words: list[str], text: str) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert text in done.output


@pytest.mark.parametrize("name", ["export", "fold", "inspect", "validate", "bench"])
def test_the_large_commands_have_groups(name: str) -> None:
    text = CliRunner().invoke(main, [name, "--help"]).output
    assert "\nReports:\n" in text
    assert "\nOptions:\n" not in text
