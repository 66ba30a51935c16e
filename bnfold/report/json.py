"""Every result as one JSON document, described by `docs/report.schema.json`.

A document names its version in `schema`. Within a version keys are only added; a key that changes its meaning
makes a new version. It holds neither NaN nor infinity: a number that is not finite is `null`. This module has
what differs from a plain [`record`][bnfold.report.record.record], which has the fields under their own names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from bnfold.edge.ranges import losses
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.external_data import data_files
from bnfold.files.file_kind import sha256
from bnfold.graph.facts import Facts
from bnfold.report.record import Json, plain, record
from bnfold.report.summary import summarise
from bnfold.report.targets import reached_record
from bnfold.result import Status
from bnfold.system.environment import environment, versions

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.export_module import ModuleExport
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.read import Source
    from bnfold.pipeline.replay import Replay
    from bnfold.reasons import Reason, Rule
    from bnfold.result import FoldResult, Site
    from bnfold.system.doctor import Diagnosis
    from bnfold.validation.layers import Blame
    from bnfold.validation.results import Validation

SCHEMA = "bnfold.report/1"

Document: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One document, or one of each of several models."""


def document(command: str, **parts: object) -> Json:
    """Begin with what every report has, then the parts of one command.

    Args:
        command: Which command it was, as `"export"`.
        parts: Values made by the functions of this module, by their key in the document.
    """
    return {"schema": SCHEMA, "command": command, "versions": versions(), **parts}


def export_document(command: str, export: Export, source: Json | None = None) -> Json:
    """Report an `export` or a `fold`; `output` is null when no file was written.

    Args:
        command: `"export"` or `"fold"`.
        export: What it did.
        source: The `source_record` from before the fold, where the output replaced the source.
    """
    return document(
        command,
        source=source or source_record(export.source),
        output=file_record(export.destination) if export.destination else None,
        fold=fold_record(export.fold),
        validation=validation_record(export.validation) if export.validation is not None else None,
        benchmarks=[benchmark_record(benchmark) for benchmark in export.benchmarks],
        rolled_back=list(export.rolled_back),
        graphs=plain(export.graphs),
        no_graphs=export.no_graphs or None,
        not_timed=export.not_timed,
        steps=plain(export.steps),
        contract=contract_record(export) if export.contract else None,
        target=None if export.target is None else reached_record(export.target, export.destination),
        environment=record(environment()),
    )


def statistics_document(export: Export, source: Json | None = None) -> Json:
    """Report the numbers of every BatchNorm that was folded; `source` as in `export_document`."""
    return document(
        "record",
        source=source or source_record(export.source),
        output=file_record(export.destination) if export.destination else None,
        batchnorms=plain(export.statistics),
    )


def inspect_document(source: Source, result: FoldResult[Any]) -> Json:
    """Report what a fold of this model would do."""
    return document(
        "inspect",
        source=source_record(source),
        summary=record(summarise(source), "nodes"),
        fold=fold_record(result),
        int8=plain(losses(Facts(result.model))),
    )


def validate_document(original: Source, folded: Source, result: Validation) -> Json:
    """Report the comparison of two models."""
    return document(
        "validate",
        original=source_record(original),
        folded=source_record(folded),
        validation=validation_record(result),
        environment=record(environment()),
    )


def replay_document(result: Replay) -> Json:
    """Report whether an earlier validation still holds."""
    return document(
        "replay",
        report=file_record(result.report),
        holds=result.holds,
        changes=list(result.changes),
        original=source_record(result.models[0]) if result.models else None,
        folded=source_record(result.models[1]) if result.models else None,
        validation=validation_record(result.validation) if result.validation is not None else None,
        environment=record(environment()),
    )


def bench_document(original: Source, folded: Source, results: Sequence[Benchmark]) -> Json:
    """Report the latency of two models, one entry for each provider."""
    return document(
        "bench",
        original=source_record(original),
        folded=source_record(folded),
        benchmarks=[benchmark_record(result) for result in results],
        environment=record(environment()),
    )


