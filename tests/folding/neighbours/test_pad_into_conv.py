"""A Pad with zeros goes into the Conv that alone reads it, and into nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import pytest

import bnfold
from tests.graphs import assert_same, build, fold_and_compare, operators, statistics, weight

X = "float[2,3,9,8] x"
W = {"w": weight(4, 3, 3, 2), "b": weight(4, seed=5)}


def padded(
    pads: str = "0,0,1,0,0,0,2,1",
    conv: str = "",
    *,
    pad: str = "",
    x: str = X,
    opset: int = 18,
) -> onnx.ModelProto:
    text = f"""g ({x}) => (float[?,?,?,?] y) {{
        p = Constant <value_ints = [{pads}]> ()
        a = Pad{pad} (x, p)
        y = Conv{conv} (a, w, b)
    }}"""
    return build(text, W, opset=opset)


def pads_of(model: onnx.ModelProto) -> list[int]:
    [conv] = [node for node in model.graph.node if node.op_type == "Conv"]
    return next(list(attribute.ints) for attribute in conv.attribute if attribute.name == "pads")


@pytest.mark.parametrize(
    ("model", "pads"),
    [
        (padded(), [1, 0, 2, 1]),
        (padded(opset=13), [1, 0, 2, 1]),
        (padded(opset=11), [1, 0, 2, 1]),
        (padded(conv="<pads = [0,1,2,0]>"), [1, 1, 4, 1]),
        (padded(conv='<auto_pad = "VALID">'), [1, 0, 2, 1]),
        (padded(conv='<auto_pad = "NOTSET", strides = [2,3], dilations = [2,1]>'), [1, 0, 2, 1]),
        (padded("0,0,5,7,0,0,6,8"), [5, 7, 6, 8]),
        (padded("0,0,0,0,0,0,0,0"), [0, 0, 0, 0]),
        (padded(x="float[N,3,H,8] x"), [1, 0, 2, 1]),
        (padded(x="float[N,C,H,W] x"), [1, 0, 2, 1]),
    ],
    ids=[
        *("one-sided", "opset 13", "opset 11", "pads add up", "VALID", "strided", "wider than the window"),
        *("nothing", "open sizes", "all sizes open"),
    ],
)  # fmt: skip
def test_a_pad_goes(model: onnx.ModelProto, pads: list[int]) -> None:
    x = model.graph.input[0].type.tensor_type.shape
    if x.dim[1].dim_param == "C":  # the tests feed three of what has no size
        x.dim[2].dim_value, x.dim[3].dim_value = 6, 7
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert pads_of(result.model) == pads
    [join] = result.joins
    assert (join.into, join.nodes, join.op_type) == ("y", ("a",), "Pad")


@pytest.mark.parametrize(("axes", "pads"), [("-1", [0, 1, 0, 2]), ("3,2", [3, 1, 0, 2])])
def test_axes_that_are_given(axes: str, pads: list[int]) -> None:
    amounts = "1,2" if axes == "-1" else "1,3,2,0"
    model = build(
        f"""g ({X}) => (float[?,?,?,?] y) {{
            p = Constant <value_ints = [{amounts}]> ()
            axes = Constant <value_ints = [{axes}]> ()
            a = Pad (x, p, , axes)
            y = Conv (a, w, b)
        }}""",
        W,
    )
    assert pads_of(fold_and_compare(model).model) == pads


def test_pads_in_an_attribute() -> None:
    """ONNX Runtime runs opset 2 too."""
    model = build(
        f"""g ({X}) => (float[?,?,?,?] y) {{
            a = Pad <mode = "constant", pads = [0,0,1,0,0,0,2,1], value = 0.0> (x)
            y = Conv (a, w, b)
        }}""",
        W,
        opset=10,
    )
    assert pads_of(fold_and_compare(model).model) == [1, 0, 2, 1]
    model.opset_import[0].version = 2
    assert operators(bnfold.fold(model).model) == ["Conv"]


def test_a_number_of_an_attribute_that_is_not_zero_stays() -> None:
    model = build(
        f"""g ({X}) => (float[?,?,?,?] y) {{
            a = Pad <pads = [0,0,1,0,0,0,2,1], value = 0.5> (x)
            y = Conv (a, w, b)
        }}""",
        W,
        opset=10,
    )
    assert operators(fold_and_compare(model).model) == ["Pad", "Conv"]


def test_what_version_1_calls_paddings_stays() -> None:
    model = build(
        "g (float[1,3,9,8] x) => (float[?,?,?,?] y) { "
        "a = Pad <paddings = [0,0,1,0,0,0,2,1]> (x) y = Conv (a, w, b) }",
        W,
        opset=1,
    )
    assert operators(bnfold.fold(model).model) == ["Pad", "Conv"]


def with_value(number: str) -> onnx.ModelProto:
    return build(
        f"""g ({X}) => (float[?,?,?,?] y) {{
            p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
            v = Constant <value = float {{{number}}}> ()
            a = Pad (x, p, v)
            y = Conv (a, w, b)
        }}""",
        W,
    )


@pytest.mark.parametrize(
    ("number", "kinds"), [("0.0", ["Conv"]), ("-0.0", ["Conv"]), ("1.5", ["Pad", "Conv"])]
)
def test_only_zeros_go(number: str, kinds: list[str]) -> None:
    assert operators(fold_and_compare(with_value(number)).model) == kinds


def graph(
    nodes: str, outputs: str = "float[?,?,?,?] y", inputs: str = X, **constants: np.ndarray
) -> onnx.ModelProto:
    text = f"""g ({inputs}) => ({outputs}) {{
        p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
        {nodes}
    }}"""
    return build(text, {**W, **constants})


STAYS = {
    "negative": padded("0,0,-1,0,0,0,2,1"),
    "on the channels": padded("0,1,1,0,0,-1,2,1"),
    "on the batch": padded("1,0,1,0,0,0,2,1"),
    "reflect": padded(pad='<mode = "reflect">'),
    "edge": padded(pad='<mode = "edge">'),
    "SAME": padded(conv='<auto_pad = "SAME_UPPER">'),
    "another reader": graph(
        "a = Pad (x, p) y = Conv (a, w, b) z = Relu (a)", "float[?,?,?,?] y, float[?,?,?,?] z"
    ),
    "read for its shape": graph(
        "a = Pad (x, p) y = Conv (a, w, b) z = Shape (a)", "float[?,?,?,?] y, int64[?] z"
    ),
    "an output": graph("a = Pad (x, p) y = Conv (a, w, b)", "float[?,?,?,?] y, float[?,?,?,?] a"),
    "two Convs": graph(
        "a = Pad (x, p) c = Conv (a, w, b) d = Conv (a, v) y = Mul (c, d)", v=weight(4, 3, 3, 2)
    ),
    "transposed": graph("a = Pad (x, p) y = ConvTranspose (a, v)", v=weight(3, 4, 3, 2)),
    "a pool": graph("a = Pad (x, p) y = AveragePool <kernel_shape = [2,2], count_include_pad = 1> (a)"),
    "a maximum": graph("a = Pad (x, p) y = MaxPool <kernel_shape = [2,2]> (a)"),
    "amounts that are fed": graph("a = Pad (x, q) y = Conv (a, w, b)", inputs=f"{X}, int64[8] q"),
    "a number that is fed": graph("a = Pad (x, p, v) y = Conv (a, w, b)", inputs=f"{X}, float v"),
    "as a weight": graph("a = Pad (k, p) y = Conv (x, a)", inputs="float[1,3,9,8] x, float[4,3,2,2] k"),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_pad_stays(name: str) -> None:
    model = STAYS[name]
    result = bnfold.fold(model)
    assert operators(result.model) == operators(model)
    assert result.joins == ()
    fed = [value.name for value in model.graph.input]
    if "q" not in fed:
        assert_same(model, result.model)


def test_the_batchnorm_between_goes_first_with_its_shift() -> None:
    """The Conv reads zeros only after it has taken the shift, which all of its taps get, the border's too."""
    model = graph(
        "a = Pad (x, p) n = BatchNormalization (a, scale, bias, mean, var) y = Conv (n, w, b)",
        **statistics(3),
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


def test_a_batchnorm_before_the_pad_stays_since_its_shift_is_not_that_of_the_border() -> None:
    model = graph(
        "n = BatchNormalization (x, scale, bias, mean, var) a = Pad (n, p) y = Conv (a, w, b)",
        **statistics(3),
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["BatchNormalization", "Conv"]
    assert {site.status for site in result.sites} == {"kept"}


def test_nothing_is_computed_so_half_precision_will_do() -> None:
    model = build(
        """g (float16[1,3,9,8] x) => (float16[?,?,?,?] y) {
            p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
            a = Pad (x, p)
            y = Conv (a, w)
        }""",
        {"w": weight(4, 3, 3, 2, dtype=np.float16)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


@pytest.mark.parametrize(("x", "amounts"), [("1,2,9", "0,0,1,0,0,2"), ("1,2,5,6,7", "0,0,1,0,2,0,0,0,3,1")])
def test_one_and_three_axes_in_groups(x: str, amounts: str) -> None:
    spatial = x.count(",") - 1
    model = build(
        f"""g (float[{x}] x) => (float[{",".join("?" * (spatial + 2))}] y) {{
            p = Constant <value_ints = [{amounts}]> ()
            a = Pad (x, p)
            y = Conv <group = 2> (a, w)
        }}""",
        {"w": weight(4, 1, *(2,) * spatial)},
    )
    assert operators(fold_and_compare(model).model) == ["Conv"]


def test_weights_that_another_node_reads_are_not_touched() -> None:
    model = graph("a = Pad (x, p) c = Conv (a, w, b) d = Conv (x, w) e = Relu (d) f = Relu (c)",
                  "float[?,?,?,?] f, float[?,?,?,?] e")  # fmt: skip
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv", "Relu", "Relu"]
    assert {tensor.name for tensor in result.model.graph.initializer} == {"w", "b"}


def test_in_a_branch() -> None:
    model = build(
        f"""g ({X}, bool c) => (float[?,?,?,?] y) {{
            y = If (c) <
                then_branch = t () => (float[?,?,?,?] s) {{
                    p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
                    a = Pad (x, p)
                    s = Conv (a, w, b)
                }},
                else_branch = e () => (float[?,?,?,?] r) {{ r = Conv <pads = [1,0,2,1]> (x, w, b) }}
            >
        }}""",
        W,
    )
    result = fold_and_compare(model)
    assert [join.op_type for join in result.joins] == ["Pad"]


def test_across_graphs_it_stays() -> None:
    model = build(
        f"""g ({X}, bool c) => (float[?,?,?,?] y) {{
            p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
            a = Pad (x, p)
            y = If (c) <
                then_branch = t () => (float[?,?,?,?] s) {{ s = Conv (a, w, b) }},
                else_branch = e () => (float[?,?,?,?] r) {{ r = Conv <pads = [1,0,2,1]> (x, w, b) }}
            >
        }}""",
        W,
    )
    assert operators(fold_and_compare(model).model) == ["Pad", "If"]


def test_in_a_function() -> None:
    model = build(
        f"""g ({X}) => (float[?,?,?,?] y) {{ y = local.block (x, w) }}
        <opset_import: ["" : 18], domain: "local">
        block (x, w) => (y) {{
            p = Constant <value_ints = [0,0,1,0,0,0,2,1]> ()
            a = Pad (x, p)
            y = Conv <kernel_shape = [3,2]> (a, w)
        }}""",
        {"w": W["w"]},
    )
    result = bnfold.fold(model)
    [function] = result.model.functions
    kinds = [node.op_type for node in function.node if node.op_type != "Constant"]
    # what a caller passes has no known rank, so how many axes are spatial is not known
    assert kinds == ["Pad", "Conv"]
    inlined = bnfold.fold(model, inline_functions=True)
    assert operators(inlined.model) == ["Conv"]
    assert_same(onnx.inliner.inline_local_functions(model), inlined.model)


def test_in_a_function_with_its_own_weight() -> None:
    model = build(
        """g (float[1,1,9] x) => (float[?,?,?] y) { y = local.block (x) }
        <opset_import: ["" : 18], domain: "local">
        block (x) => (y) {
            p = Constant <value_ints = [0,0,1,0,0,0]> ()
            w = Constant <value = float[2,1,2] {1.0, 2.0, -0.5, 3.0}> ()
            a = Pad (x, p)
            y = Conv (a, w)
        }"""
    )
    result = bnfold.fold(model)
    [function] = result.model.functions
    assert [node.op_type for node in function.node if node.op_type != "Constant"] == ["Conv"]
    assert_same(model, result.model)


def test_what_is_to_be_kept_stays() -> None:
    for name in ("a", "y"):
        result = bnfold.fold(padded(), keep=[name])
        assert operators(result.model) == ["Pad", "Conv"]


def test_merging_has_nothing_to_do_with_it() -> None:
    assert operators(bnfold.fold(padded(), merge=False).model) == ["Conv"]
