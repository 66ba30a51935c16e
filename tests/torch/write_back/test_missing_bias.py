"""Layers without a bias, for which the exporter writes zeros of some shape."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from bnfold.folding.fold import fold as fold_graph  # noqa: E402
from bnfold.torch import fold, to_onnx  # noqa: E402
from bnfold.torch.read.load import Loaded  # noqa: E402
from models.batchnorms import seeded_statistics  # noqa: E402

LAYERS = {
    "Conv1d": (nn.Conv1d, nn.BatchNorm1d, 1),
    "Conv2d": (nn.Conv2d, nn.BatchNorm2d, 2),
    "Conv3d": (nn.Conv3d, nn.BatchNorm3d, 3),
    "ConvTranspose1d": (nn.ConvTranspose1d, nn.BatchNorm1d, 1),
    "ConvTranspose2d": (nn.ConvTranspose2d, nn.BatchNorm2d, 2),
    "ConvTranspose3d": (nn.ConvTranspose3d, nn.BatchNorm3d, 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_shift_becomes_a_bias(name):
    layer, norm, rank = LAYERS[name]
    module = nn.Sequential(layer(4, 6, 3, bias=False), norm(6), nn.ReLU()).eval()
    seeded_statistics(module, 3)
    x = torch.randn(2, 4, *[6] * rank)
    result = fold(module, x)
    assert not result.kept
    assert result.module[0].bias.shape == (6,)
    assert isinstance(result.module[1], nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(result.module(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_and_so_it_does_in_the_export(name):
    layer, norm, rank = LAYERS[name]
    module = nn.Sequential(layer(4, 6, 3, bias=False), norm(6)).eval()
    seeded_statistics(module, 4)
    graph = to_onnx(Loaded(module, "module", was_training=False), (torch.randn(2, 4, *[6] * rank),))
    result = fold_graph(graph)
    assert not result.kept
    assert [node.op_type for node in result.model.graph] == [name.rstrip("123d")]
