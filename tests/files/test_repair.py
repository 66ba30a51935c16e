"""What runtimes read is read: nodes in any order, names that are not text; what nobody can run is refused."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import bnfold
from bnfold.errors import ModelError
from bnfold.files.load import NOTES, load_onnx
from bnfold.files.repair import RENAMED, SORTED
from tests.graphs import assert_same, build, operators, statistics, weight


def network() -> onnx.ModelProto:
    return build(
        "g (float[N,3,6,6] x, bool k) => (float[N,4,6,6] y) { c = Conv(x, w) "
        "n = BatchNormalization(c, scale, bias, mean, var) r = Relu(n) "
        "y = If(k) <then_branch = t () => (float[N,4,6,6] a) { b = Sigmoid(r) a = Neg(b) }, "
        "else_branch = e () => (float[N,4,6,6] d) { d = Identity(r) }> }",
        {"w": weight(4, 3, 1, 1), **statistics(4)},
    )


def reversed_nodes(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)[::-1]
    del graph.node[:]
    graph.node.extend(nodes)


def test_unsorted_nodes_are_sorted_with_a_note(tmp_path):
    expected = bnfold.fold(network())
    for inner in (False, True):
        model = network()
        if inner:
            reversed_nodes(model.graph.node[-1].attribute[0].g)
        else:
            reversed_nodes(model.graph)
        onnx.save(model, tmp_path / "model.onnx")
        read = load_onnx(tmp_path / "model.onnx")
        assert read.meta[NOTES] == (SORTED,)
        result = bnfold.fold(tmp_path / "model.onnx")
        folded = ir.to_proto(result.model)
        assert operators(folded) == operators(expected.model) == ["Conv", "Relu", "If"]
        assert_same(network(), folded)


def test_sorted_nodes_stay_as_they_are(tmp_path):
    onnx.save(network(), tmp_path / "model.onnx")
    read = load_onnx(tmp_path / "model.onnx")
    assert read.meta[NOTES] == ()
    assert [node.op_type for node in read.graph] == [node.op_type for node in network().graph.node]


def test_nodes_in_a_circle_are_refused(tmp_path):
    model = build("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Relu(a) y = Neg(b) }")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="in a circle"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("old", [b"theNode", b"theValue"])
def test_names_that_are_not_text_are_written_as_escapes(tmp_path, old):
    model = network()
    model.graph.node[0].name = "theNode"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "theValue"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(old, old[:-1] + b"\xf4"))
    assert load_onnx(path).meta[NOTES] == (RENAMED,)
    result = bnfold.fold(path)
    assert [site.status for site in result.sites] == ["folded"]
    assert_same(model, ir.to_proto(result.model))


@pytest.mark.parametrize("old", [b"theInput", b"theOutput", b"TheOperator"])
def test_names_that_callers_use_must_be_text(tmp_path, old):
    model = build(
        "g (float[2] theInput) => (float[2] theOutput) { theOutput = other.TheOperator(theInput) }",
    )
    model.opset_import.append(helper.make_opsetid("other", 1))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(old, old[:-1] + b"\xf4"))
    with pytest.raises(ModelError, match="not UTF-8 text"):
        load_onnx(path)


@pytest.mark.parametrize("old", [b"Relu", b"given"])
def test_names_that_say_what_is_computed_must_be_text(tmp_path, old):
    """Of an operator, and of an attribute of the function that calls."""
    model = build("g (float[2] x) => (float[2] y) { a = Relu(x) y = LeakyRelu<alpha = 0.5>(a) }")
    if old == b"given":
        attribute = model.graph.node[1].attribute[0]
        attribute.ClearField("f")
        attribute.ref_attr_name = "given"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(old, old[:-1] + b"\xf4"))
    with pytest.raises(ModelError, match="an operator or an attribute named"):
        load_onnx(path)


def calling(depth: int, times: int) -> onnx.ModelProto:
    """Functions of which each calls the next so many times."""
    model = network()
    model.opset_import.append(helper.make_opsetid("f", 1))
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for level in range(depth):
        kind, domain = ("Relu", "") if level == depth - 1 else (f"F{level + 1}", "f")
        nodes = [helper.make_node(kind, [f"v{at}"], [f"v{at + 1}"], domain=domain) for at in range(times)]
        model.functions.append(helper.make_function("f", f"F{level}", ["v0"], [f"v{times}"], nodes, imports))
    model.graph.node[2].op_type, model.graph.node[2].domain = "F0", "f"
    return model


def test_functions_that_multiply_are_refused_at_once(tmp_path):
    for depth, times in ((41, 2), (12, 9), (3, 2000)):
        onnx.save(calling(depth, times), tmp_path / "model.onnx")
        start = time.process_time()
        with pytest.raises(ModelError, match="once its functions are inlined"):
            load_onnx(tmp_path / "model.onnx")
        assert time.process_time() - start < 5


def test_functions_within_bounds_are_read(tmp_path):
    model = calling(4, 3)
    onnx.save(model, tmp_path / "model.onnx")
    result = bnfold.fold(tmp_path / "model.onnx")
    assert_same(model, ir.to_proto(result.model))


def test_a_function_that_calls_itself_is_refused(tmp_path):
    model = calling(3, 1)
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "F1", "f"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="calls itself"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("c", [(5,), (1, 5), (1, 1, 8), (3, 8)])
@pytest.mark.parametrize("trans", [0, 1])
def test_a_bias_that_does_not_fit_its_weight_is_a_reason(c, trans):
    arrays = {"w": weight(8, 4) if trans else weight(4, 8), "c": weight(*c), **statistics(8)}
    model = build(
        f"g (float[3,4] x) => (float[3,8] y) {{ m = Gemm<transB={trans}>(x, w, c) "
        "y = BatchNormalization(m, scale, bias, mean, var) }",
        arrays,
    )
    [site] = bnfold.fold(model).sites
    if c == (3, 8):
        assert site.status == "folded"
    else:
        assert (site.status, site.reason.code) == ("kept", "BN216")


def test_zeros_of_any_shape_are_no_bias():
    arrays = {"w": weight(4, 8), "c": np.zeros(5, np.float32), **statistics(8)}
    model = build(
        "g (float[3,4] x) => (float[3,8] y) { m = Gemm(x, w, c) "
        "y = BatchNormalization(m, scale, bias, mean, var) }",
        arrays,
    )
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Gemm"]
    del model.graph.node[0].input[2]
    model.graph.initializer.remove(next(one for one in model.graph.initializer if one.name == "c"))
    assert_same(model, folded)
