"""A permutation of channels goes into the weight of a layer next to it."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import bnfold
from tests.graphs import assert_same, build, fold_and_compare, operators, statistics, weight

POOL = {
    "k": weight(4, 3, 3, 3, seed=1),
    "kb": weight(4, seed=2),
    "g": weight(4, 1, 3, 3, seed=3),
    "a": weight(3, 4, seed=4),
    "at": weight(4, 3, seed=5),
    "v": weight(4, seed=6),
    "rows": weight(5, 4, seed=7),
    "one": weight(1, seed=8),
    **statistics(3),
}
IMAGE, ROWS, DEEP = "float[2,3,6,5] x", "float[5,3] x", "float[2,5,3] x"
NORM = "BatchNormalization"
BGR = "i = Constant <value_ints = [2,0,1]> ()"
FOUR = "i = Constant <value_ints = [3,-4,2,1]> ()"


def graph(
    nodes: str, x: str = IMAGE, outputs: str = "", *, opset: int = 18, **more: np.ndarray
) -> onnx.ModelProto:
    constants = {**POOL, **more}
    words = set(re.findall(r"\w+", nodes))
    used = {name: array for name, array in constants.items() if name in words}
    rank = x.split("]")[0].count(",") + 1
    return build(f"g ({x}) => (float[{','.join('?' * rank)}] y{outputs}) {{ {nodes} }}", used, opset=opset)


def reversed_by_slice(axis: int = 1, start: int = -1, end: int = -(2**63), step: int = -1) -> str:
    return f"""s = Constant <value_ints = [{start}]> () e = Constant <value_ints = [{end}]> ()
        t = Constant <value_ints = [{axis}]> () u = Constant <value_ints = [{step}]> ()
        h = Slice (x, s, e, t, u)"""


BEFORE = {
    "Conv": (f"{BGR} h = Gather <axis = 1> (x, i) y = Conv <pads = [1,1,1,1]> (h, k, kb)", IMAGE, ["Conv"]),
    "counted from the end": (f"{BGR} h = Gather <axis = -3> (x, i) y = Conv (h, k)", IMAGE, ["Conv"]),
    "open sizes": (f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k)", "float[N,3,6,5] x", ["Conv"]),
    "a Slice": (f"{reversed_by_slice()} y = Conv (h, k, kb)", IMAGE, ["Conv"]),
    "a Slice with ends": (f"{reversed_by_slice(-3, 2, -4)} y = Conv (h, k, kb)", IMAGE, ["Conv"]),
    "Gemm": (f"{BGR} h = Gather <axis = 1> (x, i) y = Gemm (h, a, v)", ROWS, ["Gemm"]),
    "Gemm, the other way": (
        f"{BGR} h = Gather <axis = 1> (x, i) y = Gemm <transB = 1> (h, at, v)",
        ROWS,
        ["Gemm"],
    ),
    "MatMul": (f"{BGR} h = Gather <axis = 2> (x, i) y = MatMul (h, a)", DEEP, ["MatMul"]),
    "with a BatchNorm": (
        f"{BGR} h = Gather <axis = 1> (x, i) n = {NORM} (h, scale, bias, mean, var) y = Conv (n, k)",
        IMAGE,
        ["Conv"],
    ),
    "after a BatchNorm": (
        f"{BGR} n = {NORM} (x, scale, bias, mean, var) h = Gather <axis = 1> (n, i) y = Conv (h, k)",
        IMAGE,
        ["Conv"],
    ),
    "with preprocessing": (
        f"{BGR} h = Gather <axis = 1> (x, i) m = Mul (h, one) n = Sub (m, one) y = Conv (n, k)",
        IMAGE,
        ["Conv"],
    ),
}
AFTER = {
    "Conv": (f"{FOUR} h = Conv (x, k, kb) y = Gather <axis = 1> (h, i)", IMAGE, ["Conv"]),
    "Conv without a bias": (f"{FOUR} h = Conv (x, k) y = Gather <axis = -3> (h, i)", IMAGE, ["Conv"]),
    "Gemm": (f"{FOUR} h = Gemm (x, a, rows) y = Gather <axis = 1> (h, i)", ROWS, ["Gemm"]),
    "Gemm, the other way": (
        f"{FOUR} h = Gemm <transB = 1> (x, at, one) y = Gather <axis = -1> (h, i)",
        ROWS,
        ["Gemm"],
    ),
    "MatMul": (f"{FOUR} h = MatMul (x, a) y = Gather <axis = 2> (h, i)", DEEP, ["MatMul"]),
    "MatMul with a bias": (
        f"{FOUR} m = MatMul (x, a) h = Add (v, m) y = Gather <axis = 2> (h, i)",
        DEEP,
        ["MatMul", "Add"],
    ),
    "MatMul minus a bias": (
        f"{FOUR} m = MatMul (x, a) h = Sub (rows, m) y = Gather <axis = 2> (h, i)",
        DEEP,
        ["MatMul", "Sub"],
    ),
    "with a scale": (
        f"{FOUR} h = MatMul (x, a) s = Mul (h, v) y = Gather <axis = 2> (s, i)",
        DEEP,
        ["MatMul"],
    ),
    "then Relu": (
        f"{FOUR} h = Conv (x, k, kb) j = Gather <axis = 1> (h, i) y = Relu (j)",
        IMAGE,
        ["Conv", "Relu"],
    ),
}


@pytest.mark.parametrize("where", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize("merge", [True, False])
def test_an_order_goes(where: dict[str, tuple[str, str, list[str]]], merge: bool) -> None:
    for name, (nodes, x, kinds) in where.items():
        model = graph(nodes, x)
        result = fold_and_compare(model) if merge else bnfold.fold(model, merge=False)
        assert operators(result.model) == kinds, name
        assert [join.op_type for join in result.joins] == [("Slice" if "Slice" in name else "Gather")]
        assert_same(model, result.model)


def test_between_two_layers() -> None:
    model = graph(
        f"{FOUR} c = Conv (x, k, kb) h = Gather <axis = 1> (c, i) y = Conv (h, w)", w=weight(9, 4, 3, 3)
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Conv"]


STAYS = {
    "a choice": ("i = Constant <value_ints = [2,0]> () h = Gather <axis = 1> (x, i) y = Conv (h, w)", IMAGE),
    "one twice": (
        "i = Constant <value_ints = [2,0,0]> () h = Gather <axis = 1> (x, i) y = Conv (h, k)",
        IMAGE,
    ),
    "of four, three": (f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k)", "float[2,4,6,5] x"),
    "of how many": (f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k)", "float[2,C,6,5] x"),
    "another axis": (f"{BGR} h = Gather <axis = 2> (x, i) y = Conv (h, k)", "float[2,3,3,5] x"),
    "groups": (f"{FOUR} h = Gather <axis = 1> (x, i) y = Conv <group = 4> (h, g)", "float[2,4,6,5] x"),
    "groups before": (f"{FOUR} h = Conv <group = 4> (x, g) y = Gather <axis = 1> (h, i)", "float[2,4,6,5] x"),
    "a Slice of a part": (f"{reversed_by_slice(end=0)} y = Conv (h, w)", IMAGE),
    "a Slice of every second": (f"{reversed_by_slice(step=-2)} y = Conv (h, w)", IMAGE),
    "rows": ("i = Constant <value_ints = [4,3,2,1,0]> () h = Gather (x, i) y = Gemm (h, a)", ROWS),
    "a layer that is activated": (f"{FOUR} c = Conv (x, k) h = Relu (c) y = Gather <axis = 1> (h, i)", IMAGE),
    "a Conv transposed": (f"{BGR} h = Gather <axis = 1> (x, i) y = ConvTranspose (h, w)", IMAGE),
}


@pytest.mark.parametrize("name", STAYS)
def test_an_order_stays(name: str) -> None:
    nodes, x = STAYS[name]
    model = graph(nodes, x, w=weight(*((3, 2, 2, 2) if "transposed" in name else (4, 2, 3, 3))))
    result = fold_and_compare(model)
    assert operators(result.model) == operators(model)
    assert result.joins == ()


SHARED = {
    "the value is read": (
        f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k) z = Relu (h)",
        "float[?,?,?,?] z",
    ),
    "the value is an output": (f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k)", "float[?,?,?,?] h"),
    "the weight is read": (
        f"{BGR} h = Gather <axis = 1> (x, i) y = Conv (h, k) z = Relu (k)",
        "float[?,?,?,?] z",
    ),
    "the layer is read": (
        f"{FOUR} h = Conv (x, k) y = Gather <axis = 1> (h, i) z = Relu (h)",
        "float[?,?,?,?] z",
    ),
    "the layer is an output": (f"{FOUR} h = Conv (x, k) y = Gather <axis = 1> (h, i)", "float[?,?,?,?] h"),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_stays(name: str) -> None:
    nodes, other = SHARED[name]
    model = graph(nodes, outputs=f", {other}")
    assert operators(fold_and_compare(model).model) == operators(model)


def test_indices_that_are_fed_stay() -> None:
    model = graph("h = Gather <axis = 1> (x, i) y = Conv (h, k)", f"{IMAGE}, int64[3] i")
    assert operators(bnfold.fold(model).model) == ["Gather", "Conv"]


def test_half_precision_only_changes_places() -> None:
    model = build(
        f"""g (float16[2,3,6,5] x) => (float16[?,?,?,?] y) {{ {BGR}
            h = Gather <axis = 1> (x, i)
            y = Conv (h, k) }}""",
        {"k": weight(4, 3, 3, 3, dtype=np.float16)},
    )
    folded = fold_and_compare(model).model
    assert operators(folded) == ["Conv"]
    [kernel] = [onnx.numpy_helper.to_array(tensor) for tensor in folded.graph.initializer]
    before = onnx.numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(kernel[:, [2, 0, 1]], before)


def test_quantised_weights_stay() -> None:
    model = build(
        f"""g (float[1,3,5,5] x) => (float[?,?,?,?] y) {{
            {BGR}
            h = Gather <axis = 1> (x, i)
            w = DequantizeLinear (q, s)
            y = Conv (h, w)
        }}""",
        {"q": np.arange(24, dtype=np.int8).reshape(8, 3, 1, 1), "s": np.float32(0.1)},
    )
    assert operators(fold_and_compare(model).model) == ["Gather", "DequantizeLinear", "Conv"]


def test_in_a_branch_and_in_a_function() -> None:
    model = build(
        f"""g ({IMAGE}, bool c) => (float[?,?,?,?] y) {{
            f = local.turn (x)
            y = If (c) <
                then_branch = t () => (float[?,?,?,?] s) {{
                    {BGR}
                    h = Gather <axis = 1> (x, i)
                    s = Conv (h, k)
                }},
                else_branch = e () => (float[?,?,?,?] r) {{ r = Identity (f) }}
            >
        }}
        <opset_import: ["" : 18], domain: "local">
        turn (x) => (y) {{
            w = Constant <value = float[2,3,1,1] {{1.0,2.0,-3.0,4.0,5.0,0.5}}> ()
            i = Constant <value_ints = [1,0]> ()
            h = Conv (x, w)
            y = Gather <axis = 1> (h, i)
        }}""",
        {"k": POOL["k"]},
    )
    result = bnfold.fold(model)
    assert_same(model, result.model)
    assert [join.op_type for join in result.joins] == ["Gather"]  # of what a caller passes no size is known
