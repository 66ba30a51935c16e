"""What a command prints: tables to standard output, progress to standard error if that is a terminal."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.pipeline.progress import WORDS, silent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.inputs.given import Given

_WIDTH_OF_A_FILE = 1_000_000  # a file has no width: each row of a table is one line, however long


def show(renderable: RenderableType, *, quiet: bool, json_path: Path | None) -> None:
    """Print for a person, unless the command is quiet or standard output is for the JSON."""
    if quiet or is_stdout(json_path) or sys.stdout is None:  # None: it was closed when Python started
        return
    from ._console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    with _stdout_errors():
        with console.capture() as captured:
            console.print(renderable)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without × still gets its report
        for line in captured.get().splitlines():
            click.echo(line.rstrip(), color=console.is_terminal)  # rich fills the last column with spaces


def say_no(why: str, fix: str, *, quiet: bool) -> None:
    """End the command with 1, the answer no; where no report says so, print why and what to do."""
    if quiet:
        complain(why, fix)
    click.get_current_context().exit(1)


def complain(problem: str, fix: str) -> None:
    """Print what is wrong, and below it what to do, on standard error."""
    from bnfold.display.visible import visible

    click.echo(f"bnfold: {visible(problem)}", err=True)
    for line in visible(fix).splitlines():
        click.echo(f"  {line}", err=True)


def write_json(report: Mapping[str, Any] | Sequence[Mapping[str, Any]], json_path: Path | None) -> None:
    """Write the report for programs, if there is to be one."""
    if json_path is None:
        return
    from bnfold.report import json

    if is_stdout(json_path):
        with _stdout_errors():
            click.echo(json.dumps(report), nl=False)
    else:
        json.write(report, json_path)


def show_page(path: Path | None, *, quiet: bool, json_path: Path | None = None) -> None:
    """Say that a page was written, if there was to be one."""
    if path is None or quiet or is_stdout(json_path):
        return
    from bnfold.report.terminal import headline

    show(headline.written(path), quiet=quiet, json_path=json_path)


def show_record(path: Path | None, batchnorms: int, *, quiet: bool, json_path: Path | None = None) -> None:
    """Say that the statistics of BatchNorms were written to a file, if they were to be."""
    if path is None or quiet or is_stdout(path) or is_stdout(json_path):
        return
    from bnfold.report.terminal import headline

    show(headline.recorded(path, batchnorms), quiet=quiet, json_path=json_path)


def command_line() -> str:
    """What was typed, as a page shows it."""
    return shlex.join(["bnfold", *sys.argv[1:]])


@contextmanager
def _stdout_errors() -> Iterator[None]:
    """Turn an error of standard output into one of bnfold; a broken pipe is handled elsewhere."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        from bnfold.errors import SaveError, reason

        raise SaveError(
            f"The report could not be printed: {reason(error)}.",
            "The files are written. Send the output somewhere else, or add --quiet.",
        ) from error


def check_report(path: Path | None, *others: Path) -> None:
    """Refuse a bad path for a report before any work is done; `others` are the command's other files."""
    if path is None or is_stdout(path):
        return
    _check_place(path, others)


def check_page(path: Path | None, *others: Path | None, plots: bool = True) -> None:
    """Refuse a page before any work is done: its path is bad, or a package for it is not installed.

    Args:
        path: The page, which is always written to a file; None where there is to be none.
        others: The command's other files; None for those that were not named.
        plots: Whether there are plots on it.
    """
    if path is None:
        return
    from importlib.util import find_spec

    from bnfold.errors import MissingExtraError

    _check_place(path, [other for other in others if other is not None and not is_stdout(other)])
    for package in ("jinja2", "matplotlib") if plots else ("jinja2",):
        if find_spec(package) is None:
            raise MissingExtraError(package, "report", "write the page")


def _check_place(path: Path, others: Sequence[Path]) -> None:
    from bnfold.files.atomic import check_destination
    from bnfold.files.load import files_beside

    check_destination(path, *others)
    if path.exists():  # it may hold weights of a model; this check takes longer than all others
        for other in others:
            check_destination(path, *files_beside(other))


def read_inputs(
    path: Path | None, *, labels: Path | None = None, top: int = 5, **images: str | None
) -> Given | None:
    """The inputs that were given, if any; they are read later, when the model is known.

    Args:
        path: Where they are; None for random ones.
        labels: The file of --labels.
        top: The number of --top.
        images: The texts of --mean, --std and --size.
    """
    from bnfold.errors import InputError

    if path is None:
        if any(images.values()):
            raise InputError(
                "--mean, --std and --size are for images.", "Give the folder of images with --inputs."
            )
        if labels:
            raise InputError("--labels is for data of your own.", "Give the data with --inputs.")
        return None
    from bnfold.inputs.given import Given

    return Given.parse(path, labels=labels, top=top, **images)


def known_providers(names: Sequence[str]) -> tuple[str, ...]:
    """The short names of providers, each once; a name that is not one is an error before any work is done."""
    from bnfold.runtime.providers import full_name, import_runtime, short_name

    short = tuple(dict.fromkeys(map(short_name, names)))
    if short != ("cpu",):  # whether ONNX Runtime is needed at all shows later
        ort = import_runtime()
        for name in short:
            full_name(ort, name)
    return short


def known_runtimes(names: Sequence[str]) -> tuple[str, ...]:
    """The runtimes other than ONNX Runtime, each once; one that is not there is an error before any work."""
    from bnfold.engines.known import OWN, choice

    others = tuple(dict.fromkeys(name for name in names if name != OWN))
    for name in others:
        choice(name).engine.demand()
    return others


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show each stage on a terminal; show nothing in a pipe."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield silent
        return
    from bnfold.display.bar import bar

    with bar(WORDS) as report:
        yield report


@contextmanager
def counting(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how many of several things are done on a terminal; show nothing in a pipe."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_stdout(path: Path | None) -> bool:
    """Whether the JSON report goes to standard output."""
    return path is not None and str(path) == "-"
