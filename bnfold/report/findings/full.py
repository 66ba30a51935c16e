"""Every finding with all of its sites and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from bnfold.gate.finding import Finding
from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked
from bnfold.report.findings._words import gone, line, summary


def render(checked: Checked) -> str:
    """A paragraph a finding, and the outcome in the last line."""
    paragraphs = ["\n".join(_lines(finding)) for finding in checked.findings]
    return "\n\n".join((*paragraphs, *gone(checked), summary(checked))) + "\n"


def _lines(finding: Finding) -> Iterator[str]:
    mark = " [*]" if finding.fixable else ""
    yield f"{line(finding.path)}: {finding.code} {line(finding.found.headline)}{mark}"
    yield from (f"    {line(site)}" for site in finding.found.sites)
    yield f"  {RULES[finding.code].advice}"
