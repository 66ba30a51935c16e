"""The answer before any table: what was folded, does it agree, is it faster, what was written."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bnfold.files.external_writer import own_files
from bnfold.pipeline.narrow import narrowed, renamed
from bnfold.report.terminal.fates import fold_summary
from bnfold.report.terminal.tables import count, more, size

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.narrow import Narrowed
    from bnfold.pipeline.read import Source
    from bnfold.pipeline.targeting import Reached
    from bnfold.result import FoldResult
    from bnfold.validation.results import Validation

_FILES_SHOWN = 8
_VERDICTS = {"faster": "green", "slower": "bold red", "too noisy to say": "yellow"}


def of_export(export: Export, *, verbose: bool = False) -> list[Text]:
    """The answer of an export or a fold, a line for each question."""
    less = narrowed(export.steps)
    lines = [*slower(export.benchmarks, less), Text(export.fold.headline)]
    if export.validation is not None:
        lines.append(of_validation(export.validation, less))
    elif export.destination:
        lines.append(_not_compared(export, export.destination))
    if less is not None:
        lines.append(Text(less.sentence, style="" if less.is_good else "bold yellow"))
    lines += [line for one in export.benchmarks for line in of_benchmark(one, less)]
    if export.not_timed:
        lines.append(Text(export.not_timed, style="yellow"))
    if export.destination:
        lines.append(written(export.destination, verbose=verbose))
    else:
        lines.append(Text("Nothing was written."))
    if export.target is not None:
        lines.append(of_target(export.target))
    return lines


def _not_compared(export: Export, written: Path) -> Text:
    """That the models were not run, and how to do it where both are files that take the same inputs."""
    line = Text("The outputs were not compared.", style="yellow")
    if export.source.kind == "onnx" and export.source.path != written and not export.contract:
        check = shlex.join(("bnfold", "validate", str(export.source.path), str(written)))
        line.append(f" To compare them: {check}")
    return line


def of_inspection(source: Source, result: FoldResult[Any]) -> Text:
    """How much of a model can be folded."""
    return Text.assemble((str(source.path), "bold"), ": ", fold_summary(result, foreseen=True))


def of_target(reached: Reached) -> Text:
    """Whether anything stands in the way to the target."""
    name, many = reached.profile.name, len(reached.obstacles)
    if not many:
        return Text(f"Nothing that bnfold knows stands in the way to {name}.", style="green")
    stand = "stands" if many == 1 else "stand"
    return Text(f"{count(many, 'thing')} {stand} in the way to {name}; see below.", style="bold yellow")


def of_validation(validation: Validation, less: Narrowed | None = None) -> Text:
    """Whether the models compute the same; where numbers have fewer bits after, that it was before."""
    if not validation.passed:
        undecided = validation.undecided and not validation.failures
        return Text(validation.headline, style="bold yellow" if undecided else "bold red")
    said = validation.headline
    if less is not None and less.passed:
        said = f"{less.before}{said[0].lower()}{said[1:]}"
    return Text(said, style="yellow" if validation.not_compared else "green")


def of_benchmark(benchmark: Benchmark, less: Narrowed | None = None) -> list[Text]:
    """Whether the folded model is faster where it runs as it will be used, on the first number of threads.

    Where it is slower, `slower` says it before.
    """
    if benchmark.slower and not benchmark.has_several_threads:
        return []
    threads = "" if benchmark.has_several_threads else f", {count(benchmark.threads, 'thread')}"
    return [
        Text(
            f"On {benchmark.place(row)}{threads}: {renamed(row.sentence, less)}.",
            style=_VERDICTS.get(row.verdict, ""),
        )
        for row in benchmark.first
        if row.verdict != "slower"
    ]


def slower(benchmarks: Iterable[Benchmark], less: Narrowed | None = None) -> list[Text]:
    """Where the folded model is slower, which is said before all else."""
    return [Text(renamed(line, less), style=_VERDICTS["slower"]) for one in benchmarks for line in one.slower]


def recorded(path: Path, batchnorms: int) -> Text:
    """That the file of `--record` was written, and of how many BatchNorms it tells."""
    line = Text("Wrote ").append(str(path), style="bold")
    if batchnorms:
        return line.append(f" (statistics of {count(batchnorms, 'BatchNorm')}).")
    return line.append(" (no statistics: no BatchNorm whose numbers are known was folded).")


def written(path: Path, *, verbose: bool = False) -> Text:
    """Which files were written, with their sizes; of very many the first, and how large the others are."""
    files = [path, *map(path.with_name, sorted(own_files(path)))]
    most = len(files) if verbose or len(files) <= _FILES_SHOWN + 1 else _FILES_SHOWN
    line = Text("Wrote ")
    for file in files[:most]:
        line.append("" if file == path else " and ")
        line.append(str(file) if file == path else file.name, style="bold")
        line.append(f" ({size(file.stat().st_size)})")
    if rest := files[most:]:
        total = size(sum(file.stat().st_size for file in rest))
        line.append(" ").append_text(more(f"{len(rest):,} more files, {total}"))
    return line.append(".")
