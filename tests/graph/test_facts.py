"""Every scope: branches, bodies of loops, and functions, each folded where it is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import bnfold
from bnfold.graph.facts import Facts
from tests.graphs import assert_same, build, fold_and_compare, kept_codes, operators, statistics, weight

NORM = "BatchNormalization({0}, scale, bias, mean, var)"


def branches(then: str, other: str = "q = Neg(x)") -> str:
    shape = "float[2,4,4,4]"
    return (
        f"If(k) <then_branch = t () => ({shape} p) {{ {then} }}, "
        f"else_branch = e () => ({shape} q) {{ {other} }}>"
    )


IF_HEAD = "g (float[2,4,4,4] x, bool k) => (float[2,4,4,4] y)"
SQUARE = {"w": weight(4, 4, 1, 1), **statistics(4, 2)}


def test_a_batchnorm_in_a_branch_is_folded_there():
    body = "c = Conv(x, w) p = " + NORM.format("c")
    result = fold_and_compare(build(f"{IF_HEAD} {{ y = {branches(body)} }}", SQUARE))
    [node] = result.model.graph.node
    graphs = {attribute.name: attribute.g for attribute in node.attribute}
    assert [n.op_type for n in graphs["then_branch"].node if n.op_type != "Constant"] == ["Conv"]
    assert [n.op_type for n in graphs["else_branch"].node] == ["Neg"]
    assert "then_branch" in result.folded[0].graph


def test_a_batchnorm_in_a_branch_with_its_conv_outside_stays():
    text = f"{IF_HEAD} {{ c = Conv(x, w) y = {branches('p = ' + NORM.format('c'))} }}"
    result = fold_and_compare(build(text, SQUARE))
    assert kept_codes(result) == {"BN303", "BN302"}


def test_a_batchnorm_outside_with_its_conv_in_a_branch_stays():
    text = f"{IF_HEAD} {{ c = {branches('p = Conv(x, w)')} y = {NORM.format('c')} }}"
    result = fold_and_compare(build(text, SQUARE))
    assert operators(result.model) == ["If", "BatchNormalization"]
    assert "BN215" in kept_codes(result)


@pytest.mark.parametrize("captured", ["c", "n"])
def test_a_value_that_a_branch_reads(captured):
    """The Conv's output is needed as it is; the BatchNorm's is needed by a branch, which sees the same."""
    text = (
        f"{IF_HEAD} {{ c = Conv(x, w) n = {NORM.format('c')} "
        f"i = {branches(f'p = Relu({captured})')} y = Add(i, n) }}"
    )
    result = fold_and_compare(build(text, SQUARE))
    stays = captured == "c"
    assert operators(result.model) == ["Conv"] + ["BatchNormalization"] * stays + ["If", "Add"]


def test_a_batchnorm_in_a_loop():
    model = build(
        "g (float[2,4,4,4] x, int64 n, bool k) => (float[2,4,4,4] y) { y = Loop(n, k, x) <body = b "
        f"(int64 i, bool a, float[2,4,4,4] v) => (bool o, float[2,4,4,4] u) "
        f"{{ o = Identity(a) c = Conv(v, w) u = {NORM.format('c')} }}> }}",
        SQUARE,
    )
    result = fold_and_compare(model)
    assert [site.status for site in result.sites] == ["folded"]


def test_a_batchnorm_in_a_scan():
    model = build(
        "g (float[5,2,4,4,4] x) => (float[5,2,4,4,4] y) { y = Scan<num_scan_inputs=1, body = b "
        "(float[2,4,4,4] v) => (float[2,4,4,4] u) "
        f"{{ c = Conv(v, w) u = {NORM.format('c')} }}>(x) }}",
        SQUARE,
    )
    result = fold_and_compare(model)
    assert [site.status for site in result.sites] == ["folded"]


def test_a_value_carried_around_a_loop_is_no_producer():
    model = build(
        "g (float[2,4,4,4] x, int64 n, bool k) => (float[2,4,4,4] y) { c = Conv(x, w) "
        "y = Loop(n, k, c) <body = b (int64 i, bool a, float[2,4,4,4] v) => (bool o, float[2,4,4,4] u) "
        f"{{ o = Identity(a) u = {NORM.format('v')} }}> }}",
        SQUARE,
    )
    assert kept_codes(fold_and_compare(model)) == {"BN304", "BN302"}


def floats(array: np.ndarray) -> str:
    shape = ",".join(map(str, array.shape))
    return f"float[{shape}] {{{', '.join(str(float(x)) for x in array.reshape(-1))}}}"


def function(body: str, inputs: str = "x", own: dict[str, np.ndarray] | None = None, attributes: str = ""):
    made = " ".join(f"{name} = Constant<value = {floats(array)}>()" for name, array in (own or {}).items())
    head = f'<domain: "local", opset_import: ["": 18]> Block {attributes} ({inputs}) => (y)'
    return f"\n{head} {{ {made} {body} }}"


LAYER = {
    "Conv": (SQUARE, "2,4,3,3"),
    "Gemm": ({"w": weight(4, 4), **statistics(4, 2)}, "2,4"),
}


@pytest.mark.parametrize("layer", LAYER)
def test_a_function_with_its_own_weights_is_folded_where_it_is(layer):
    own, shape = LAYER[layer]
    text = f"g (float[{shape}] x) => (float[{shape}] y) {{ a = local.Block(x) y = local.Block(a) }}"
    model = build(text + function(f"c = {layer}(x, w) y = {NORM.format('c')}", own=own))
    result = fold_and_compare(model)
    [block] = result.model.functions
    kept = [node.op_type for node in block.node if node.op_type != "Constant"]
    assert kept == [layer]
    assert operators(result.model) == ["Block", "Block"]
    assert result.folded[0].graph == "function local::Block"


PASSED = "x, w, scale, bias, mean, var"


def passed() -> onnx.ModelProto:
    text = f"g (float[2,4,3,3] x) => (float[2,4,3,3] y) {{ y = local.Block({PASSED}) }}"
    return build(text + function(f"c = Conv(x, w) y = {NORM.format('c')}", PASSED), SQUARE)


def test_a_function_whose_weights_are_passed_in_is_left_alone_with_a_reason():
    result = fold_and_compare(passed())
    assert kept_codes(result) == {"BN102"}
    assert result.kept[0].graph == "function local::Block"


def test_a_function_whose_weights_are_passed_in_is_inlined_on_demand():
    model = passed()
    result = bnfold.fold(model, inline_functions=True)
    assert_same(model, result.model)
    assert operators(result.model) == ["Conv"]
    assert not result.model.functions
    assert len(model.functions) == 1


def with_attribute() -> onnx.ModelProto:
    text = f"g (float[2,4,3,3] x) => (float[2,4,3,3] y) {{ y = local.Block<eps=0.3>({PASSED}) }}"
    norm = NORM.format("c").replace("Normalization", "Normalization<epsilon: float = @eps>")
    return build(text + function(f"c = Conv(x, w) y = {norm}", PASSED, attributes="<eps>"), SQUARE)


def test_an_attribute_that_the_caller_sets():
    model = with_attribute()
    assert kept_codes(fold_and_compare(model)) == {"BN106"}
    inlined = bnfold.fold(model, inline_functions=True)
    assert_same(model, inlined.model)
    assert operators(inlined.model) == ["Conv"]


def test_a_stale_shape_proves_nothing():
    """The inputs' batch was changed from 4 to 2, what the file records of the values between was not."""
    model = build(
        f"g (float[2,3,4,4] x) => (float[2,4,4,4] y) {{ c = Conv(x, k) r = Relu(c) y = {NORM.format('r')} }}",
        {"k": weight(4, 3, 1, 1), **statistics(4, 2)},
    )
    model.graph.value_info.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [4, 4, 4, 4]))
    facts = Facts(ir.from_proto(model))
    [relu] = (node for node in facts.model.graph if node.op_type == "Relu")
    assert facts.shape(relu.outputs[0]) == (2, 4, 4, 4)
