"""Every result as tables and sentences for a terminal, made with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.edge.ranges import losses as measured_losses
from bnfold.errors import listed
from bnfold.graph.facts import Facts
from bnfold.pipeline.narrow import narrowed
from bnfold.report.terminal import headline
from bnfold.report.terminal.comparison import validation
from bnfold.report.terminal.fates import fold_summary, has_table, sites
from bnfold.report.terminal.graphs import graphs
from bnfold.report.terminal.steps import changes, steps
from bnfold.report.terminal.tables import SHOWN, count, cut, headed, large, size
from bnfold.report.terminal.timings import benchmarks

if TYPE_CHECKING:
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.exported import Export
    from bnfold.pipeline.read import Source
    from bnfold.pipeline.replay import Replay
    from bnfold.reasons import Rule
    from bnfold.report.summary import Summary
    from bnfold.result import FoldResult
    from bnfold.system.doctor import Diagnosis

_LOSSES_SHOWN = 4
_PORTS_SHOWN = 8
_STATES = {"good": "green", "optional": "dim", "warning": "yellow", "problem": "bold red"}


def export_report(export: Export, *, verbose: bool = False) -> RenderableType:
    """Show a whole export or fold: the answer, then the sites, the validation and the latency.

    Args:
        export: What was done.
        verbose: Whether long tables are shown whole.
    """
    fold, less = export.fold, narrowed(export.steps)
    parts: list[RenderableType] = [*headline.of_export(export, verbose=verbose), ""]
    parts += [source_note(export.source), *changes(export.contract), fold_summary(fold)]
    parts += ["", sites(fold, verbose=verbose)] if has_table(fold) else []
    if export.graphs:
        parts += ["", graphs(export.graphs, fold)]
    elif export.no_graphs:
        parts += ["", Text(f"ONNX Runtime's own graph was not compared: {export.no_graphs}.", style="dim")]
    if export.rolled_back:
        names = listed(export.rolled_back, len(export.rolled_back) if verbose else SHOWN)
        parts += ["", Text(f"Rolled back, because the fold was wrong: {names}.", style="yellow")]
    parts += steps(export.steps, verbose=verbose)
    if export.validation is not None:
        parts += ["", validation(export.validation, verbose=verbose, before=less.before if less else "")]
    if export.benchmarks:
        parts.append(benchmarks(export.benchmarks, less, verbose=verbose))
    return Group(*parts)


def inspect_report(
    source: Source,
    result: FoldResult[Any],
    about: Summary,
    *,
    verbose: bool = False,
) -> RenderableType:
    """Show what a fold of a model would do, what the model is, and each of its sites.

    Args:
        source: The model.
        result: Its fold.
        about: The model in a few figures.
        verbose: Whether long tables are shown whole.
    """
    parts: list[RenderableType] = [headline.of_inspection(source, result), "", source_note(source)]
    parts.append(summary(about, verbose=verbose))
    parts += ["", sites(result, verbose=verbose)] if has_table(result) else []
    return Group(*parts, *losses(result, verbose=verbose))


def losses(result: FoldResult[Any], *, verbose: bool = False) -> list[RenderableType]:
    """Show the layers that one step of eight bits a weight hurts most, in the folded model."""
    found = measured_losses(Facts(result.model))
    if not found:
        return []
    said = f"With one step of 8 bits a weight, {count(len(found), 'layer')} would lose a bit or more:"
    shown, rest = cut(found, _LOSSES_SHOWN, verbose=verbose)
    lines = [Text(f"  {one.layer} ({one.operator}): {one.bits:.1f} bits") for one in shown]
    indented = [Text("  ").append_text(line) for line in rest]
    return ["", Text(f"{said} --equalize may make it less.", style="yellow"), *lines, *indented]


def summary(model: Summary, *, verbose: bool = False) -> RenderableType:
    """Show what a model takes and gives, what it is made of, and how large it is."""
    opsets = ", ".join(f"{domain or 'opset'} {version}" for domain, version in model.opsets.items())
    producer = f"by {model.producer}" if model.producer else ""
    made_of = [f"{name} {number}" for name, number in model.operators.items()]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, ports in (("inputs", model.inputs), ("outputs", model.outputs)):
        shown, rest = cut(ports, _PORTS_SHOWN, verbose=verbose)
        for at, line in enumerate((*map(Text, shown), *rest) or (Text(),)):
            table.add_row(Text("" if at else name, style="bold"), line)
    rows = {
        "format": ", ".join(filter(None, (opsets, f"IR version {model.ir_version}", producer))),
        "size": f"{large(model.parameters)} parameters, {size(model.bytes)}, {count(model.nodes, 'node')}",
        "operators": listed(made_of, most=len(made_of) if verbose else _PORTS_SHOWN),
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


def replay(result: Replay, *, verbose: bool = False) -> RenderableType:
    """Show whether an earlier validation still holds, and what has changed."""
    holds = "still holds" if result.holds else "does not hold any more"
    verdict = Text(f"What {result.report} says {holds}.", style="green" if result.holds else "bold red")
    changes = [Text(change, style="yellow") for change in result.changes]
    parts = ["", validation(result.validation, verbose=verbose)] if result.validation is not None else []
    return Group(verdict, *changes, *parts)


def bench_report(results: Sequence[Benchmark], *, verbose: bool = False) -> RenderableType:
    """Show the answer, what is slower before all, then the latency on every provider."""
    answers = [line for result in results for line in headline.of_benchmark(result)]
    return Group(*headline.slower(results), *answers, benchmarks(results, verbose=verbose))


def rule(one: Rule) -> RenderableType:
    """Show one rule with its sentence and its remedies."""
    said = Text.assemble(one.sentence, "\n", ("Remedy: ", "bold"), one.remedy)
    for what, remedy in one.others.items():
        said.append_text(Text.assemble("\n", (f"Remedy for {what}: ", "bold"), remedy))
    indented = Padding(said, (0, 0, 0, 7), expand=False)
    return Group(Text.assemble((one.code, "bold"), f"  {one.title}"), indented)


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
    if missing := states.count("optional"):
        which = "1 optional extra is" if missing == 1 else f"{missing} optional extras are"
        verdict.append(f" {which} not installed; a command that needs one says so.", style="default")
    return Group(table, "", verdict)
