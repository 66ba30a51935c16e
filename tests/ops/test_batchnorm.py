"""BatchNormalization as a place to fold into, and every version's own meaning."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import build, fold_and_compare, kept_codes, operators, statistics, weight

CALL = "BatchNormalization(x, scale, bias, mean, var)"


@pytest.mark.parametrize("shape", ["2,4", "2,4,5", "2,4,5,3", "2,4,2,3,2"])
@pytest.mark.parametrize("activation", ["", "Relu"])
def test_a_scale_behind_a_batchnorm_joins_it(shape, activation):
    """Nothing else can take it: the BatchNorm reads the graph's input. Its own numbers carry both."""
    rank = shape.count(",") + 1
    body = "n = " + CALL + (f" r = {activation}(n)" if activation else "")
    k = np.abs(weight(4, *[1] * (rank - 2), seed=3)) + 0.1
    model = build(
        f"g (float[{shape}] x) => (float[{shape}] y) {{ {body} y = Mul({'r' if activation else 'n'}, k) }}",
        {"k": k.astype(np.float32), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["BatchNormalization", *([activation] if activation else [])]


def test_an_affine_before_a_batchnorm_that_is_held_up():
    """Mul and Add over a Relu-less path join the BatchNorm behind a MaxPool."""
    model = build(
        "g (float[2,4,6,6] x) => (float[2,4,3,3] y) { s = Mul(x, k) t = Add(s, l) "
        "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t) "
        "y = BatchNormalization(p, scale, bias, mean, var) }",
        {
            "k": np.abs(weight(4, 1, 1)) + np.float32(0.1),
            "l": weight(4, 1, 1, seed=3),
            **statistics(4, 2),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["MaxPool", "BatchNormalization"]


def test_two_batchnorms_around_a_pool_become_one():
    model = build(
        "g (float[2,4,6,6] x) => (float[2,4,3,3] y) { n = BatchNormalization(x, ascale, abias, amean, avar) "
        "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(n) "
        "y = BatchNormalization(p, bscale, bbias, bmean, bvar) }",
        {**statistics(4, 0, "a"), **statistics(4, 1, "b")},
    )
    result = fold_and_compare(model)
    assert operators(result.model).count("BatchNormalization") == 1
    assert len(result.folded) == 1
    assert len(result.kept) == 1


def test_an_affine_along_another_axis_does_not_join():
    model = build(
        "g (float[2,4,4,4] x) => (float[2,4,4,4] y) "
        "{ n = BatchNormalization(x, scale, bias, mean, var) r = Relu(n) y = Mul(r, k) }",
        {"k": np.abs(weight(4)) + np.float32(0.1), **statistics(4, 2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["BatchNormalization", "Relu", "Mul"]
    assert "BN204" in kept_codes(result)


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_a_batchnorm_whose_parameters_are_computed(index):
    names = ["x", "scale", "bias", "mean", "var"]
    given = f", float[4] {names[index]}"
    arrays = {name: array for name, array in statistics(4, 2).items() if name != names[index]}
    model = build(
        f"g (float[2,4,3,3] x{given}) => (float[2,4,3,3] y) {{ c = Conv(x, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **arrays},
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv", "BatchNormalization"]
    assert result.kept[0].reason.code == "BN102"
    assert names[index] in result.kept[0].reason.sentence


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
@pytest.mark.parametrize("read", [False, True])
def test_more_outputs_mean_training_before_version_14(opset, read):
    """The number of outputs decides, whether they are read or not."""
    further = ", float[4] m" if read else ""
    model = build(
        f"g (float[2,4,3,3] x) => (float[2,4,3,3] y{further}) {{ c = Conv(x, w) "
        "y, m, v, sm, sv = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
        opset=opset,
        ir_version=7,
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv", "BatchNormalization"]
    assert result.kept[0].reason.code == "BN101"


@pytest.mark.parametrize("opset", [7, 9, 13, 15])
def test_outputs_without_a_name_are_none(opset):
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
        opset=opset,
    )
    plain = bnfold.fold(model).model
    model.graph.node[1].output.extend(["", ""])
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Conv"]
    assert folded.graph == plain.graph


@pytest.mark.parametrize(("mode", "stays"), [(0, False), (1, True)])
@pytest.mark.parametrize("opset", [14, 15, 18])
def test_a_flag_decides_since_version_14(opset, mode, stays):
    outputs = "y, m, v" if mode else "y"
    model = build(
        f"g (float[2,4,3,3] x) => (float[2,4,3,3] y) {{ c = Conv(x, w) "
        f"{outputs} = BatchNormalization<training_mode={mode}>(c, scale, bias, mean, var) }}",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
        opset=opset,
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv"] + ["BatchNormalization"] * stays
    assert kept_codes(result) == ({"BN101"} if stays else set())


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("is_test", [None, 0, 1])
def test_is_test_decides_before_version_7(opset, is_test):
    attributes = [f"is_test={is_test}"] if is_test is not None else []
    attributes += ["consumed_inputs=[0,0,0,1,1]"] if opset == 1 else []
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        f"y, m, v, sm, sv = BatchNormalization<{','.join([*attributes, 'momentum=0.9'])}>"
        "(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2)},
        opset=opset,
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv"] + ["BatchNormalization"] * (is_test != 1)
    assert kept_codes(result) == (set() if is_test == 1 else {"BN101"})


@pytest.mark.parametrize(
    "change",
    [
        {"var": np.array([-1, 1, 1, 1])},
        {"var": np.array([np.float32(-1e-5), 1, 1, 1])},
        {"var": np.array([np.inf, 1, 1, 1])},
        {"scale": np.array([np.nan, 1, 1, 1])},
        {"bias": np.array([1, -np.inf, 1, 1])},
        {"mean": np.array([1, 1, 1, np.nan])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_unusable_numbers(change):
    arrays = statistics(4, 2) | {name: array.astype(np.float32) for name, array in change.items()}
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 4, 1, 1), **arrays},
    )
    result = bnfold.fold(model)
    assert result.model.graph == bnfold.fold(result.model).model.graph
    assert operators(result.model) == ["Conv", "BatchNormalization"]
    assert result.kept[0].reason.code == "BN104"


@pytest.mark.parametrize("epsilon", [None, 0.0, 1e-3, 1.0])
def test_epsilon(epsilon):
    attribute = "" if epsilon is None else f"<epsilon={epsilon}>"
    model = build(
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { c = Conv(x, w) "
        f"y = BatchNormalization{attribute}(c, scale, bias, mean, var) }}",
        {"w": weight(4, 4, 1, 1), **statistics(4, 2), "var": np.array([1e-4, 2e-5, 1e-3, 0.5], np.float32)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


def test_what_stays_keeps_its_variance_and_takes_what_it_can():
    model = build(
        "g (float[2,4,6,6] x) => (float[2,4,3,3] y) { n = BatchNormalization(x, ascale, abias, amean, avar) "
        "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(n) "
        "y = BatchNormalization(p, bscale, bbias, bmean, bvar) }",
        {**statistics(4, 0, "a"), **statistics(4, 1, "b")},
    )
    folded = fold_and_compare(model).model
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in folded.graph.initializer}
    node = next(node for node in folded.graph.node if node.op_type == "BatchNormalization")
    assert node.input[4] in ("avar", "bvar")
    assert not np.any(arrays[node.input[3]])
