"""Every result as tables and sentences for a terminal, made with rich."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.edge.ranges import losses as measured_losses
from bnfold.errors import listed
from bnfold.graph.facts import Facts
from bnfold.report.terminal import headline
from bnfold.report.terminal.fates import sites
from bnfold.report.terminal.graphs import graphs
from bnfold.report.terminal.steps import changes, steps
from bnfold.report.terminal.tables import count, headed, large, size, small

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark, Row
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.read import Source
    from bnfold.pipeline.replay import Replay
    from bnfold.pipeline.steps import Done
    from bnfold.reasons import Rule
    from bnfold.report.summary import Summary
    from bnfold.result import FoldResult
    from bnfold.system.doctor import Diagnosis
    from bnfold.validation.results import Check, Validation

_LAYERS_SHOWN = 12
_FAILURES_SHOWN = 6
_LOSSES_SHOWN = 4
_UNSEEN_SHOWN = 3  # of each kind
_VERDICTS = {"faster": "green", "slower": "red", "too noisy to say": "yellow"}
_STATES = {"good": "green", "warning": "yellow", "problem": "bold red"}


def export_report(export: Export) -> RenderableType:
    """Show a whole export or fold: the answer, then the sites, the validation and the latency."""
    parts: list[RenderableType] = [*headline.of_export(export), ""]
    parts.append(inspect_report(export.source, export.fold, foreseen=False, contract=export.contract))
    if export.graphs:
        parts.append(graphs(export.graphs, export.fold))
    if export.rolled_back:
        names = ", ".join(export.rolled_back)
        parts += ["", Text(f"Rolled back, because the fold was wrong: {names}.", style="yellow")]
    parts += steps(export.steps)
    if export.validation is not None:
        parts += ["", validation(export.validation)]
    if export.benchmarks:
        parts.append(benchmarks(export.benchmarks))
    if export.not_timed:
        parts += ["", Text(export.not_timed, style="yellow")]
    if export.destination and export.validation is None:
        check = shlex.join(("bnfold", "validate", str(export.source.path), str(export.destination)))
        two = (
            export.source.kind == "onnx" and export.source.path != export.destination and not export.contract
        )
        hint = f" To compare them: {check}" if two else ""
        parts.append(Text(f"The outputs were not compared.{hint}", style="yellow"))
    return Group(*parts)


def inspect_report(
    source: Source,
    result: FoldResult[Any],
    *,
    about: Summary | None = None,
    foreseen: bool = True,
    contract: Sequence[Done] = (),
) -> RenderableType:
    """Show what was read, how it was changed, and its fold as [`sites`][bnfold.report.terminal.fates.sites].

    Args:
        source: The model.
        result: Its fold.
        about: The model in a few figures.
        foreseen: Whether the fold was only tried.
        contract: What was changed before the fold.
    """
    described = [summary(about)] if about else []
    shown = [source_note(source), *changes(contract), *described, "", sites(result, foreseen=foreseen)]
    return Group(*shown, *(losses(result) if about else ()))


def losses(result: FoldResult[Any]) -> list[RenderableType]:
    """Show the layers that one step of eight bits a weight hurts most, in the folded model."""
    found = measured_losses(Facts(result.model))
    if not found:
        return []
    said = f"With one step of 8 bits a weight, {count(len(found), 'layer')} would lose a bit or more:"
    lines = [f"  {one.layer} ({one.operator}): {one.bits:.1f} bits" for one in found[:_LOSSES_SHOWN]]
    rest = len(found) - len(lines)
    if rest:
        lines[-1] += f", and {rest} more"
    return ["", Text(f"{said} --equalize makes it less.", style="yellow"), *map(Text, lines)]


def summary(model: Summary) -> RenderableType:
    """Show what a model takes and gives, what it is made of, and how large it is."""
    opsets = ", ".join(f"{domain or 'opset'} {version}" for domain, version in model.opsets.items())
    producer = f"by {model.producer}" if model.producer else ""
    made_of = [f"{name} {number}" for name, number in model.operators.items()]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows = {
        "inputs": "\n".join(model.inputs),
        "outputs": "\n".join(model.outputs),
        "format": ", ".join(filter(None, (opsets, f"IR version {model.ir_version}", producer))),
        "size": f"{large(model.parameters)} parameters, {size(model.bytes)}, {count(model.nodes, 'node')}",
        "operators": listed(made_of, most=8),
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def source_note(source: Source) -> RenderableType:
    """Say what was read, and that a module in train mode was put in eval mode."""
    line = Text.assemble((str(source.path), "bold"), f" holds {_KINDS[source.kind]}.")
    if source.was_training:
        line.append(
            "\nIt was saved in train mode and put in eval mode (running statistics, no dropout); the file is"
            " unchanged.",
            style="yellow",
        )
    for note in source.notes:
        line.append(f"\n{note}", style="yellow")
    return line


_KINDS = {
    "onnx": "an ONNX model",
    "module": "a PyTorch module",
    "exported program": "an exported program",
    "torchscript": "TorchScript",
    "state_dict": "a state_dict",
    "safetensors": "weights as safetensors",
}


def validation(result: Validation) -> RenderableType:
    """Show the verdict, every comparison with the truth, the layers that stand out, and what was not seen."""
    parts: list[RenderableType] = [Text(result.accuracy.sentence)] if result.accuracy else []
    parts.append(_agreement(result))
    parts += [Text(other, style="yellow") for other in result.differences if other not in result.failures]
    parts += ["", _checks(result), ""] if result.checks else []
    parts += [Text(fault.sentence, style="yellow") for fault in result.faults]
    if result.layers:
        parts += [Text(_proof(result)), *_worst_layers(result)]
    parts += [Text(note, style="dim") for note in result.notes]
    unseen = list(result.unseen.sentences(_UNSEEN_SHOWN))
    parts += [Text("Not seen", style="bold"), *(Text(f"  {one}") for one in unseen)] if unseen else []
    return Group(*parts)


def _checks(result: Validation) -> Table:
    by_truth = any(check.error is not None for check in result.checks)
    errors = ("error", "original's", "ratio") if by_truth else ("max abs", "max rel")
    table = headed("output", "provider", "optimizer", *errors, "bound", "top-1", "")
    for column in table.columns[3:-1]:
        column.justify = "right"
    for check in result.checks:
        ratio = "–" if check.ratio is None else f"{check.ratio:.2f}"
        figures = (
            (small(check.error), small(check.original_error), ratio)
            if by_truth
            else (small(check.max_abs), small(check.max_rel))
        )
        table.add_row(
            Text(check.output),
            check.provider,
            f"{check.optimizer}{', TF32' if check.row else ''}" if check.has_optimizer else "–",
            *figures,
            small(check.tolerance if check.bound is None else check.bound),
            "–" if check.top1 is None else f"{check.top1:.2%}",
            _outcome(check),
        )
    return table


def _outcome(check: Check) -> Text:
    if check.row:
        return Text("for comparison", style="dim")
    if check.passed and not check.compared:
        return Text("not compared", style="yellow")
    if check.passed:
        return Text("agrees", style="green")
    return Text("excused", style="yellow") if check.excused else Text("disagrees", style="bold red")


def _agreement(result: Validation) -> Text:
    """Say whether the models agree, and on which inputs."""
    if result.undecided and not result.failures:
        return Text(result.undecided, style="bold yellow")
    other = "The folded model" if result.is_fold else "The second model"
    if not result.passed:
        other += (
            " computes what the original computes, but its callers meet something else."
            if result.differs_to_callers_only
            else " does not compute what the original computes."
        )
        more = len(result.failures) - _FAILURES_SHOWN
        rest = [f"and {more} more; --json FILE lists all."] if more > 0 else []
        lines = (other, *result.failures[:_FAILURES_SHOWN], *rest)
        return Text("\n".join(lines), style="bold red")
    kind = "given input" if result.seed is None else "random input"
    left = result.not_compared
    limit = f"{listed(left)} {'was' if len(left) == 1 else 'were'} not compared; all else of " if left else ""
    return Text(
        f"{limit}{other[0].lower() if left else other[0]}{other[1:]} computes what the original computes, on "
        f"{count(result.samples, kind)}. {result.oracle}",
        style="yellow" if left else "green",
    )


def _proof(result: Validation) -> str:
    """Say how far the proof in float64 went."""
    good = [layer for layer in result.layers if layer.agrees]
    worst = max(good, key=lambda layer: layer.fold_error / layer.bound, default=None)
    nearest = f" (at most {small(worst.fold_error)}, where {small(worst.bound)} is allowed)" if worst else ""
    have = "have" if len(result.layers) > 1 else "has"
    which = "that both models compute" if result.is_fold else f"that {have} the same name in both models"
    return (
        f"In float64, on {count(len(result.proved_on), 'input')}, {len(good)} of "
        f"{count(len(result.layers), 'value')} {which} are the same up to one rounding of the "
        f"weights{nearest}."
    )


def _worst_layers(result: Validation) -> list[RenderableType]:
    """The layers that are farthest off, where ONNX Runtime's errors were measured layer by layer."""
    measured = [layer for layer in result.layers if layer.folded_error is not None]
    if not measured:
        return []
    table = headed("value", "fold of", "in float64", "bound", "error", "original's")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:]:
        column.justify = "right"
    worst = sorted(measured, key=lambda layer: -(layer.fold_error / layer.bound))[:_LAYERS_SHOWN]
    for layer in sorted(worst, key=lambda layer: layer.depth):
        table.add_row(
            Text(layer.name),
            Text(layer.site or "–"),
            Text(small(layer.fold_error), style="" if layer.agrees else "bold red"),
            small(layer.bound),
            small(layer.folded_error),
            small(layer.original_error),
        )
    return ["", table, ""]


