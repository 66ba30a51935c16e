"""The end of a fleet: all results in one file, and what they come to as text, JSON, page and table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bnfold.fleet import page, parquet, text, transport
from bnfold.fleet.plan import Plan
from bnfold.fleet.results import Record, Results, dumps
from bnfold.fleet.summary import Report, Summary


def write(plan: Plan, names: Iterable[tuple[str, str]], again: str = "") -> tuple[Report, tuple[str, ...]]:
    """Read every result once, and write what they come to; two who do it write the same.

    Args:
        plan: What was done.
        names: The results and their ends, in the order of the models' paths.
        again: Words of the command line that a line for one model needs as well.

    Returns:
        The report, and the files below `plan.out` that were written: the page and the table need packages
        that may not be installed.

    Raises:
        TransportError: A result could not be read, or a file not be written.
    """
    summary = Summary(plan, again)
    with TemporaryDirectory(prefix="bnfold-fleet-") as scratch:
        lines, table = Path(scratch, "results.jsonl"), Path(scratch, "results.parquet")
        _gathered(Results(plan).read(names), summary, lines, table if parquet.is_there() else None)
        report = summary.report()
        made = {
            "report.json": json.dumps(report, indent=2, allow_nan=False) + "\n",
            "report.txt": text.render(report, most=None),
        }
        if page.is_there():
            made["report.html"] = page.render(report)
        files = [lines] + ([table] if table.exists() else [])
        for name, content in made.items():
            files.append(Path(scratch, name))
            files[-1].write_bytes(content.encode(errors="replace"))
        for file in files:
            transport.store(file, transport.joined(plan.out, file.name))
    return report, tuple(file.name for file in files)


def _gathered(records: Iterable[Record], summary: Summary, lines: Path, table: Path | None) -> None:
    """Put every record where it belongs, and forget it."""
    with ExitStack() as stack:
        stream = stack.enter_context(lines.open("w", encoding="utf-8"))
        rows = stack.enter_context(parquet.Table(table)) if table else None
        for record in records:
            summary.add(record)
            stream.write(dumps(record) + "\n")
            if rows is not None:
                rows.add(record)
