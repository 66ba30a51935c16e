"""`bnfold check`."""

from __future__ import annotations

import difflib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.errors import InputError

from . import _complete, _options, _target, _terminal

if TYPE_CHECKING:
    from bnfold.gate.configuration import Configuration
    from bnfold.gate.run import Checked

_CACHE = ".bnfold_cache"
_SELECTION = ("select", "extend_select", "ignore")
_PLACES = ("exclude", "extend_exclude")
_CHOICES = ("force_exclude", "respect_gitignore")


@click.command("check")
@click.argument("paths", nargs=-1, metavar="[PATH|GLOB|FOLDER|-]...", shell_complete=_complete.files)
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
    "--html",
    "html_path",
    type=_options.FILE,
    metavar="FILE",
    help="Write the findings as an HTML page, model by model. It works offline.",
)
@click.option(
    "--fix", is_flag=True, help="Fold in place what can be folded, each file proved before it is replaced."
)
@click.option("--diff", is_flag=True, help="Show what --fix would change, and change nothing.")
@click.option(
    "--select",
    multiple=True,
    metavar="CODES",
    shell_complete=_complete.rules,
    help="Ask these rules only: M101, M2 for all of M2xx, ALL.",
)
@click.option(
    "--extend-select",
    multiple=True,
    metavar="CODES",
    shell_complete=_complete.rules,
    help="Ask these rules as well.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete.targets,
    help="List what stands in the way to a target that `bnfold targets` lists, or that a TOML file describes."
    " Repeatable.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="CODES",
    shell_complete=_complete.rules,
    help="Leave these rules out.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Pass these files and folders over, in place of those that the settings name. Repeatable.",
)
@click.option("--extend-exclude", multiple=True, metavar="PATTERN", help="Pass these over as well.")
@click.option(
    "--force-exclude",
    is_flag=True,
    default=None,
    help="Pass them over also where PATH names them itself, as hooks do.",
)
@click.option(
    "--respect-gitignore/--no-respect-gitignore",
    default=None,
    help="Whether to pass over what git ignores in a folder, which is so unless the settings say otherwise.",
)
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
    help="Write all findings to this file, as accepted from now on. With --baseline, what that accepts in"
    " files that are not looked at stays.",
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
    metavar="FOLDER",
    envvar="BNFOLD_CACHE_DIR",
    help=f"Where answers are kept, by content; {_CACHE} next to the settings otherwise. BNFOLD_CACHE_DIR does"
    " the same.",
)
@click.option("--no-cache", is_flag=True, help="Ask everything again, and keep nothing.")
@click.option("--show-files", is_flag=True, help="Print the files that would be checked, and check none.")
@click.option(
    "--statistics", is_flag=True, help="Print how often each rule found something, in place of findings."
)
@click.option("--exit-zero", is_flag=True, help="End with 0 even if there are findings.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print every site of each finding, and what to do about it: full in place of concise.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on standard output; files are written.")
def command(
    paths: tuple[str, ...],
    formats: tuple[str, ...],
    json_path: Path | None,
    html_path: Path | None,
    fix: bool,
    diff: bool,
    write_baseline: Path | None,
    config: Path | None,
    show_files: bool,
    statistics: bool,
    exit_zero: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Check every model of a repository.

    Without PATH, the models of this folder and those below it; with -, the names on standard input. Each
    finding has a code, which `bnfold explain` explains.

    Exits with 1 if there are findings other than notes (with --diff, if a model would be folded), with 2 if
    the check could not be done, and with 0 otherwise.

    \b
    Examples:
        bnfold check
        bnfold check models/ --fix
        bnfold check net.onnx --target tensorrt --target rknn
        bnfold check --against git:main --output-format github --output-format sarif=bnfold.sarif
        bnfold check --write-baseline bnfold-baseline.json
        git diff -z --name-only --diff-filter=d main -- '*.onnx' | bnfold check -
    """
    from bnfold.display.visible import visible
    from bnfold.gate.run import check

    if fix and diff:
        raise click.UsageError("--fix changes files and --diff changes none: take one.")
    given = {name: asked.pop(name) for name in (*_SELECTION, *_PLACES, *_CHOICES, "targets")}
    configuration = _configured(config, given)
    if show_files:
        _show_files(_given(paths), configuration)
        return
    if asked.pop("verbose"):
        formats = tuple("full" if one == "concise" else one for one in formats)
    if json_path is not None:
        formats = ("json",) if _terminal.is_stdout(json_path) else (*formats, f"json={json_path}")
    written = _formats(formats, write_baseline, html_path)
    _terminal.check_page(html_path, plots=False)
    asked["cache"] = None if asked.pop("no_cache") else asked["cache"] or configuration.root / _CACHE
    with _terminal.counting("Checking", quiet=quiet) as progress:
        ask = partial(check, _given(paths), configuration, **asked, progress=progress)
        checked = ask()
        if fix:
            from bnfold.gate.fix import fix as mend

            mended = mend(checked, jobs=asked["jobs"], time_limit=asked["time_limit"])
            if mended.files:
                checked = ask()
                if not quiet:
                    click.echo(f"Folded and proved: {visible(', '.join(mended.files))}.", err=True)
            for name, why in mended.failures:
                click.echo(f"{visible(name)} is as it was: {visible(why)}.", err=True)
    if write_baseline is not None:
        checked = _accept(checked, write_baseline, asked["accepted"], quiet=quiet)
        _show(checked, written, html_path, statistics=statistics, quiet=True)
        return
    if diff:
        _diff(checked, asked, quiet=quiet)
    for line in _target.answers(checked, configuration.settings.targets) if not (quiet or diff) else ():
        click.echo(visible(line), err=True)
    _show(checked, written, html_path, statistics=statistics, quiet=quiet or diff)
    failed = any(one.fixable for one in checked.findings) if diff else not checked
    if failed and not exit_zero:
        click.get_current_context().exit(1)


def _accept(checked: Checked, path: Path, before: Path | None, *, quiet: bool) -> Checked:
    """Write the findings as a baseline; what is left of them is none."""
    from bnfold.gate import baseline

    others = baseline.read(before) if before is not None else {}
    baseline.write(checked.all, path, {name: others[name] for name in others.keys() - set(checked.looked_at)})
    if not quiet:
        are = "finding is" if len(checked.all) == 1 else "findings are"
        click.echo(f"Wrote {path}: {len(checked.all)} {are} accepted.", err=True)
    return replace(checked, findings=(), accepted=sum(len(one.sites) for one in checked.all), gone=())


def _diff(checked: Checked, asked: dict[str, Any], *, quiet: bool) -> None:
    from bnfold.display.visible import visible
    from bnfold.gate.fix import difference, fixable

    if quiet:
        return
    for text in difference(checked, jobs=asked["jobs"], time_limit=asked["time_limit"]):
        click.echo(visible(text), nl=False)
    count = len(fixable(checked))
    click.echo(f"{count or 'No'} model{'s' * (count != 1)} would be folded.", err=True)


def _show_files(paths: Sequence[str], configuration: Configuration) -> None:
    from bnfold.display.visible import visible
    from bnfold.gate.discover import discover

    for path in discover(paths, configuration.settings, configuration.root).files:
        click.echo(visible(path.as_posix()))


def _configured(config: Path | None, given: dict[str, Any]) -> Configuration:
    """The settings of the file, and over them what the command line gives."""
    from bnfold.gate import configuration

    if config is not None and not config.is_file():
        raise InputError(f"{config} is not there.", "Check the path of --config.")
    known = configuration.load(config) if config else configuration.nearest(Path.cwd())
    chosen = {name: given[name] for name in _PLACES if given[name]}
    chosen |= {name: given[name] for name in _CHOICES if given[name] is not None}
    for name in _SELECTION:
        codes = (code for one in given[name] for code in one.replace(",", " ").split())
        checked = tuple(map(configuration.check_code, codes))
        if given[name]:
            chosen[name] = checked
    if given["targets"]:
        chosen["targets"] = configuration.targets(given["targets"], Path.cwd())
    return replace(known, settings=replace(known.settings, **chosen))


def _formats(given: Sequence[str], *others: Path | None) -> list[tuple[str, Path | None]]:
    """The formats and the files that they go to; None is standard output.

    Args:
        given: As they are on the command line.
        others: Other files that are written.
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
    outputs = [output for output in (*(file for _, file in chosen), *others) if output is not None]
    for at, output in enumerate(outputs):
        check_destination(output, *outputs[:at])
    return chosen


def _given(paths: Sequence[str]) -> list[str]:
    """The paths; those on standard input where one is `-`."""
    given: list[str] = []
    for path in paths or (".",):
        given += _names() if path == "-" else [path]
    return given


def _names() -> list[str]:
    """The names on standard input: a line each, or each with a NUL after it, as `git diff -z` writes them."""
    read: bytes = sys.stdin.buffer.read()
    lines = read.split(b"\0") if b"\0" in read else [line.removesuffix(b"\r") for line in read.split(b"\n")]
    return [os.fsdecode(line) for line in lines if line]


def _show(
    checked: Checked,
    formats: Sequence[tuple[str, Path | None]],
    page: Path | None,
    *,
    statistics: bool,
    quiet: bool,
) -> None:
    from bnfold.display.visible import visible
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
    if page is not None:
        from bnfold.report.page import html

        html.write(html.of_check(checked, command=_terminal.command_line()), page)
        if not quiet:
            click.echo(f"Wrote {visible(str(page))}.", err=True)
    if statistics and not quiet:
        counts = Counter(one.code for one in checked.findings)
        for code, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            click.echo(f"{count:5}  {code}  {RULES[code].title}")
        if not counts:
            click.echo(checked.headline)
