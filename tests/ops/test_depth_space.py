"""DepthToSpace and SpaceToDepth: in both modes the channels are followed, or they are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, weight
from tests.ops.sandwich import BATCHNORM, gone, settled, statistics, stays

MODES = ["DCR", "CRD"]


def after_conv(line: str, channels: int, bn: int, opset: int, size: str = "6,6") -> onnx.ModelProto:
    """A Conv giving `a`, a line that makes `b` of it, and a BatchNorm."""
    text = f"g (float[N,3,{size}] x) => (float y) {{ a = Conv(x, w) {line} {BATCHNORM} }}"
    return settled(build(text, {"w": weight(channels, 3, 1, 1), **statistics(bn)}, opset=opset))


def before_conv(line: str, stats: dict[str, np.ndarray], cin: int, opset: int = 18) -> onnx.ModelProto:
    """A BatchNorm that cannot go up, a line that makes `b` of its result, and a Conv."""
    text = (
        f"g (float[N,{len(stats['scale'])},6,6] x) => (float y) {{ s = Sigmoid(x) "
        f"a = BatchNormalization(s, scale, bias, mean, var) {line} y = Conv(b, w) }}"
    )
    return settled(build(text, {"w": weight(5, cin, 1, 1), **stats}, opset=opset))


@pytest.mark.parametrize("size", ["6,6", "H,W"])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_depth_to_space_passes_upwards_in_its_own_order(mode: str, block: int, size: str) -> None:
    line = f'b = DepthToSpace<blocksize={block}, mode="{mode}">(a)'
    gone(after_conv(line, 3 * block**2, 3, 18, size))


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_the_mode_of_every_version(opset: int) -> None:
    gone(after_conv("b = DepthToSpace<blocksize=2>(a)", 8, 2, opset))


@pytest.mark.parametrize("mode", MODES)
def test_depth_to_space_downwards_needs_one_affine_for_every_block(mode: str) -> None:
    line = f'b = DepthToSpace<blocksize=2, mode="{mode}">(a)'
    stays(before_conv(line, statistics(8), 2), "BN210")
    for lay in (np.repeat, np.tile):
        stats = {name: lay(array, 4) for name, array in statistics(2).items()}
        agrees = (lay is np.repeat) == (mode == "CRD")
        gone(before_conv(line, stats, 2)) if agrees else stays(before_conv(line, stats, 2), "BN210")


@pytest.mark.parametrize("opset", [9, 13])
def test_space_to_depth_passes_downwards(opset: int) -> None:
    gone(before_conv("b = SpaceToDepth<blocksize=2>(a)", statistics(3), 12, opset))


def test_space_to_depth_upwards_needs_one_affine_for_every_block() -> None:
    stays(after_conv("b = SpaceToDepth<blocksize=2>(a)", 3, 12, 18), "BN210")
    text = (
        f"g (float[N,3,6,6] x) => (float y) {{ a = Conv(x, w) b = SpaceToDepth<blocksize=2>(a) {BATCHNORM} }}"
    )
    held = {"w": weight(3, 3, 1, 1), **{name: np.tile(array, 4) for name, array in statistics(3).items()}}
    gone(settled(build(text, held)))
    held |= {name: np.repeat(array, 4) for name, array in statistics(3).items()}
    stays(settled(build(text, held)), "BN210")


def test_there_and_back() -> None:
    lines = "c = SpaceToDepth<blocksize=2>(a) b = DepthToSpace<blocksize=2>(c)"
    gone(after_conv(lines, 3, 3, 18))
    gone(before_conv(lines, statistics(3), 3))


def test_rows_are_no_channels() -> None:
    """All sizes agree; the BatchNorm is along the rows of the large image."""
    line = "d = DepthToSpace<blocksize=2>(a) b = Transpose<perm=[0,2,1,3]>(d)"
    stays(after_conv(line, 16, 12, 18), "BN204")


def test_channels_of_unknown_number_stay() -> None:
    text = f"g (float[N,C,6,6] x) => (float y) {{ c = Neg(x) b = DepthToSpace<blocksize=2>(c) {BATCHNORM} }}"
    model = build(text, statistics(2))
    model.graph.input[0].type.tensor_type.shape.dim[1].Clear()
    [site] = bnfold.fold(settled(model)).kept
    assert site.reason is not None
    assert site.reason.code == "BN208"
