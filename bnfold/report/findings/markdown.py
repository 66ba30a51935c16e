"""A summary for a job or a comment: the outcome, and a table."""

from __future__ import annotations

from bnfold.gate.run import Checked
from bnfold.report.findings._words import gone, line, sentence, summary

_SPECIAL = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_[]|~"}, "<": "&lt;", "&": "&amp;"})
_MARKS = {"error": "❌", "warning": "⚠️", "note": "i"}


def render(checked: Checked) -> str:
    """The outcome as a heading, and a row a finding, with the nodes before and after a possible fold."""
    parts = [f"### bnfold check: {'passed' if checked else 'failed'}", summary(checked)]
    if checked.findings:
        header = ("", "model", "code", "finding", "nodes now", "folded")
        rows = [
            (
                _MARKS[one.severity],
                _code(one.path),
                one.code,
                sentence(one).translate(_SPECIAL),
                *(("", "") if one.found.nodes is None else map(str, one.found.nodes)),
            )
            for one in checked.findings
        ]
        table = [header, ("---",) * len(header), *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    if checked.gone:
        parts.append("\n".join(f"- {one.translate(_SPECIAL)}" for one in gone(checked)))
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    """A name as code, in which nothing is special but its end and that of the cell."""
    return f"`{line(text)}`".replace("|", "\\|") if "`" not in text else line(text).translate(_SPECIAL)
