"""Every result as one JSON document, described by `docs/report.schema.json`.

A document names its version in `schema`. Within a version keys are only added; a key that changes its meaning
makes a new version. There is no NaN and no infinity in it: a number that is not finite is `null`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.external_data import data_files
from bnfold.files.file_kind import sha256
from bnfold.runtime.sessions import CUDA_OPTIONS
from bnfold.system.environment import environment, versions

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark, Row
    from bnfold.pipeline.export import Export
    from bnfold.pipeline.read import Source
    from bnfold.pipeline.replay import Replay
    from bnfold.reasons import Reason, Rule
    from bnfold.result import FoldResult, Merge, Site
    from bnfold.system.doctor import Diagnosis
    from bnfold.validation.results import Blame, Check, Fault, Layer, Request, Validation

SCHEMA = "bnfold.report/1"
Json = dict[str, Any]


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
        source: The `source_record` from before, where the source was replaced.
    """
    return document(
        command,
        source=source or source_record(export.source),
        output=file_record(export.destination) if export.destination else None,
        fold=fold_record(export.fold),
        validation=validation_record(export.validation) if export.validation else None,
        benchmarks=[benchmark_record(benchmark) for benchmark in export.benchmarks],
        rolled_back=list(export.rolled_back),
        environment=environment().record(),
    )


def inspect_document(source: Source, result: FoldResult[Any]) -> Json:
    """Report what a fold of this model would do."""
    return document("inspect", source=source_record(source), fold=fold_record(result))


def validate_document(original: Source, folded: Source, result: Validation) -> Json:
    """Report the comparison of two models."""
    return document(
        "validate",
        original=source_record(original),
        folded=source_record(folded),
        validation=validation_record(result),
        environment=environment().record(),
    )


def replay_document(result: Replay) -> Json:
    """Report whether an earlier validation still holds."""
    return document(
        "replay",
        report=file_record(result.report),
        holds=result.holds,
        changes=list(result.changes),
        validation=validation_record(result.validation) if result.validation else None,
        environment=environment().record(),
    )


def bench_document(original: Source, folded: Source, results: Sequence[Benchmark]) -> Json:
    """Report the latency of two models, one entry a provider."""
    return document(
        "bench",
        original=source_record(original),
        folded=source_record(folded),
        benchmarks=[benchmark_record(result) for result in results],
        environment=environment().record(),
    )


def rules_document(rules: Sequence[Rule]) -> Json:
    """Report the rules that `bnfold explain` was asked for."""
    return document("explain", rules=[rule_record(rule) for rule in rules])


def doctor_document(diagnosis: Diagnosis) -> Json:
    """Report what the installation is and what is wrong with it."""
    return document(
        "doctor",
        environment=diagnosis.environment.record(),
        healthy=diagnosis.healthy,
        findings=[asdict(finding) for finding in diagnosis.findings],
    )


