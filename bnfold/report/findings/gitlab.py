"""GitLab's code quality report.

The form: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import json

from bnfold.gate.run import Checked
from bnfold.report.findings._words import fingerprint, sentence

_SEVERITIES = {"error": "critical", "warning": "major", "note": "info"}


def render(checked: Checked) -> str:
    """A list with an entry for each finding."""
    entries = [
        {
            "description": f"{one.code} {sentence(one)}",
            "check_name": one.code,
            "fingerprint": fingerprint(one),
            "severity": _SEVERITIES[one.severity],
            "location": {"path": one.path, "lines": {"begin": 1}},
        }
        for one in checked.findings
    ]
    return json.dumps(entries, indent=2) + "\n"
