"""Constants are rounded once, to their own type, and nothing is written that does not fit it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.folding.sweep import Pass
from tests.graphs import assert_same, build, kept_codes, operators, statistics, weight

NORM = "BatchNormalization({0}, scale, bias, mean, var)"
PLAIN = f"g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) y = {NORM.format('c')} }}"


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_half_precision_weight_is_the_exact_product_rounded_once():
    given = {"w": weight(64, 16, 3, 3, dtype=np.float16), **statistics(64, 2, dtype=np.float16)}
    text = f"g (float16[2,16,6,6] x) => (float16[2,64,4,4] y) {{ c = Conv(x, w) y = {NORM.format('c')} }}"
    folded = arrays(bnfold.fold(build(text, given)).model)
    [kernel] = [array for array in folded.values() if array.ndim == 4]
    [offset] = [array for array in folded.values() if array.ndim == 1]
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    factor = wide["scale"] / np.sqrt(wide["var"] + float(np.float32(1e-5)))
    exact = wide["w"] * factor[:, None, None, None]
    # what folding in half precision, as is done elsewhere, would give
    narrow = given["scale"] / np.sqrt(given["var"] + np.float16(1e-5))
    rounded = given["w"] * narrow[:, None, None, None]
    ours, theirs = (
        (np.abs(array.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float16))).max()
        for array in (kernel, rounded)
    )
    print(f"largest error in units in the last place: {ours:.3f} folded in float64, {theirs:.3f} in float16")
    assert kernel.dtype == np.float16
    assert ours <= 0.5
    assert theirs > 1
    shift = wide["bias"] - wide["mean"] * factor
    assert np.array_equal(offset, shift.astype(np.float16))


def test_a_weight_that_would_overflow_is_kept_and_all_others_are_folded():
    large = np.full((4, 4, 1, 1), 300, np.float16)
    arrays_in = {
        "w": weight(4, 3, 3, 3, dtype=np.float16),
        "v": large,
        **statistics(4, 2, dtype=np.float16),
        **statistics(4, 2, "e", dtype=np.float16),
    } | {"escale": np.full(4, 300, np.float16), "evar": np.ones(4, np.float16)}
    model = build(
        "g (float16[2,3,6,6] x) => (float16[2,4,4,4] y, float16[2,4,4,4] z) { c = Conv(x, w) "
        f"y = {NORM.format('c')} r = Mul(y, tiny) d = Conv(r, v) "
        "z = BatchNormalization(d, escale, ebias, emean, evar) }",
        {**arrays_in, "tiny": np.float16(1e-3)},
    )
    result = bnfold.fold(model)
    assert [site.status for site in result.sites] == ["folded", "kept"]
    assert result.kept[0].reason.code == "BN401"
    assert "FLOAT16" in result.kept[0].reason.sentence
    assert operators(result.model).count("BatchNormalization") == 1
    assert np.array_equal(arrays(result.model)["v"], large)
    assert_same(model, result.model, 2e-2)


def test_a_shift_that_would_overflow_the_bias_add_behind_a_product():
    given = {name: array.astype(np.float16) for name, array in statistics(4, 2).items()}
    model = build(
        "g (float16[2,4] x) => (float16[2,4] y) { r = Relu(x) "
        f"n = {NORM.format('r')} m = MatMul(n, w) y = Add(m, b) }}",
        given
        | {
            "bias": np.full(4, 60000, np.float16),
            "w": np.full((4, 4), 0.9, np.float16),
            "b": weight(4, dtype=np.float16),
        },
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Relu", "BatchNormalization", "MatMul", "Add"]
    assert kept_codes(result) == {"BN401"}


def test_infinite_weights_are_no_overflow_of_ours():
    w = weight(4, 3, 3, 3)
    w[0, 0, 0, 0] = np.inf
    folded = bnfold.fold(build(PLAIN, {"w": w, **statistics(4, 2)})).model
    assert operators(folded) == ["Conv"]
    assert np.isinf(next(array for array in arrays(folded).values() if array.ndim == 4)[0, 0, 0, 0])
    assert all(np.isfinite(array).all() for array in arrays(folded).values() if array.ndim == 1)


@pytest.mark.parametrize("layer", ["Gemm(x, w)", "MatMul(x, w)"])
def test_infinite_weights_make_no_bias(layer):
    w = weight(4, 4)
    w[0, 0] = np.inf
    text = f"g (float[N,4] x) => (float[N,4] y) {{ c = {layer} y = Mul(c, k) }}"
    result = bnfold.fold(build(text, {"w": w, "k": weight(4)}))
    assert operators(result.model) == [layer[: layer.index("(")]]
    assert len(arrays(result.model)) == 1


# what is shared, and when it is computed


def folded_weights(text: str, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [array for array in arrays(bnfold.fold(build(text, given)).model).values() if array.ndim == 4]


def two_convs(first: str, second: str, before: str = "") -> str:
    norms = f"y = {NORM.format('c')} d = Conv(x, {second}) z = {NORM.format('d')}"
    outputs = "float[N,4,4,4] y, float[N,4,4,4] z"
    return f"g (float[N,3,6,6] x) => ({outputs}) {{ {before} c = Conv(x, {first}) {norms} }}"


def test_one_weight_of_two_nodes_stays_one() -> None:
    given = {"w": weight(4, 3, 3, 3), **statistics(4, 2)}
    assert len(folded_weights(two_convs("w", "w"), given)) == 1


def test_one_computed_weight_of_two_nodes_stays_one() -> None:
    given = {"v": weight(3, 4, 3, 3), **statistics(4, 2)}
    before = "w = Transpose<perm = [1, 0, 2, 3]>(v)"
    [made] = folded_weights(two_convs("w", "w", before), given)
    assert made.shape == (4, 3, 3, 3)


def test_two_weights_of_equal_numbers_stay_two() -> None:
    given = {"w": weight(4, 3, 3, 3), "v": weight(4, 3, 3, 3), **statistics(4, 2)}
    first, second = folded_weights(two_convs("w", "v"), given)
    assert np.array_equal(first, second)


def test_biases_of_equal_numbers_become_one() -> None:
    given = {"w": weight(4, 3, 3, 3), "v": weight(4, 3, 3, 3), **statistics(4, 2)}
    folded = bnfold.fold(build(two_convs("w", "v"), given)).model
    assert sorted(array.ndim for array in arrays(folded).values()) == [1, 4, 4]


def test_factors_of_one_scale_are_one_whichever_side_it_came_from() -> None:
    text = (
        "g (float[N,4] x) => (float[N,4] y, float[N,4] z) "
        f"{{ c = Gemm(x, w) y = {NORM.format('c')} r = Relu(x) n = {NORM.format('r')} z = Gemm(n, w) }}"
    )
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    given = {"w": weight(4, 4), "scale": 3 * ones, "bias": zeros, "mean": zeros, "var": ones}
    result = bnfold.fold(build(text, given))
    assert operators(result.model) == ["Gemm", "Relu", "Gemm"]
    assert len(arrays(result.model)) == 1


def test_a_weight_in_a_function_is_computed_when_it_is_written() -> None:
    text = (
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { y = local.layer(x) }"
        '<domain: "local", opset_import: ["" : 18]> layer (x) => (y) { w = Constant<value = {0}>() '
        "scale = Constant<value = float[4] {1, 2, 3, 4}>() bias = Constant<value = float[4] {1, 2, 3, 4}>() "
        "mean = Constant<value = float[4] {4, 3, 2, 1}>() var = Constant<value = float[4] {1, 2, 1, 2}>() "
        f"c = Conv(x, w) y = {NORM.format('c')} }}"
    )
    numbers = ", ".join(map(str, weight(4, 3, 3, 3).reshape(-1).tolist()))
    model = build(text.replace("{0}", f"float[4,3,3,3] {{{numbers}}}"))
    result = bnfold.fold(model)
    assert [node.op_type for node in result.model.functions[0].node] == ["Constant", "Constant", "Conv"]
    assert_same(model, result.model)


def test_layers_that_share_a_weight_are_all_to_blame_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count, rounds = 6, []
    lines = []
    for n in range(count):
        lines += [f"c{n} = Conv(r{n}, w)", f"b{n} = {NORM.format(f'c{n}')}", f"r{n + 1} = Relu(b{n})"]
    text = f"g (float[1,4,3,3] r0) => (float[1,4,3,3] r{count}) {{ {chr(10).join(lines)} }}"
    huge = {**statistics(4, 2), "scale": np.full(4, 3e38, np.float32), "var": np.full(4, 1e-3, np.float32)}
    blame = Pass.blame

    def counted(self, errors):
        rounds.append(len(errors))
        return blame(self, errors)

    monkeypatch.setattr(Pass, "blame", counted)
    result = bnfold.fold(build(text, {"w": weight(4, 4, 1, 1), **huge}))
    assert [site.status for site in result.sites] == ["kept"] * count
    assert rounds == [count]
