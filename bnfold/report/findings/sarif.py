"""SARIF 2.1.0, which GitHub's code scanning and many editors read."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from bnfold._version import __version__
from bnfold.errors import MissingExtraError
from bnfold.gate.finding import Finding
from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked
from bnfold.report.findings._words import fingerprint, line, sentence

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}


def render(checked: Checked) -> str:
    """One run of bnfold, with the rules that found something.

    Raises:
        MissingExtraError: sarif-pydantic is not installed.
    """
    try:
        import sarif_pydantic as sarif
    except ModuleNotFoundError:
        raise MissingExtraError("sarif-pydantic", "ci", "write SARIF") from None
    codes = sorted({one.code for one in checked.findings})
    driver = sarif.ToolDriver(name="bnfold", version=__version__, rules=[_rule(code) for code in codes])
    results = [_result(one, codes.index(one.code)) for one in checked.findings]
    run = sarif.Run(tool=sarif.Tool(driver=driver), results=results)
    document = sarif.Sarif(version="2.1.0", schema_uri=_SCHEMA, runs=[run])
    plain = json.loads(document.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(plain, indent=2) + "\n"


def _rule(code: str) -> Any:
    import sarif_pydantic as sarif

    rule = RULES[code]
    return sarif.ReportingDescriptor(
        id=code,
        name=rule.name,
        shortDescription=sarif.Message(text=rule.title),
        fullDescription=sarif.Message(text=rule.why),
        help=sarif.Message(text=rule.advice),
        defaultConfiguration=sarif.ReportingConfiguration(level=sarif.Level(_LEVELS[rule.severity])),
    )


def _result(one: Finding, index: int) -> Any:
    import sarif_pydantic as sarif

    place = sarif.PhysicalLocation(
        artifactLocation=sarif.ArtifactLocation(uri=quote(os.fsencode(one.path))),
        region=sarif.Region(startLine=1),
    )
    sites = [sarif.LogicalLocation(fullyQualifiedName=line(site)) for site in one.found.sites]
    return sarif.Result(
        ruleId=one.code,
        ruleIndex=index,
        level=sarif.Level(_LEVELS[one.severity]),
        message=sarif.Message(text=sentence(one)),
        locations=[sarif.Location(physicalLocation=place, logicalLocations=sites or None)],
        partialFingerprints={"bnfold/v1": fingerprint(one)},
    )