def replay(result: Replay) -> RenderableType:
    """Show whether an earlier validation still holds, and what has changed."""
    holds = "still holds" if result.holds else "does not hold any more"
    verdict = Text(f"What {result.report} says {holds}.", style="green" if result.holds else "bold red")
    changes = [Text(change, style="yellow") for change in result.changes]
    parts = [validation(result.validation), ""] if result.validation is not None else []
    return Group(*parts, verdict, *changes)


def bench_report(results: Sequence[Benchmark]) -> RenderableType:
    """Show the answer, what is slower before all, then the latency on every provider."""
    answers = [line for result in results if not result.slower for line in headline.of_benchmark(result)]
    return Group(*headline.slower(results), *answers, benchmarks(results))


def benchmarks(results: Iterable[Benchmark]) -> RenderableType:
    """Show the latency on every provider."""
    return Group(*(part for result in results for part in ("", benchmark(result))))


def benchmark(result: Benchmark) -> RenderableType:
    """Show medians, ratios with intervals, verdicts, quantiles, and the size of both models."""
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in result.shapes.items())
    where = f"Latency on {result.provider}, {count(result.threads, 'thread')}, {shapes}; medians"
    notes = [Text(note, style="dim") for note in result.notes]
    parts = [_ratios(result), "", _quantiles(result), "", *_sizes(result), Text(result.sentence), *notes]
    return Group(Text(where), *parts)


