"""JUnit's XML, which most platforms show as test results: a suite a model, a case a finding."""

from __future__ import annotations

import io
from collections import defaultdict

from bnfold.errors import MissingExtraError
from bnfold.gate.finding import Finding
from bnfold.gate.rules import RULES
from bnfold.gate.run import Checked
from bnfold.report.findings._words import line, sentence


def render(checked: Checked) -> str:
    """Models without findings are cases that pass; notes are skipped cases.

    Raises:
        MissingExtraError: junitparser is not installed.
    """
    try:
        from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite
    except ModuleNotFoundError:
        raise MissingExtraError("junitparser", "ci", "write JUnit's XML") from None
    found: dict[str, list[Finding]] = defaultdict(list)
    for one in checked.findings:
        found[one.path].append(one)
    document = JUnitXml("bnfold check")
    for path in checked.files:
        name = line(path)
        suite = TestSuite(name)
        for one in found[path]:
            case = TestCase(f"{one.code} {RULES[one.code].name}", name, 0.0)
            message = sentence(one)
            result = Skipped(message) if one.severity == "note" else Failure(message, one.code)
            result.text = "\n".join((*map(line, one.found.sites), RULES[one.code].advice))
            case.result = [result]
            suite.add_testcase(case)
        if not found[path]:
            suite.add_testcase(TestCase("bnfold check", name, 0.0))
        document.add_testsuite(suite)
    stream = io.BytesIO()
    document.write(stream, pretty=True)
    return stream.getvalue().decode()