def rules_document(rules: Sequence[Rule]) -> Json:
    """Report the rules that `bnfold explain` was asked for."""
    hidden = ("advice", "instead")
    return document("explain", rules=[record(rule, "remedy", without=hidden) for rule in rules])


def doctor_document(diagnosis: Diagnosis) -> Json:
    """Report what the installation is and what is wrong with it."""
    return document(
        "doctor",
        environment=record(diagnosis.environment),
        healthy=diagnosis.healthy,
        findings=plain(diagnosis.findings),
    )


def contract_record(export: Export) -> Json:
    """Say what was changed before the fold, as it was asked for and step by step."""
    return {"asked": export.asked.record(), "steps": plain(export.contract)}


def file_record(path: Path) -> Json:
    """Identify a file by its path, its size in bytes and its SHA-256."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}


def source_record(source: Source) -> Json:
    """Identify a model that was read, with the files of its external data, and say how it was read."""
    return read_record(source, sorted(data_files(source.model)))


def read_record(read: Source | ModuleExport, external_data: Sequence[Path] = ()) -> Json:
    """Identify a file that was read and the other files that hold its data, and say how it was read."""
    return {
        **file_record(read.path),
        "kind": read.kind,
        "was_training": read.was_training,
        "external_data": [file_record(path) for path in external_data],
        "options": dict(read.options),
        "notes": list(read.notes),
    }


def fold_record(result: FoldResult[Any]) -> Json:
    """List every site and what became of it."""
    statuses = [site.status for site in result.sites]
    counts = {status: statuses.count(status) for status in get_args(Status)}
    return {
        "summary": {"sites": len(statuses), **counts},
        "nodes_before": result.nodes_before,
        "nodes_after": result.nodes_after,
        "sites": [_site_record(site) for site in result.sites],
        "merges": plain(result.merges),
        "apart": [_reason_record(reason) for reason in result.apart],
        "joins": plain(result.joins),
    }


def _site_record(site: Site) -> Json:
    reasons = {"reason": site.reason, "reason_after": site.reason_after}
    given = {name: reason and _reason_record(reason) for name, reason in reasons.items()}
    return record(site, without=reasons) | given


def _reason_record(reason: Reason) -> Json:
    given = ("code", "title", "sentence", "remedy", "facts")
    return record(reason, *given, without=("rule", "situation", "facts"))


def validation_record(validation: Validation) -> Json:
    """List every comparison, for each provider, optimizer setting and output, and the proof of the fold."""
    from bnfold.engines.known import options  # it reads models

    return record(validation, "passed", "undecided", "not_compared") | {
        "checks": [record(check, "passed") for check in validation.checks],
        "layers": [record(layer, "agrees") for layer in validation.layers],
        "blame": validation.blame and _blame_record(validation.blame),
        "accuracy": validation.accuracy and record(validation.accuracy, "sentence"),
        "faults": [record(fault, "affects_folded", "sentence") for fault in validation.faults],
        "repeatability": plain(dict(validation.repeatability)),
        "placement": plain(dict(validation.placement)),
        "provider_options": {
            provider: dict(options(provider, validation.threads)) for provider in validation.providers
        },
    }


def _blame_record(blame: Blame) -> Json:
    return {"value": blame.layer.name, **record(blame, "sentence", without=("layer",))}


def benchmark_record(benchmark: Benchmark) -> Json:
    """Give quantiles in milliseconds, ratios with their intervals, verdicts, and the size of both models."""
    single_times = ("original_times_ms", "folded_times_ms", "control_times_ms")
    rows = [record(row, "verdict", without=single_times) for row in benchmark.rows]
    return record(benchmark, "sentence", "slower", "notes", without=("rows",)) | {"rows": rows}


def dumps(report: Document) -> str:
    """Write a document as text; a NaN in it is an error, since JSON has none."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def write(report: Document, path: str | os.PathLike[str]) -> None:
    """Write a document to a file, whole or not at all.

    Raises:
        SaveError: The file could not be written.
    """
    text = dumps(report)  # before anything is opened, so that a document that is not JSON leaves no file
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(text.encode())