def _ratios(result: Benchmark) -> Table:
    table = headed(
        "optimizer",
        "original",
        "folded",
        "original / folded",
        "95 % interval",
        "original / itself",
        "verdict",
    )
    for column in table.columns[1:6]:
        column.justify = "right"
    for row in result.rows:
        table.add_row(
            _setting(row, result),
            f"{row.original_ms:.3f} ms",
            f"{row.folded_ms:.3f} ms",
            f"{row.ratio:.3f}×",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{row.control_low:.3f} to {row.control_high:.3f}",
            Text(row.verdict, style=_VERDICTS.get(row.verdict, "")),
        )
    return table


def _quantiles(result: Benchmark) -> Table:
    """What 50, 90 and 99 % of the timings are below, and how long it takes to make a session."""
    table = headed("optimizer", "original p50", "p90", "p99", "folded p50", "p90", "p99", "sessions made in")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.rows:
        original = (row.original_ms, row.original_p90_ms, row.original_p99_ms)
        folded = (row.folded_ms, row.folded_p90_ms, row.folded_p99_ms)
        loading = f"{row.original_load_ms:.1f} / {row.folded_load_ms:.1f} ms"
        table.add_row(_setting(row, result), *(f"{time:.3f}" for time in (*original, *folded)), loading)
    return table


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


def rule(one: Rule) -> RenderableType:
    """Show one rule with its sentence and its remedies."""
    said = Text.assemble(one.sentence, "\n", ("Remedy: ", "bold"), one.remedy)
    for what, remedy in one.others.items():
        said.append_text(Text.assemble("\n", (f"Remedy for {what}: ", "bold"), remedy))
    return Group(Text.assemble((one.code, "bold"), f"  {one.title}"), Padding(said, (0, 0, 0, 7)))


def rules(known: Iterable[Rule], *, for_check: bool = False) -> RenderableType:
    """List reasons, or rules of `bnfold check`, by code and title."""
    table = headed("code", "what bnfold check finds" if for_check else "why a BatchNorm stays")
    for one in known:
        table.add_row(Text(one.code, style="bold"), Text(one.title))
    return Group(table, "", Text("More on one: bnfold explain CODE"))


def doctor(diagnosis: Diagnosis) -> RenderableType:
    """Show every finding with the command that repairs it, and how many problems there are."""
    table = headed("", "what", "found")
    for one in diagnosis.findings:
        found = Text(one.found)
        if one.fix:
            found.append(f"\n{one.fix}", style="bold")
        table.add_row(Text(one.state, style=_STATES[one.state]), Text(one.title), found)
    states = [finding.state for finding in diagnosis.findings]
    problems, warnings = states.count("problem"), states.count("warning")
    words = count(problems, "problem") if problems else "No problem"
    verdict = Text(words, style=_STATES["problem" if problems else "good"])
    verdict.append(f", {count(warnings, 'warning')}." if warnings else ".")
    return Group(table, "", verdict)