def file_record(path: Path) -> Json:
    """Identify a file by its path, its size in bytes and its SHA-256."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}


def source_record(source: Source) -> Json:
    """Identify a model that was read, with the files of its external data, and say how it was read."""
    return {
        **file_record(source.path),
        "kind": source.kind,
        "was_training": source.was_training,
        "external_data": [file_record(path) for path in sorted(data_files(source.model))],
        "options": dict(source.options),
        "notes": list(source.notes),
    }


def fold_record(result: FoldResult[Any]) -> Json:
    """List every site and what became of it."""
    statuses = [site.status for site in result.sites]
    return {
        "summary": {
            "sites": len(statuses),
            "folded": statuses.count("folded"),
            "merged": statuses.count("merged"),
            "kept": statuses.count("kept"),
        },
        "nodes_before": result.nodes_before,
        "nodes_after": result.nodes_after,
        "sites": [_site_record(site) for site in result.sites],
        "merges": [_merge_record(merge) for merge in result.merges],
        "apart": [_reason_record(reason) for reason in result.apart],
    }


def _site_record(site: Site) -> Json:
    return {
        "name": site.name,
        "node": site.node,
        "op_type": site.op_type,
        "graph": site.graph,
        "status": site.status,
        "into": list(site.into),
        "reason": site.reason and _reason_record(site.reason),
        "reason_after": site.reason_after and _reason_record(site.reason_after),
    }


def _merge_record(merge: Merge) -> Json:
    return {
        "into": merge.into,
        "branches": list(merge.branches),
        "multiply_adds_before": merge.multiply_adds_before,
        "multiply_adds_after": merge.multiply_adds_after,
    }


def _reason_record(reason: Reason) -> Json:
    return {
        "code": reason.code,
        "title": reason.title,
        "sentence": reason.sentence,
        "remedy": reason.remedy,
        "facts": dict(reason.facts),
    }


def validation_record(validation: Validation) -> Json:
    """List every comparison: one a provider, optimizer setting and output."""
    return {
        "passed": validation.passed,
        "problems": list(validation.problems),
        "notes": list(validation.notes),
        "providers": list(validation.providers),
        "threads": validation.threads,
        "samples": validation.samples,
        "seed": validation.seed,
        "tolerance": _number(validation.tolerance),
        "checks": [_check_record(check) for check in validation.checks],
        "oracle": validation.oracle,
        "labels": list(validation.labels),
        "proved_on": list(validation.proved_on),
        "layers": [_layer_record(layer) for layer in validation.layers],
        "blame": validation.blame and _blame_record(validation.blame),
        "faults": [_fault_record(fault) for fault in validation.faults],
        "repeatability": {provider: _number(error) for provider, error in validation.repeatability},
        "placement": {provider: list(nodes) for provider, nodes in validation.placement},
        "provider_options": {
            provider: dict(CUDA_OPTIONS) if provider == "cuda" else {} for provider in validation.providers
        },
        "request": validation.request and _request_record(validation.request),
    }


def _request_record(request: Request) -> Json:
    return {**asdict(request), "providers": list(request.providers), "tolerance": _number(request.tolerance)}


def _layer_record(layer: Layer) -> Json:
    return {
        "name": layer.name,
        "depth": layer.depth,
        "fold_error": _number(layer.fold_error),
        "bound": _number(layer.bound),
        "agrees": layer.agrees,
        "original_error": _number(layer.original_error),
        "folded_error": _number(layer.folded_error),
        "site": layer.site,
        "nodes": list(layer.nodes),
        "originals": list(layer.originals),
    }


def _blame_record(blame: Blame) -> Json:
    return {
        "value": blame.layer.name,
        "runtime": blame.runtime,
        "provider": blame.provider,
        "sentence": blame.sentence,
    }


def _fault_record(fault: Fault) -> Json:
    return {
        "provider": fault.provider,
        "output": fault.output,
        "error": _number(fault.error),
        "off": _number(fault.off),
        "folded": _number(fault.folded),
        "optimizers": list(fault.optimizers),
        "affects_folded": fault.affects_folded,
        "sentence": fault.sentence,
    }


def _check_record(check: Check) -> Json:
    return {
        "provider": check.provider,
        "optimizer": check.optimizer,
        "output": check.output,
        "type": check.type,
        "shapes": [list(shape) for shape in check.shapes],
        "tolerance": _number(check.tolerance),
        "noise": _number(check.noise),
        "max_abs": _number(check.max_abs),
        "max_rel": _number(check.max_rel),
        "cosine": _number(check.cosine),
        "top1": _number(check.top1),
        "passed": check.passed,
        "problem": check.problem,
        "excused": check.excused,
        "error": _number(check.error),
        "original_error": _number(check.original_error),
        "ratio": _number(check.ratio),
        "bound": _number(check.bound),
        "row": check.row,
    }


def benchmark_record(benchmark: Benchmark) -> Json:
    """Give quantiles in milliseconds, ratios with their intervals, verdicts, and what both models weigh."""
    return {
        "provider": benchmark.provider,
        "threads": benchmark.threads,
        "seed": benchmark.seed,
        "shapes": {name: list(shape) for name, shape in benchmark.shapes.items()},
        "sentence": benchmark.sentence,
        "rows": [_row_record(row) for row in benchmark.rows],
        "original": benchmark.original and asdict(benchmark.original),
        "folded": benchmark.folded and asdict(benchmark.folded),
        "cpus": benchmark.cpus,
        "cpu_quota": _number(benchmark.cpu_quota),
        "notes": list(benchmark.notes),
    }


def _row_record(row: Row) -> Json:
    return {
        "optimizer": row.optimizer,
        "rounds": row.rounds,
        "repeats": row.repeats,
        "original_ms": _number(row.original_ms),
        "original_p90_ms": _number(row.original_p90_ms),
        "folded_ms": _number(row.folded_ms),
        "folded_p90_ms": _number(row.folded_p90_ms),
        "ratio": _number(row.ratio),
        "low": _number(row.low),
        "high": _number(row.high),
        "verdict": row.verdict,
        "folded_repeats": row.folded_repeats,
        "measures": row.measures,
        "batch": row.batch,
        "original_p99_ms": _number(row.original_p99_ms),
        "folded_p99_ms": _number(row.folded_p99_ms),
        "control_ms": _number(row.control_ms),
        "control_ratio": _number(row.control_ratio),
        "control_low": _number(row.control_low),
        "control_high": _number(row.control_high),
        "original_load_ms": _number(row.original_load_ms),
        "folded_load_ms": _number(row.folded_load_ms),
        "loads": row.loads,
        "pinned": row.pinned,
        "settled": row.settled,
    }


def rule_record(rule: Rule) -> Json:
    """Give a rule as it is written, with `{facts}` standing for what each case fills in."""
    return {"code": rule.code, "title": rule.title, "sentence": rule.sentence, "remedy": rule.remedy}


def dumps(report: Json) -> str:
    """Write a document as text; a NaN that slipped through is an error rather than broken JSON."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def write(report: Json, path: str | os.PathLike[str]) -> None:
    """Write a document to a file, whole or not at all.

    Raises:
        SaveError: The file could not be written.
    """
    text = dumps(report)  # before anything is opened: what cannot be written leaves no trace
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(text.encode())


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
