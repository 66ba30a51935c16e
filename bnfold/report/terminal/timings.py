"""Latency as tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bnfold.pipeline.narrow import renamed
from bnfold.report.terminal.tables import SHOWN, count, cut, headed, size

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark, Row
    from bnfold.pipeline.narrow import Narrowed

_VERDICTS = {"faster": "green", "slower": "red", "too noisy to say": "yellow"}


def benchmarks(
    results: Iterable[Benchmark], less: Narrowed | None = None, *, verbose: bool = False
) -> RenderableType:
    """Show the latency on every provider; `less` says if what was timed has fewer bits."""
    return Group(*(part for result in results for part in ("", benchmark(result, less, verbose=verbose))))


def benchmark(result: Benchmark, less: Narrowed | None = None, *, verbose: bool = False) -> RenderableType:
    """Show medians, ratios with intervals, verdicts, quantiles, and the size of both models.

    Args:
        result: The latency on one provider.
        less: The step to fewer bits, if the folded model went through one.
        verbose: Whether all settings are shown; otherwise the first of very many.
    """
    rows, rest = cut(result.rows, SHOWN, verbose=verbose)
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in result.shapes.items())
    threads = "" if result.has_several_threads else f", {count(result.threads, 'thread')}"
    where = f"Latency on {result.provider}{threads}, {shapes}; times in ms"
    notes = [Text(note, style="dim") for note in result.notes]
    tables: list[RenderableType] = [_ratios(rows, result), *rest, "", _quantiles(rows, result), *rest, ""]
    return Group(Text(where), *tables, *_sizes(result), Text(renamed(result.sentence, less)), *notes)


def _ratios(rows: Sequence[Row], result: Benchmark) -> Table:
    """The medians, and first of all what is made of them."""
    threads = _threads(result)
    table = headed(
        *threads,
        "optimizer",
        "verdict",
        "original / folded",
        "95 % interval",
        "original",
        "folded",
        "original / itself",
    )
    for column in table.columns[2 + len(threads) :]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            *(str(row.threads) for _ in threads),
            _setting(row, result),
            Text(row.verdict, style=_VERDICTS.get(row.verdict, "")),
            f"{row.ratio:.3f}×",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{row.original_ms:.3f}",
            f"{row.folded_ms:.3f}",
            f"{row.control_low:.3f} to {row.control_high:.3f}",
        )
    return table


def _quantiles(rows: Sequence[Row], result: Benchmark) -> Table:
    """What 50, 90 and 99 % of the timings are below, and how long it takes to make a session."""
    threads = _threads(result)
    quantiles = ("original p50", "p90", "p99", "folded p50", "p90", "p99", "sessions made in")
    table = headed(*threads, "optimizer", *quantiles)
    for column in table.columns[1 + len(threads) :]:
        column.justify = "right"
    for row in rows:
        original = (row.original_ms, row.original_p90_ms, row.original_p99_ms)
        folded = (row.folded_ms, row.folded_p90_ms, row.folded_p99_ms)
        loading = f"{row.original_load_ms:.1f} / {row.folded_load_ms:.1f}"
        times = (f"{time:.3f}" for time in (*original, *folded))
        table.add_row(*(str(row.threads) for _ in threads), _setting(row, result), *times, loading)
    return table


def _threads(result: Benchmark) -> tuple[str, ...]:
    """The heading of a column of threads, where there are several numbers of them."""
    return ("threads",) if result.has_several_threads else ()


def _setting(row: Row, result: Benchmark) -> str:
    """What distinguishes a row from the others."""
    several = len({other.measures for other in result.rows}) > 1
    return f"{row.optimizer}{row.conditions}{f', {row.measures}' if several else ''}"


def _sizes(result: Benchmark) -> list[RenderableType]:
    if result.original is None or result.folded is None:
        return []
    table = headed("model", "size", "nodes", "parameters", "multiply-adds", "peak memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, model in (("original", result.original), ("folded", result.folded)):
        table.add_row(
            name,
            size(model.bytes),
            f"{model.nodes:,}",
            f"{model.parameters:,}",
            "–" if model.multiply_adds is None else f"{model.multiply_adds:,}",
            "–" if model.peak_memory is None else size(model.peak_memory),
        )
    return [table, ""]
