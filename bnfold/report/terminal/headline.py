"""The answer before any table: what was folded, does it agree, is it faster, what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from bnfold.files.external_writer import own_files
from bnfold.report.terminal.tables import count, size

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.targeting import Reached
    from bnfold.validation.results import Validation

_VERDICTS = {"faster": "green", "slower": "bold red", "too noisy to say": "yellow"}


def of_export(export: Export) -> list[Text]:
    """The answer of an export or a fold, a line for each question."""
    lines = [*slower(export.benchmarks), Text(export.fold.headline)]
    if export.validation is not None:
        lines.append(of_validation(export.validation))
    lines += [line for one in export.benchmarks if not one.slower for line in of_benchmark(one)]
    lines.append(written(export.destination) if export.destination else Text("Nothing was written."))
    if export.target is not None:
        lines.append(of_target(export.target))
    return lines


def of_target(reached: Reached) -> Text:
    """Whether anything stands in the way to the target."""
    name, many = reached.profile.name, len(reached.obstacles)
    if not many:
        return Text(f"Nothing that bnfold knows stands in the way to {name}.", style="green")
    stand = "stands" if many == 1 else "stand"
    return Text(f"{count(many, 'thing')} {stand} in the way to {name}; see below.", style="bold yellow")


def of_validation(validation: Validation) -> Text:
    """Whether the models compute the same."""
    if not validation.passed:
        undecided = validation.undecided and not validation.failures
        return Text(validation.headline, style="bold yellow" if undecided else "bold red")
    return Text(validation.headline, style="yellow" if validation.not_compared else "green")


def of_benchmark(benchmark: Benchmark) -> list[Text]:
    """Whether the folded model is faster where it runs as it will be used."""
    threads = count(benchmark.threads, "thread")
    return [
        Text(f"On {benchmark.place(row)}, {threads}: {row.sentence}.", style=_VERDICTS.get(row.verdict, ""))
        for row in benchmark.defaults
    ]


def slower(benchmarks: Iterable[Benchmark]) -> list[Text]:
    """Where the folded model is slower, which is said before all else."""
    return [Text(line, style=_VERDICTS["slower"]) for one in benchmarks for line in one.slower]


def written(path: Path) -> Text:
    """Which files were written, with their sizes."""
    line = Text("Wrote ")
    for file in (path, *map(path.with_name, sorted(own_files(path)))):
        line.append("" if file == path else " and ")
        line.append(str(file) if file == path else file.name, style="bold")
        line.append(f" ({size(file.stat().st_size)})")
    return line.append(".")
