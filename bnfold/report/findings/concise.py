"""A line a finding, as linters write them."""

from __future__ import annotations

from bnfold.gate.run import Checked
from bnfold.report.findings._words import gone, line, sentence, summary


def render(checked: Checked) -> str:
    """`models/net.onnx: M101 3 BatchNorms can be folded: a, b, c [*]`, and the outcome in the last line."""
    lines = [
        f"{line(one.path)}: {one.code} {sentence(one)}{' [*]' if one.fixable else ''}"
        for one in checked.findings
    ]
    return "\n".join((*lines, *gone(checked), summary(checked))) + "\n"
