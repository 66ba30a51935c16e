"""One operator between a linear one and a BatchNorm, whose every axis has the same size but the batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from bnfold.result import FoldResult
from tests.graphs import build, fold_and_compare, kept_codes, operators, weight
from tests.graphs import statistics as _statistics

BATCHNORM = "y = BatchNormalization(b, scale, bias, mean, var)"


def ints(*numbers: int) -> np.ndarray:
    """A constant list of integers, as shapes and axes are."""
    return np.array(numbers, np.int64)


def statistics(channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random statistics whose first scale is certainly negative."""
    made = _statistics(channels, seed)
    made["scale"][0] = -abs(made["scale"][0])
    return made


def settled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace what the text says of the outputs' shapes, which is nothing, by what inference says."""
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
    return model


def above(
    lines: str,
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    x: str = "2,3,6,6",
    bn: int = 4,
    stats: Mapping[str, np.ndarray] | None = None,
    end: str = BATCHNORM,
    outputs: str = "float y",
    opset: int = 18,
) -> onnx.ModelProto:
    """A Conv giving `a` of shape [2, 4, 4, 4], the lines, which make `b` of it, and a BatchNorm on `b`."""
    text = f"g (float[{x}] x, float[2,4,4,4] z) => ({outputs}) {{ a = Conv(x, w)\n {lines}\n {end} }}"
    held = {"w": weight(4, 3, 3, 3), **(stats or statistics(bn)), **(constants or {})}
    return settled(build(_declared(text, "z"), _used(text, held), opset=opset))


def below(
    lines: str,
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    x: str = "2,4,4,4",
    bn: int = 4,
    stats: Mapping[str, np.ndarray] | None = None,
    end: str = "y = Conv(b, w)",
    w: np.ndarray | None = None,
    outputs: str = "float y",
    opset: int = 18,
) -> onnx.ModelProto:
    """A BatchNorm giving `a`, which cannot go up through a Sigmoid, the lines, and a Conv without padding."""
    start = "s = Sigmoid(x)\n a = BatchNormalization(s, scale, bias, mean, var)"
    text = f"g (float[{x}] x, float[2,4,4,4] z) => ({outputs}) {{ {start}\n {lines}\n {end} }}"
    held = {"w": weight(5, 4, 2, 2) if w is None else w, **(stats or statistics(bn)), **(constants or {})}
    return settled(build(_declared(text, "z"), _used(text, held), opset=opset))


def gone(model: onnx.ModelProto) -> FoldResult[onnx.ModelProto]:
    """Demand that no BatchNorm stays and that nothing changed."""
    result = fold_and_compare(model)
    assert "BatchNormalization" not in operators(result.model), [
        s.reason and s.reason.sentence for s in result.kept
    ]
    return result


def stays(model: onnx.ModelProto, *codes: str) -> FoldResult[onnx.ModelProto]:
    """Demand that a BatchNorm stays, for one of these reasons, and that nothing changed."""
    result = fold_and_compare(model)
    assert "BatchNormalization" in operators(result.model)
    assert set(codes) & kept_codes(result), kept_codes(result)
    return result


def _declared(text: str, name: str) -> str:
    """Leave an input out of the signature where no line reads it."""
    body = text[text.index("{") :]
    read = any(f"{before}{name}{after}" in body for before in "( " for after in ",)")
    return text if read else text.replace(", float[2,4,4,4] z", "", 1)


def _used(text: str, constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    return {name: array for name, array in constants.items() if name in names}
