"""What the page of a check shows: the findings, model by model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bnfold.gate.finding import Finding
from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked
from bnfold.report.findings._words import gone, summary
from bnfold.report.page import tiles
from bnfold.report.page.evidence import evidence
from bnfold.report.page.words import count
from bnfold.system.environment import versions

View = dict[str, Any]

_STATES = {"error": "bad", "warning": "warn", "note": "none"}


def view(checked: Checked, *, command: str) -> View:
    """Make the view of a check.

    Args:
        checked: What it found.
        command: The command line that made it.
    """
    models: dict[str, list[Finding]] = {}
    for one in checked.findings:
        models.setdefault(one.path, []).append(one)
    clean = [path for path in checked.files if path not in models]
    found = _tiles(checked, len(models))
    return {
        "title": f"Check of {count(len(checked.files), 'model')}",
        "version": versions()["bnfold"],
        "parts": [{"name": "findings", "title": "Findings"}, {"name": "evidence", "title": "Evidence"}],
        "slower": [],
        "accuracy": None,
        "verdict": {
            "state": "good" if checked else "bad",
            "heading": "Passed" if checked else "Failed",
            "sentence": summary(checked),
            "details": [],
        },
        "tiles": found,
        "columns": tiles.columns(found),
        "models": [_model(path, findings) for path, findings in models.items()],
        "clean": clean,
        "gone": gone(checked),
        "accepted": checked.accepted,
        "evidence": evidence({"versions": versions()}, command),
    }


def _tiles(checked: Checked, models: int) -> list[View]:
    counts = Counter(one.severity for one in checked.findings)
    fixable = sum(one.fixable for one in checked.findings)
    return [
        tiles.alone("Models with findings", f"{models:,} of {len(checked.files):,}"),
        tiles.alone("Errors", f"{counts['error']:,}", state="bad" if counts["error"] else ""),
        tiles.alone("Warnings", f"{counts['warning']:,}"),
        tiles.alone("Notes", f"{counts['note']:,}", "they do not count"),
        tiles.alone("Mended by --fix", f"{fixable:,}"),
    ]


def _model(path: str, findings: Sequence[Finding]) -> View:
    return {
        "path": path,
        "count": count(len(findings), "finding"),
        "findings": [_finding(one) for one in findings],
    }


def _finding(one: Finding) -> View:
    rule, nodes = RULES[one.code], one.found.nodes
    return {
        "code": one.code,
        "name": rule.name,
        "severity": one.severity,
        "state": _STATES[one.severity],
        "headline": one.found.headline,
        "sites": one.found.sites,
        "nodes": f"{nodes[0]:,} nodes now, {nodes[1]:,} folded" if nodes else "",
        "fixable": one.fixable,
        "advice": rule.advice,
    }
