"""The comparison with torch.fx's fuse, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from benchmarks.torch_fold import (  # noqa: E402
    AWKWARD,
    HEADER,
    PAGE,
    USUAL,
    Outcome,
    Row,
    fused,
    measure,
    outcome,
    table,
)

ROW = Row("net", 3, Outcome(1, 1e-16), Outcome(problem="TraceError"))


def test_a_tool_that_is_wrong_is_called_so():
    torch.manual_seed(0)
    module, x = AWKWARD["shared conv, BN on one path"]()
    theirs = outcome(fused, module.eval(), x)
    assert theirs.left == 0
    assert theirs.cells[1].startswith("**wrong")


def test_a_row_counts_and_compares():
    torch.manual_seed(0)
    row = measure("net", *AWKWARD["BN subclass with activation"]())
    assert (row.batchnorms, row.ours.left, row.theirs.left) == (1, 0, None)
    assert row.ours.error < 1e-12
    assert row.cells[-2:] == ("–", "TraceError")


def test_the_table_has_a_row_a_network():
    text = table([ROW])
    assert "| net | 3 | 1 | 1e-16 | – | TraceError |" in text


def test_the_page_tells_of_all_networks_and_bnfold_is_right_on_all():
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = {line[0]: line for line in lines if len(line) == len(HEADER)}
    assert list(rows) == [HEADER[0], *USUAL, *AWKWARD]
    assert not any("wrong" in row[3] for row in rows.values())
    assert all(row[2] == "0" for name, row in rows.items() if name in USUAL)


def test_the_pages_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", Path(PAGE).read_text(), re.DOTALL)
    assert len(blocks) == 3
    found: dict[str, object] = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(block, found)
    folded, model = found["folded"], found["model"]
    assert [type(part).__name__ for part in folded.module] == ["Conv2d", "Identity", "ReLU"]
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, False]
