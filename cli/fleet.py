"""`bnfold fleet`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.errors import InputError
from bnfold.fleet.options import GROUPS, OPTIONS, Option

from . import _complete, _groups, _options, _terminal

if TYPE_CHECKING:
    from bnfold.fleet.plan import Plan
    from bnfold.fleet.progress import Progress
    from bnfold.fleet.run import Outcome, Shard

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_EACH = 30.0  # seconds between the lines of a log
_METRICS_EACH = 5.0  # seconds between two writes of --metrics
_TYPES = {"text": str, "texts": str, "whole": int, "number": float, "object": str}


def _bytes(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, as `4GB`."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if found is None:
        raise click.BadParameter(f"{text!r} is not a size; write it as 4GB or 512MiB.", ctx, option)
    return int(float(found[1]) * _UNITS[found[2] or ""])


def _shard(ctx: click.Context, option: click.Parameter, text: str | None) -> Shard | None:
    """A part of the fleet, as `1/8`."""
    from bnfold.fleet.run import Shard

    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a shard; write it as 1/8.", ctx, option)
    return Shard(int(found[1]), int(found[2]))


_SOURCES = click.argument(
    "sources", nargs=-1, required=True, metavar="SOURCE|-...", shell_complete=_complete.files
)
_PLACES = _groups.together(
    "Where results go",
    click.option(
        "--out",
        required=True,
        metavar="URL",
        help="A folder, or s3://BUCKET/PREFIX and the like.",
    ),
    click.option("--resume", is_flag=True, help="Leave out models that have a result for the same content."),
    click.option(
        "--json",
        "json_path",
        type=_options.FILE,
        metavar="FILE",
        help="Write the report for programs to this file as well; - means standard output.",
    ),
    click.option(
        "--metrics",
        type=_options.FILE,
        metavar="FILE",
        help="Write progress for Prometheus's textfile collector, such as fleet.prom.",
    ),
    click.option("--exit-zero", is_flag=True, help="End with 0 even if not every model is good."),
    click.option("-q", "--quiet", is_flag=True, help="Print only errors, and what to do about them."),
)
_WORKERS = _groups.together(
    "Who does it",
    click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="NAME",
        help="local; dask or ray on this machine; dask://HOST:PORT or ray://HOST:PORT for a cluster.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Models side by side on this machine; one per CPU otherwise.",
    ),
    click.option(
        "--shard",
        callback=_shard,
        metavar="I/N",
        help="Do the I-th of N parts only, for arrays of jobs. Who ends last writes the report.",
    ),
)
_EACH_MODEL = _groups.together(
    "Each model",
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        default=600,
        show_default=True,
        metavar="SECONDS",
        help="End the process of a model that takes longer.",
    ),
    click.option(
        "--memory-limit",
        callback=_bytes,
        metavar="SIZE",
        help="What the process of one model may hold, such as 4GB (Linux).",
    ),
    click.option(
        "--expect",
        multiple=True,
        metavar="NAME=SIZES",
        help="The sizes of an input, such as image=Nx3x224x224: check asks for them (M309), export reads"
        " PyTorch's files with them. Repeatable.",
    ),
    click.option(
        "--cache-dir",
        metavar="FOLDER",
        envvar="BNFOLD_CACHE_DIR",
        help="A folder on each worker where answers of check are kept by content, as `bnfold check` does.",
    ),
)
_CONFIG = _groups.together(
    "Rules",
    click.option(
        "--config",
        type=_options.FILE,
        metavar="FILE",
        help="The settings of bnfold check; otherwise the nearest bnfold.toml, upwards.",
    ),
)


@click.group("fleet")
def command() -> None:
    """Check, fold or export every model of a zoo.

    SOURCE is a model, a folder, a pattern, a .zip or a manifest (.jsonl, .csv, .parquet), on this machine or
    wherever fsspec reaches: s3://, gs://, az://, hf://, https://; with -, names on standard input. Each model
    has a process of its own, and whatever happens to it is a result. docs/fleet.md says more.

    \b
    Examples:
        bnfold fleet check models/ --out results
        bnfold fleet export s3://zoo/vision --out s3://results/vision --engine dask://scheduler:8786
        bnfold fleet fold zoo.csv --out results --shard 3/16 --resume
        bnfold fleet check models/ --out results --json - | jq .reasons
    """


def _option(name: str, option: Option) -> Callable[[Any], Any]:
    if option.kind == "flag":
        return click.option(f"--{name}", name.replace("-", "_"), is_flag=True, help=option.help)
    return click.option(
        f"--{name}",
        name.replace("-", "_"),
        type=_TYPES[option.kind],
        multiple=option.kind == "texts",
        metavar=option.metavar,
        help=option.help,
    )


def _subcommand(name: str, text: str) -> None:
    """Add one of the three commands, with its own options after the common ones."""

    def run(**given: Any) -> None:
        own = {key: given.pop(key.replace("-", "_")) for key in OPTIONS[name]}
        _run(name, {key: value for key, value in own.items() if value not in (None, False, ())}, **given)

    run.__doc__ = text
    decorators = [_SOURCES, _PLACES, _WORKERS, _EACH_MODEL, *([_CONFIG] if name == "check" else [])]
    for title, options in GROUPS[name].items():
        decorators.append(_groups.together(title, *(_option(key, one) for key, one in options.items())))
    function: Any = run
    for decorate in reversed(decorators):
        function = decorate(function)
    command.command(name, cls=_groups.Command)(function)


_EXAMPLES = """{}

    \b
    Examples:
        bnfold fleet {} {} --out results
        bnfold fleet {} {} --out results --resume
    """
_subcommand(
    "check",
    _EXAMPLES.format(
        *("Ask the rules of `bnfold check` about every model.", "check", "models/", "check", "s3://zoo")
    ),
)
_subcommand(
    "fold",
    _EXAMPLES.format(
        *("Fold every ONNX model into OUT/models, without running any.", "fold", "models/", "fold", "zoo.csv")
    ),
)
_subcommand(
    "export",
    _EXAMPLES.format(
        "Turn every model into a folded ONNX file in OUT/models, proved as `bnfold export` does.",
        *("export", "models/ --jobs 4", "export", "s3://zoo/vision"),
    ),
)


def _run(
    name: str,
    own: dict[str, Any],
    *,
    sources: tuple[str, ...],
    engine: str,
    jobs: int | None,
    shard: Shard | None,
    resume: bool,
    metrics: Path | None,
    json_path: Path | None,
    exit_zero: bool,
    quiet: bool,
    config: Path | None = None,
    **given: Any,
) -> None:
    from bnfold.fleet import sources as finding
    from bnfold.fleet.engines import opened
    from bnfold.fleet.ledger import Ledger
    from bnfold.fleet.run import run

    _terminal.check_report(json_path)
    plan, again = _plan(name, own, config, **given)
    named = [one for one in sources if one != "-"]
    lines = (line.rstrip("\r\n") for line in (sys.stdin if "-" in sources else ()))
    with Ledger(
        plan, finding.models(named, name, plan.settings, filter(None, lines), out=plan.out)
    ) as ledger:
        if not len(ledger):
            raise InputError("Standard input names no models.", "Write a path or an address in each line.")
        with _shown(name, metrics, quiet=quiet) as progress, opened(engine, jobs) as workers:
            done = run(ledger, workers, resume=resume, shard=shard, again=again, on_progress=progress)
    if done.report is not None:
        _terminal.write_json(done.report, json_path)
    if not quiet and not _terminal.is_stdout(json_path):
        _say(done, plan)
    if not done and not exit_zero:
        click.get_current_context().exit(1)


def _plan(
    name: str,
    own: dict[str, Any],
    config: Path | None,
    *,
    out: str,
    time_limit: float,
    memory_limit: int | None,
    expect: tuple[str, ...],
    cache_dir: str | None,
) -> tuple[Plan, str]:
    """What is wanted, after every check that needs no model; and what the line for one model needs too."""
    from bnfold.fleet import transport
    from bnfold.fleet.options import converted, words
    from bnfold.fleet.plan import Limits, Plan
    from bnfold.gate import configuration
    from bnfold.gate.run import deciding

    known = configuration.load(config) if config else configuration.nearest(Path.cwd())
    own = converted(name, own, "The command line")
    if own.get("only-if-faster") and not own.get("bench"):
        raise click.UsageError("--only-if-faster needs the latency: add --bench.")
    for codes in own.values() if name == "check" else ():
        for code in codes:
            configuration.check_code(code)
    if (folder := transport.local(out)) is not None:
        out = folder.absolute().as_posix()  # workers may have another folder
    transport.filesystem(out)
    if own.get("trust"):
        click.echo("--trust: the files may run any code on the workers, while they are read.", err=True)
    if wrong := [one for one in expect if "=" not in one]:
        raise click.UsageError(f"--expect {wrong[0]} has no name; write it as image=Nx3x224x224.")
    sizes, limits = dict(one.split("=", 1) for one in expect), Limits(time_limit, memory_limit)
    plan = Plan(name, out, own, sizes, known.settings, limits, cache_dir, deciding())
    also = {"config": str(known.file.absolute())} if known.file and name == "check" else {}
    return plan, words(also | ({"cache-dir": cache_dir} if cache_dir else {}))


@contextmanager
def _shown(name: str, metrics: Path | None, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show progress: as a bar on a terminal, as lines in a log, and in a file if one is named."""
    from bnfold.fleet.progress import write_prometheus

    begin = time.monotonic()
    due = {"log": begin + _EACH, "metrics": begin}
    with _bar(quiet=quiet) as bar:

        def show(progress: Progress) -> None:
            now, is_last = time.monotonic(), progress.done == progress.total
            if bar is not None:
                bar(progress)
            elif not quiet and now >= due["log"]:
                due["log"] = now + _EACH
                click.echo(progress.sentence, err=True)
            if metrics is not None and (now >= due["metrics"] or is_last):
                due["metrics"] = now + _METRICS_EACH
                write_prometheus(progress, name, metrics)

        yield show


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar, if standard error is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(
        BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("Starting", total=None)
        yield lambda progress: bar.update(
            task, description=progress.sentence, completed=progress.done, total=progress.total
        )


def _say(done: Outcome, plan: Plan) -> None:
    from bnfold.fleet import text, transport

    known, out = done.progress.known, transport.shown(plan.out)
    if done.report is None:
        if known == done.progress.total:
            click.echo(f"Nothing to do in this part: all {known:,} results are there.")
        click.echo(
            f"{done.progress.done:,} models of this part have a result, {done.left:,} others have none yet."
        )
        return
    click.echo(text.render(done.report, known=known), nl=False)
    click.echo(f"Wrote {', '.join(done.files)} into {out}.", err=True)
