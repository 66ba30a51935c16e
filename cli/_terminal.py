"""Where a command prints: tables to standard output, progress to a terminal's standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.inputs.given import Given

STAGES = {
    "load": "Loading",
    "export": "Exporting to ONNX",
    "fold": "Folding",
    "validate": "Comparing outputs",
    "time": "Timing",
    "save": "Saving",
}

_WIDTH_OF_A_FILE = 160  # it has none: wrap late, but keep tables readable


def show(renderable: RenderableType, *, quiet: bool, json_path: Path | None) -> None:
    """Print for a person, unless asked not to, or unless standard output is for the JSON."""
    if quiet or is_stdout(json_path) or sys.stdout is None:  # None: it was closed when Python started
        return
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    with _stdout_errors():
        with console.capture() as captured:
            console.print(renderable)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without × still gets its report
        for line in captured.get().splitlines():
            click.echo(line.rstrip(), color=console.is_terminal)  # rich fills the last column with spaces


def write_json(report: Mapping[str, Any], json_path: Path | None) -> None:
    """Write the report for programs where it was asked for."""
    if json_path is None:
        return
    from bnfold.report import json

    if is_stdout(json_path):
        with _stdout_errors():
            click.echo(json.dumps(dict(report)), nl=False)
    else:
        json.write(dict(report), json_path)


@contextmanager
def _stdout_errors() -> Iterator[None]:
    """Turn what the system says of standard output into words; that its reader has gone has its own."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        from bnfold.errors import SaveError, reason

        raise SaveError(
            f"The report could not be printed: {reason(error)}.",
            "What the command writes to files is written. Send the output somewhere else, or say --quiet.",
        ) from error


def check_report(path: Path | None, *others: Path) -> None:
    """Refuse a place for a report before any work is spent; `others` are the command's other files."""
    if path is None or is_stdout(path):
        return
    _check_place(path, others)


def check_page(path: Path, *others: Path) -> None:
    """Refuse to make a page before any work is spent: a bad place, or what it takes is not installed.

    It goes to a file only; `others` are the command's other files.
    """
    from importlib.util import find_spec

    from bnfold.errors import MissingExtraError

    _check_place(path, others)
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "report", "write the page")


def _check_place(path: Path, others: Sequence[Path]) -> None:
    from bnfold.files.atomic import check_destination
    from bnfold.files.load import files_beside

    check_destination(path, *others)
    if path.exists():  # it may hold weights of a model; looking for that takes longer than all else here
        for other in others:
            check_destination(path, *files_beside(other))


def read_inputs(
    path: Path | None, *, mean: str | None = None, std: str | None = None, size: str | None = None
) -> Given | None:
    """Find the inputs that were given, if any were; they are read when the model is known."""
    from bnfold.errors import InputError

    if path is None:
        if mean or std or size:
            raise InputError("--mean, --std and --size are for pictures.", "Name their folder with --inputs.")
        return None
    from bnfold.inputs.given import Given

    return Given.parse(path, mean=mean, std=std, size=size)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show the stages as they pass, on a terminal; into a pipe, show nothing."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        from bnfold.pipeline.progress import silent

        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=None)

        def tell(stage: str, done: int, total: int) -> None:
            bar.update(task, description=STAGES[stage], completed=done, total=total or None)

        yield tell


def is_stdout(path: Path | None) -> bool:
    """Whether the JSON was asked for on standard output."""
    return path is not None and str(path) == "-"
