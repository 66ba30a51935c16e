"""The report of a fleet as text: the outcome in the first line, then what it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.display.visible import visible
from bnfold.fleet.progress import duration
from bnfold.fleet.summary import Report
from bnfold.report.terminal.tables import plural, size
from bnfold.report.unasked import not_looked_for

WORDS = {
    "passed": "passed",
    "findings": "with findings",
    "folded": "folded",
    "unchanged": "with nothing to fold",
    "proved": "exported and proved",
    "exported": "exported without proof",
    "disagrees": "that would disagree, not written",
    "not faster": "that would not be faster, not written",
    "needs": "needing an option or another command",
    "failed": "that could not be read or done",
    "slow": "that took too long",
    "memory": "that needed too much memory",
    "killed": "whose process died",
    "unable": "for which a package or space is missing",
    "unreachable": "that could not be fetched or stored",
    "lost": "whose worker was lost each time",
}
"""How verdicts and states are said after a number of models."""

_TITLES = {
    "needs": "Models that need an option or another command, each with the line that does it (a size of"
    " --input-shape in it is a guess)",
    "failures": "Failures, each with the line that repeats it alone",
    "found": "Models with findings, errors first, each with the line that repeats it alone",
}

_FEW = 20  # failures that a terminal shows


def render(report: Report, *, most: int | None = _FEW, known: int = 0) -> str:
    """The report as text, in which every name is only text.

    Args:
        report: As `Summary.report` makes it.
        most: How many failures are listed, how many models that need an option, and how many with findings;
            None lists all that the report has.
        known: How many results were there before this run, which asks for those that it needs.
    """
    return visible("\n".join(_lines(report, most, known)) + "\n")


def headline(report: Report) -> str:
    """The outcome in one line."""
    counts = {**report["verdicts"], **{name: n for name, n in report["states"].items() if name != "done"}}
    parts = [f"{counts[name]:,} {words}" for name, words in WORDS.items() if counts.get(name)]
    noun = plural(report["models"], "model")
    more = not_looked_for(report["not_looked_for"])
    return f"{report['models']:,} {noun}: {', '.join(parts) or 'none'}.{more}"


def _lines(report: Report, most: int | None, known: int) -> Iterator[str]:
    yield headline(report)
    if numbers := list(_numbers(report)):
        yield from ("", *numbers)
    yield from _table(
        "Why BatchNorms stay",
        ("models", "BatchNorms", "reason"),
        [
            (f"{one['models']:,}", f"{one['batchnorms']:,}", f"{one['code']} {one['title']}")
            for one in report["reasons"]
        ],
    )
    yield from _table(
        "What was found",
        ("models", "rule"),
        [(f"{one['models']:,}", f"{one['code']} {one['title']}") for one in report["findings"]],
    )
    yield from _table(
        "What models need",
        ("models", "options"),
        [(f"{one['models']:,}", one["options"]) for one in report["needed"]],
    )
    for name, title in _TITLES.items():
        yield from _each(title, report, name, most)
    yield from _outliers(report)
    yield ""
    if known and known == report["models"]:
        yield f"Nothing to do: all {known:,} results are there."
        return
    measured = report["measured"]
    yield (
        f"{duration(measured['worker_seconds'])} of workers, {duration(measured['processor_seconds'])} of "
        f"processors; {size(int(measured['fetched']))} fetched."
    )
    if known:
        yield f"Of this, {known:,} of {report['models']:,} results were there before."


def _numbers(report: Report) -> Iterator[str]:
    would = " if folded" if report["command"] == "check" else ""
    for name, label in (("batchnorms", "BatchNorms"), ("nodes", "nodes")):
        before, after = report[name]["before"], report[name]["after"]
        if before or after:
            yield f"{label:<11}{before:,} → {after:,}{would}"
    if any(report["bytes"].values()):
        yield f"{'bytes':<11}{size(report['bytes']['before'])} → {size(report['bytes']['after'])}"
    if report["latency"]:
        verdicts = [f"{count:,} {verdict}" for verdict, count in report["latency"].items()]
        yield f"{'latency':<11}{', '.join(verdicts)}"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield title
    widths = [max(len(row[at]) for row in (headings, *rows)) for at in range(len(headings) - 1)]
    for row in (headings, *rows):
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=False))
        yield f"  {numbers}  {row[-1]}"


def _outliers(report: Report) -> Iterator[str]:
    for title, rows in {**report["outliers"], **report["measured"]["outliers"]}.items():
        shown = [(amount(title, one["amount"]), one["path"].replace("\n", " ")) for one in rows]
        yield from _table(f"Outliers: {title}", ("", "model"), shown)


def amount(title: str, value: float) -> str:
    """The amount of an outlier, in its unit."""
    if title in ("largest", "most memory"):
        return size(int(value))
    return f"{value:.1f} s" if title == "longest" else f"{int(value):,}"


def _each(title: str, report: Report, name: str, most: int | None) -> Iterator[str]:
    """Models one by one, each with what it says and the line to type."""
    shown = report[name][:most]
    if not shown:
        return
    yield ""
    yield title
    for one in shown:
        yield f"  {' '.join(one['path'].split())}: {' '.join(one['why'].split())}"
        yield f"    {one['again']}"
    left = len(report[name]) - len(shown) + report[f"{name}_left_out"]
    if left:
        yield f"  and {left:,} more in results.jsonl"
