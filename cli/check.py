"""`bnfold check`."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.errors import InputError

from . import _options, _terminal

if TYPE_CHECKING:
    from bnfold.gate.configuration import Configuration
    from bnfold.gate.run import Checked

_CACHE = Path(".bnfold_cache")
_SELECTION = ("select", "extend_select", "ignore")


@click.command("check")
@click.argument("paths", nargs=-1, metavar="[PATH|GLOB|FOLDER|-]...")
@click.option(
    "--output-format",
    "formats",
    multiple=True,
    default=("concise",),
    metavar="FORMAT[=FILE]",
    show_default=True,
    help="concise, full, json, github, gitlab, junit, sarif or markdown; printed, or written to FILE."
    " Repeatable.",
)
@click.option(
    "--json",
    "json_path",
    type=_options.FILE,
    metavar="FILE",
    help="Write a JSON report for programs (schema: docs/check.schema.json); - means standard output.",
)
@click.option(
    "--fix", is_flag=True, help="Fold in place what can be folded, each file proved before it is replaced."
)
@click.option("--diff", is_flag=True, help="Show what --fix would change, and change nothing.")
@click.option(
    "--select", multiple=True, metavar="CODES", help="Ask these rules only: M101, M2 for all of M2xx, ALL."
)
@click.option("--extend-select", multiple=True, metavar="CODES", help="Ask these rules as well.")
@click.option("--ignore", multiple=True, metavar="CODES", help="Leave these rules out.")
@click.option(
    "--against",
    "earlier",
    metavar="FOLDER|FILE|git:REV",
    help="What the models were before: rules M402 to M405 compare with it, such as git:main.",
)
@click.option(
    "--baseline", "accepted", type=_options.FILE, metavar="FILE", help="Accept the findings of this file."
)
@click.option(
    "--write-baseline",
    type=_options.FILE,
    metavar="FILE",
    help="Write all findings to this file, as accepted from now on.",
)
@click.option(
    "--config",
    type=_options.FILE,
    metavar="FILE",
    help="The settings; otherwise the nearest bnfold.toml, or pyproject.toml with [tool.bnfold], upwards.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Models side by side; one per CPU otherwise."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    metavar="SECONDS",
    show_default=True,
    help="End the check of a model that takes longer.",
)
@click.option(
    "--cache-dir",
    "cache",
    type=_options.FILE,
    default=_CACHE,
    metavar="FOLDER",
    show_default=True,
    envvar="BNFOLD_CACHE_DIR",
    help="Where answers are kept, by content. BNFOLD_CACHE_DIR does the same.",
)
@click.option("--no-cache", is_flag=True, help="Ask everything again, and keep nothing.")
@click.option(
    "--statistics", is_flag=True, help="Print how often each rule found something, in place of findings."
)
@click.option("--exit-zero", is_flag=True, help="End with 0 even if there are findings.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on standard output; files are written.")
def command(
    paths: tuple[str, ...],
    formats: tuple[str, ...],
    json_path: Path | None,
    fix: bool,
    diff: bool,
    write_baseline: Path | None,
    config: Path | None,
    statistics: bool,
    exit_zero: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Check every model of a repository.

    Without PATH, the models of this folder and those below it; with -, the names on standard input. Each
    finding has a code, which `bnfold explain` explains. Exits with 1 if there are findings.

    \b
    Examples:
        bnfold check
        bnfold check models/ --fix
        bnfold check --against git:main --output-format github --output-format sarif=bnfold.sarif
        bnfold check --write-baseline bnfold-baseline.json
        git diff --name-only --diff-filter=d main -- '*.onnx' | bnfold check -
    """
    from bnfold.gate.run import check
    from bnfold.report.visible import visible

    if fix and diff:
        raise click.UsageError("--fix changes files and --diff changes none: take one.")
    configuration = _configured(config, {name: asked.pop(name) for name in _SELECTION})
    if json_path is not None:
        formats = ("json",) if _terminal.is_stdout(json_path) else (*formats, f"json={json_path}")
    written = _formats(formats, write_baseline)
    asked["cache"] = None if asked.pop("no_cache") else asked["cache"]
    with _terminal.counting("Checking", quiet=quiet) as progress:
        ask = partial(check, _given(paths), configuration, **asked, progress=progress)
        checked = ask()
        if fix:
            from bnfold.gate.fix import fix as mend

            if mended := mend(checked):
                checked = ask()
            if mended and not quiet:
                click.echo(f"Folded and proved: {visible(', '.join(mended))}.", err=True)
    if write_baseline is not None:
        from bnfold.gate import baseline as accepting

        accepting.write(checked.all, write_baseline)
        if not quiet:
            are = "finding is" if len(checked.all) == 1 else "findings are"
            click.echo(f"Wrote {write_baseline}: {len(checked.all)} {are} accepted.", err=True)
        return
    if diff and not quiet:
        from bnfold.gate.fix import difference

        for text in difference(checked):
            click.echo(visible(text), nl=False)
    _show(checked, written, statistics=statistics, quiet=quiet or diff)
    if not checked and not exit_zero:
        click.get_current_context().exit(1)


def _configured(config: Path | None, selection: dict[str, tuple[str, ...]]) -> Configuration:
    """The settings of the file, and over them what the command line selects."""
    from bnfold.gate import configuration

    if config is not None and not config.is_file():
        raise InputError(f"{config} is not there.", "Check the path of --config.")
    known = configuration.load(config) if config else configuration.nearest(Path.cwd())
    chosen: dict[str, Any] = {
        name: tuple(code for one in given for code in one.replace(",", " ").split())
        for name, given in selection.items()
        if given
    }
    for codes in chosen.values():
        for code in codes:
            configuration.check_code(code)
    return replace(known, settings=replace(known.settings, **chosen))


def _formats(given: Sequence[str], other: Path | None) -> list[tuple[str, Path | None]]:
    """The formats and the files that they go to; None is standard output.

    Args:
        given: As they are on the command line.
        other: Another file that is written.
    """
    from bnfold.files.atomic import check_destination
    from bnfold.report.findings import FORMATS

    chosen: list[tuple[str, Path | None]] = []
    for one in given:
        name, _, file = one.partition("=")
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"{name!r} is not a format; known are {', '.join(FORMATS)}.{hint}")
        chosen.append((name, Path(file) if file not in ("", "-") else None))
    if sum(file is None for _, file in chosen) > 1:
        raise click.UsageError("Only one format can go to standard output: write the others as FORMAT=FILE.")
    outputs = [output for output in (*(file for _, file in chosen), other) if output is not None]
    for at, output in enumerate(outputs):
        check_destination(output, *outputs[:at])
    return chosen


def _given(paths: Sequence[str]) -> list[str]:
    """The paths; those on standard input where one is `-`."""
    given: list[str] = []
    for path in paths or (".",):
        given += [line for line in sys.stdin.read().splitlines() if line] if path == "-" else [path]
    return given


def _show(
    checked: Checked, formats: Sequence[tuple[str, Path | None]], *, statistics: bool, quiet: bool
) -> None:
    from bnfold.files.atomic import destination, replacing, save_errors
    from bnfold.gate.rules import RULES
    from bnfold.report.findings import renderer

    for name, file in formats:
        if file is not None:
            content = renderer(name)(checked)
            with save_errors(file), replacing(destination(file)) as stream:
                stream.write(content.encode())
        elif not quiet and not statistics:
            click.echo(renderer(name)(checked), nl=False)
    if statistics and not quiet:
        counts = Counter(one.code for one in checked.findings)
        for code, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            click.echo(f"{count:5}  {code}  {RULES[code].title}")
