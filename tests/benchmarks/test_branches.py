"""The comparison with the authors' own merging, on a small network and without timm but for one test."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import bnfold
import models
from benchmarks import branches
from benchmarks.branches import Count, Row
from models.branches import Branches

SHAPE = (1, 1, 32, 32)
SECONDS = 0.1


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return models.seeded_statistics(models.RepVGGNet()).eval()


def merge_pointwise(network: nn.Module) -> nn.Module:
    """An author's method that knows of one case only: it drops the 1×1 branch's own convolution."""
    merged = copy.deepcopy(network)
    for block in merged.modules():
        if isinstance(block, Branches) and len(block.branches) == 2:
            three, one = (branch[0].weight for branch in block.branches)
            norms = [branch[1] for branch in block.branches]
            scales = [
                (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None, None] for norm in norms
            ]
            shifts = [n.bias - n.running_mean * s.flatten() for n, s in zip(norms, scales, strict=True)]
            conv = copy.deepcopy(block.branches[0][0])
            weight = three * scales[0] + nn.functional.pad(one * scales[1], (1, 1, 1, 1))
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(sum(shifts))
            block.branches = nn.ModuleList([conv])
    return merged


@pytest.fixture(scope="module")
def row(network: nn.Module) -> Row:
    return branches.measure("small", network, merge_pointwise, SHAPE, SECONDS)


def test_a_row_counts_compares_and_times(row: Row) -> None:
    trained, author, ours = row.counts
    assert (trained.convs, trained.batchnorms) == (12, 15)
    assert (author.convs, author.batchnorms) == (9, 9), "the blocks with an identity stay as they are"
    assert (ours.convs, ours.batchnorms) == (6, 0)
    assert trained.nodes > author.nodes > ours.nodes
    assert row.failures == ()
    assert 0 < row.error < 5e-5
    assert row.author.optimizer == row.gain.optimizer == "default"
    assert len(row.cells) == len(branches.HEADER)


def test_the_ratio_to_the_author_is_below_one_where_ours_is_faster(row: Row) -> None:
    cell = dict(zip(branches.HEADER, row.cells, strict=True))["bnfold / author"]
    ratio, low, high = (
        float(text) for text in cell.replace("(", "").replace(")", "").replace(" to", "").split()
    )
    assert low <= ratio <= high
    assert ratio == pytest.approx(row.author.folded_ms / row.author.original_ms, abs=1e-3)


def test_a_wrong_fold_is_told(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(model: ir.Model) -> object:
        result = fold(model)
        bias = next(node for node in result.model.graph if node.op_type == "Gemm").inputs[2]
        assert bias is not None
        assert bias.const_value is not None
        bias.const_value = ir.tensor(bias.const_value.numpy() * np.float32(2) + 1)
        return result

    fold = bnfold.fold
    monkeypatch.setattr(bnfold, "fold", spoilt)
    wrong = branches.measure("small", network, lambda module: module, SHAPE, SECONDS)
    assert wrong.error > 5e-5
    assert wrong.failures


def test_constants_do_not_count() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g () => (float[1] y) { y = Constant <value = float[1] {1}> () }"""
    )
    assert branches.count(model) == Count(0, 0, 0)


def test_the_command_measures_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    if find_spec("timm") is None:
        pytest.skip("timm is not installed; the extra `benchmarks` brings it")
    page = tmp_path / "page.md"
    made: list[nn.Module] = []
    monkeypatch.setattr(branches, "measure", lambda _, module, *__, **___: made.append(module) or row)
    assert branches.main(["mobileone_s0", "--markdown", str(page)]) == 0
    assert "| small | 12 / 9 / 6 | 15 / 9 / 0 |" in page.read_text()
    assert page.read_text() in capsys.readouterr().out
    assert len(models.batchnorms(made[0])) == 226
    with pytest.raises(SystemExit):
        branches.main(["nonesuch"])
    assert "timm has no model called nonesuch" in capsys.readouterr().err


def test_without_timm_the_command_says_what_to_type(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise ModuleNotFoundError(name="timm")

    monkeypatch.setattr(branches, "import_timm", absent)
    with pytest.raises(SystemExit) as stop:
        branches.main([])
    assert stop.value.code == 2
    assert "timm is not installed; type: pip install -e '.[benchmarks]'" in capsys.readouterr().err
