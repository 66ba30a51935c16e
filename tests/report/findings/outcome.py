"""An outcome of a check with all that formats have to cope with."""

from __future__ import annotations

from pathlib import Path

from bnfold.gate.finding import Finding, Found
from bnfold.gate.run import Checked

FINDINGS = (
    Finding(
        "models/net.onnx",
        "M101",
        Found(
            "1 BatchNorm can be folded",
            "{} BatchNorms can be folded",
            ("bn1", "layer1.0.bn1", "layer1_0__bn2", "neck"),
            (69, 65),
        ),
        "warning",
        True,
    ),
    Finding("models/net.onnx", "M107", Found("1 BatchNorm stays (BN201, …)", "", ("head",)), "note"),
    Finding(
        "old, 100%: a|b.onnx",
        "M302",
        Found("it is <damaged>, 100%: see\nthe next line | or not, *bold* [link](x) & more"),
        "error",
    ),
    Finding(
        "strange\x1b[31m\n\udcff`.onnx",
        "M201",
        Found(
            "1 weight holds NaN", "{} weights hold NaN", ("a\tb\r\nc\x00\u202edesrever é 重み", "::error::x")
        ),
        "error",
    ),
)
FILES = ("models/fine.onnx", *dict.fromkeys(finding.path for finding in FINDINGS))
GONE = (("models/fine.onnx", "M101", "bn|1\x1b\nnext"), ("models/fine.onnx", "M307", ""))


def outcome(
    findings: tuple[Finding, ...] = FINDINGS,
    files: tuple[str, ...] = FILES,
    accepted: int = 2,
    gone: tuple[tuple[str, str, str], ...] = GONE,
) -> Checked:
    """What a check of these files has found."""
    paths = tuple(Path("/repository", file) for file in files)
    return Checked(findings, files, paths, 1, accepted, gone, findings)


EVERYTHING = outcome()
NOTHING = outcome((), ("a.onnx",), 0, ())
EMPTY = outcome((), (), 0, ())
