"""Annotations of GitHub Actions, as workflow commands.

The form and what has to be escaped:
https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked
from bnfold.report.findings._words import line, sentence

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def render(checked: Checked) -> str:
    """A command a finding."""
    return "".join(
        f"::{_LEVELS[one.severity]} file={_property(line(one.path))},"
        f"title={_property(f'{one.code} {RULES[one.code].name}')}::{_data(sentence(one))}\n"
        for one in checked.findings
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
