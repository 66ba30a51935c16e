"""Sizes of inputs that no tensor has: negative ones are open, and a message names zero and huge ones."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from bnfold_cli import main
from tests.graphs import build, statistics, weight

pytest.importorskip("onnxruntime")

EMPTY = "is NaN, infinite or empty throughout"
LARGE = "is too large to be drawn at random. If that is its real shape, give inputs with --inputs"
CASES = {
    **dict.fromkeys([(-1, 3, 8, 8), (-1, 3, -1, -1), (-2, 3, 8, -3)], ""),
    **dict.fromkeys([(0, 3, 8, 8), (0, 3, 5, 5), (0, 3, 1, 1)], EMPTY),
    **dict.fromkeys([(2**62, 3, 8, 8), (1, 3, 2**40, 2**40), (1, 3, 2**31, 2)], LARGE),
    (1, 2**62, 8, 8): "has an input of 4611686018427387904 channels where its weight has 3",
    (1, 0, 8, 8): "has an input of 0 channels where its weight has 3",
    (1, 3, 0, 8): "Invalid input shape: {0,8} Give real inputs with --inputs",
}


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_sizes_of_inputs(sizes: tuple[int, ...], tmp_path: Path) -> None:
    model = build(
        "g (float[1,3,8,8] x) => (float[A,B,C,D] y) { c = Conv(x, w) "
        "n = BatchNormalization(c, scale, bias, mean, var) y = Relu(n) }",
        {"w": weight(4, 3, 1, 1), **statistics(4)},
    )
    for size, given in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        size.dim_value = given
    path, message = str(tmp_path / "m.onnx"), CASES[sizes]
    onnx.save(model, path)
    call = CliRunner().invoke
    assert call(main, ["inspect", path]).exit_code == 0
    assert call(main, ["fold", path, "-o", str(tmp_path / "f.onnx")]).exit_code == 0
    done = call(main, ["export", path, "-o", str(tmp_path / "o.onnx"), "--no-bench"])
    assert done.exit_code == (2 if message else 0), done.output
    assert message in " ".join(done.output.split())
    assert message or "none stays" in done.stdout
