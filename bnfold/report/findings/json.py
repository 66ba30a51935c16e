"""For programs."""

from __future__ import annotations

import json

from bnfold._version import __version__
from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked


def render(checked: Checked) -> str:
    """The document of docs/check.schema.json."""
    document = {
        "tool": {"name": "bnfold", "version": __version__},
        "passed": bool(checked),
        "files": list(checked.files),
        "findings": [
            {
                "path": one.path,
                "code": one.code,
                "name": RULES[one.code].name,
                "severity": one.severity,
                "message": one.found.headline,
                "sites": list(one.found.sites),
                "nodes": one.found.nodes and dict(zip(("now", "folded"), one.found.nodes, strict=True)),
                "fixable": one.fixable,
                "advice": RULES[one.code].advice,
            }
            for one in checked.findings
        ],
        "accepted": checked.accepted,
        "ignored": checked.ignored,
        "gone": [{"path": path, "code": code, "site": site} for path, code, site in checked.gone],
    }
    return json.dumps(document, indent=2) + "\n"
