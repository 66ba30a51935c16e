"""What the page shows, as plain lists and dictionaries of text; the template only sets it out.

The figures come from the JSON document of the same run, so both say the same. A part that it lacks (nothing
was compared, nothing was timed) is None here, and a sentence on the page says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, get_args

from bnfold.edge.ranges import NodeRange
from bnfold.report.page import figures, tiles, verdict
from bnfold.report.page.evidence import evidence
from bnfold.report.page.tiles import Weights
from bnfold.result import Status

View = dict[str, Any]
Record = Mapping[str, Any]
Times = Sequence[Sequence[Mapping[str, Sequence[float]]]]

_TITLES = {
    "sites": "BatchNorms",
    "error": "Error",
    "latency": "Latency",
    "graphs": "Runtime’s graph",
    "ranges": "Weight ranges",
    "evidence": "Evidence",
}
"""The parts that a page may have, in their order; each is a template of this name, and an anchor."""

_NOT_RUN = ("error", "latency", "graphs")  # what a fold alone says nothing about


def view(
    record: Record,
    *,
    command: str,
    weights: tuple[Weights, Weights],
    measured: Sequence[NodeRange],
    times: Times,
    threshold: float,
) -> View:
    """Make the view of one export or fold.

    Args:
        record: The JSON document of the export.
        command: The command line that made it.
        weights: How much the constants of both models are.
        measured: Weight ranges.
        times: For each benchmark and each of its rows the single timings in milliseconds per run, under
            `"original"`, `"folded"` and `"control"`; any of them may be empty.
        threshold: The relative difference from which on the models differ, as 0.03.
    """
    validation = record["validation"]
    names = [name for name in _TITLES if record["command"] != "fold" or name not in _NOT_RUN]
    return {
        **_common(record, [record["source"]], names, command),
        **_compared(validation),
        **_timed(record["benchmarks"], times, threshold),
        **_shown(tiles.of_export(record, weights)),
        "verdict": verdict.of_export(record),
        "sites": _sites(record["fold"]),
        "not_timed": record.get("not_timed"),
        "graphs": figures.graphs(record["graphs"]) if record["graphs"] else None,
        "no_graphs": record.get("no_graphs") or "it is not installed, or cannot load one of them",
        "ranges": figures.ranges(measured) if measured else None,
        "steps": [figures.step(one) for one in record.get("steps", ())],
    }


def of_validation(record: Record, *, command: str) -> View:
    """Make the view of a `validate`.

    Args:
        record: Its JSON document.
        command: The command line that made it.
    """
    validation = record["validation"]
    return {
        **_common(record, _pair(record), ("error", "evidence"), command),
        **_compared(validation),
        **_shown(tiles.of_pair(record)),
        "slower": [],
        "verdict": verdict.of_validation(validation),
    }


def of_replay(record: Record, *, command: str) -> View:
    """Make the view of a replay.

    Args:
        record: Its JSON document, which has no models where their files have changed.
        command: The command line that made it.
    """
    validation = record["validation"]
    models = _pair(record) if validation else [record["report"]]
    changes = tiles.alone("Changes since the report", f"{len(record['changes']):,}")
    return {
        **_common(record, models, ("error", "evidence"), command),
        **_compared(validation),
        **_shown([*(tiles.of_pair(record) if validation else ()), changes]),
        "slower": [],
        "verdict": verdict.of_replay(record),
    }


def of_benchmarks(record: Record, *, command: str, times: Times, threshold: float) -> View:
    """Make the view of a `bench`.

    Args:
        record: Its JSON document.
        command: The command line that made it.
        times: The single timings, as in [`view`][bnfold.report.page.view.view].
        threshold: The relative difference from which on the models differ.
    """
    benchmarks = record["benchmarks"]
    return {
        **_common(record, _pair(record), ("latency", "evidence"), command),
        **_timed(benchmarks, times, threshold),
        **_shown(tiles.of_pair(record)),
        "verdict": verdict.of_benchmarks(benchmarks),
        "accuracy": None,
        "not_timed": None,
    }


def _common(record: Record, models: Sequence[Record], names: Iterable[str], command: str) -> View:
    """What every page has.

    Args:
        record: The document.
        models: The files that the page is named after.
        names: Its parts.
        command: The command line.
    """
    return {
        "title": " → ".join(PurePath(model["path"]).name for model in models),
        "version": record["versions"]["bnfold"],
        "parts": [{"name": name, "title": _TITLES[name]} for name in names],
        "evidence": evidence(record, command),
    }


def _pair(record: Record) -> tuple[Record, Record]:
    return record["original"], record["folded"]


def _compared(validation: Record | None) -> View:
    """What is known of the errors."""
    return {
        "accuracy": ((validation or {}).get("accuracy") or {}).get("sentence"),
        "outputs": figures.outputs(validation) if validation else None,
        "layers": figures.layers(validation) if validation and validation.get("layers") else None,
    }


def _timed(benchmarks: Sequence[Record], times: Times, threshold: float) -> View:
    """What is known of the latency, and where nothing is known."""
    return {
        "slower": [sentence for benchmark in benchmarks for sentence in benchmark["slower"]],
        "latency": [
            *(figures.latency(*one, threshold) for one in zip(benchmarks, times, strict=True)),
            *({"provider": name, "rows": None} for name in figures.missing(benchmarks)),
        ],
    }


def _shown(found: Sequence[View]) -> View:
    return {"tiles": found, "columns": tiles.columns(found)}


def _sites(fold: Record) -> View:
    counts = [{"status": status, "count": fold["summary"].get(status, 0)} for status in get_args(Status)]
    return {
        "rows": [_site(at, site) for at, site in enumerate(fold["sites"], start=1)],
        "counts": [entry for entry in counts if entry["count"]],
        "merges": [
            {
                "into": merge["into"],
                "branches": merge["branches"],
                "before": f"{merge['multiply_adds_before']:,}",
                "after": f"{merge['multiply_adds_after']:,}",
            }
            for merge in fold["merges"]
        ],
        "apart": [_reason("", reason) for reason in fold["apart"]],
    }


def _site(at: int, site: Record) -> View:
    before, after = site["reason"], site["reason_after"]
    reasons = []
    if before:
        reasons.append(_reason(", towards its producers" if after else "", before))
    if after:
        reasons.append(_reason(", towards its consumers", after))
    return {
        "place": at,
        "name": site["name"],
        "graph": site["graph"],
        "op_type": site["op_type"],
        "status": site["status"],
        "into": site["into"],
        "reasons": reasons,
    }


def _reason(direction: str, reason: Record) -> View:
    return {
        "code": reason["code"],
        "direction": direction,
        "sentence": reason["sentence"],  # may begin with a name, so it is not capitalised
        "remedy": reason["remedy"],
    }
