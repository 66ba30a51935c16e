"""The whole pass: sharing, types, forms of a file, names and interfaces, and that nothing else is touched."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import bnfold
from bnfold.errors import InputError
from bnfold.folding import record
from bnfold.folding.fold import fold_into
from bnfold.folding.provenance import Provenance
from bnfold.folding.rewrite import Rewriter
from bnfold.reasons import Reason
from bnfold.tensors import parts
from bnfold.tensors.product import Product
from tests.graphs import assert_same, build, feeds, fold_and_compare, kept_codes, operators, run, weight
from tests.graphs import statistics as any_statistics

NORM = "BatchNormalization({0}, scale, bias, mean, var)"
CONV = "g (float[N,3,6,6] x) => (float[N,4,4,4] y) {{ c = Conv(x, w) {0} }}"
PLAIN = CONV.format("y = " + NORM.format("c"))


def statistics(channels: int = 4, seed: int = 2, prefix: str = "", dtype: type = np.float32):
    return any_statistics(channels, seed, prefix, dtype)


def constants(dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"w": weight(4, 3, 3, 3, dtype=dtype), **statistics(dtype=dtype)}


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def in_bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


# sharing


def test_two_convs_share_their_weight_and_only_one_has_a_batchnorm():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] z) "
        f"{{ c = Conv(x, w) y = {NORM.format('c')} z = Conv(x, w) }}",
        constants(),
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv"]
    assert np.array_equal(arrays(result.model)["w"], constants()["w"])
    assert len(arrays(result.model)) == 3


def test_two_convs_share_their_weight_and_have_one_batchnorm_each():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] z) { c = Conv(x, w) "
        f"y = {NORM.format('c')} d = Conv(x, w) z = BatchNormalization(d, escale, ebias, emean, evar) }}",
        {**constants(), **statistics(prefix="e", seed=5)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv"]
    assert "w" not in arrays(result.model)
    assert len(arrays(result.model)) == 4


def test_the_same_fold_of_a_shared_weight_stays_shared():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] z) "
        f"{{ c = Conv(x, w) y = {NORM.format('c')} r = Relu(x) d = Conv(r, w) z = {NORM.format('d')} }}",
        constants(),
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Relu", "Conv"]
    assert len(arrays(result.model)) == 2


def test_two_batchnorms_share_their_parameters_and_one_stays():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] z) "
        f"{{ c = Conv(x, w) y = {NORM.format('c')} d = Conv(x, w) s = Sigmoid(d) z = {NORM.format('s')} }}",
        constants(),
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Conv", "Sigmoid", "BatchNormalization"]
    assert {"scale", "bias", "mean", "var", "w"} < set(arrays(result.model))
    for name, array in statistics().items():
        assert np.array_equal(arrays(result.model)[name], array)


def test_one_array_as_several_parameters():
    model = build(
        CONV.format("y = BatchNormalization(c, v, v, v, v)"),
        {"w": weight(4, 3, 3, 3), "v": statistics()["var"]},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert len(arrays(result.model)) == 2


def test_a_weight_that_is_a_graph_output_too():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[4,3,3,3] w) "
        f"{{ c = Conv(x, w) y = {NORM.format('c')} }}",
        constants(),
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert np.array_equal(arrays(result.model)["w"], constants()["w"])


def test_names_that_are_taken():
    """The new names must not meet old ones."""
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w) "
        f"w.bias = {NORM.format('c')} w.folded = Relu(w.bias) y = Neg(w.folded) }}".replace(".", "_"),
        constants(),
    )
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("w_", "w.") for name in names]
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Relu", "Neg"]


# forms of a file


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("layer", ["Gemm(v, w)", "MatMul(v, w)"])
def test_double_precision_stays_double(layer, before):
    """Not Conv: ONNX Runtime has none in double precision on the CPU."""
    body = f"c = Relu(x) v = {NORM.format('c')} y = {layer}"
    if not before:
        body = f"v = Relu(x) c = {layer} y = {NORM.format('c')}"
    given = {"w": weight(4, 4, dtype=np.float64), **statistics(dtype=np.float64)}
    result = fold_and_compare(build(f"g (double[N,4] x) => (double[N,4] y) {{ {body} }}", given), 1e-14)
    assert "BatchNormalization" not in operators(result.model)
    assert {array.dtype for array in arrays(result.model).values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("statistic", [np.float16, np.float32])
def test_half_precision_with_statistics_of_either_type(statistic):
    opset = 15 if statistic is np.float32 else 14
    given = {"w": weight(4, 3, 3, 3, dtype=np.float16), **statistics(dtype=statistic)}
    model = build(PLAIN.replace("float", "float16"), given, opset=opset)
    result = fold_and_compare(model, 4e-3)
    assert operators(result.model) == ["Conv"]
    assert {array.dtype for array in arrays(result.model).values()} == {np.dtype(np.float16)}


def test_bfloat16_is_rounded_once_to_its_own_type():
    """ONNX Runtime has no bfloat16 Conv on the CPU, so the numbers themselves are looked at."""
    import ml_dtypes

    given = constants()
    model = build(PLAIN.replace("float", "bfloat16"), opset=15)
    for name, array in given.items():
        tensor = ir.Tensor(array.astype(ml_dtypes.bfloat16), name=name)
        model.graph.initializer.append(ir.to_proto(tensor))
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Conv"]
    stored = {name: array.astype(ml_dtypes.bfloat16).astype(np.float64) for name, array in given.items()}
    factor = stored["scale"] / np.sqrt(stored["var"] + float(np.float32(1e-5)))
    exact = stored["w"] * factor[:, None, None, None]
    [kernel] = [ir.from_proto(t).numpy() for t in folded.graph.initializer if len(t.dims) == 4]
    assert kernel.dtype == ml_dtypes.bfloat16
    assert np.array_equal(kernel, exact.astype(ml_dtypes.bfloat16))


def test_nodes_without_names_and_with_equal_names():
    model = build(PLAIN, constants())
    assert not any(node.name for node in model.graph.node)
    assert fold_and_compare(model).folded[0].name == "y"
    for node in model.graph.node:
        node.name = "same"  # which ONNX Runtime refuses, and the fold does not mind
    assert operators(bnfold.fold(model).model) == ["Conv"]


def test_before_ir_version_4_every_initializer_is_an_input_as_a_matter_of_form():
    model = build(PLAIN, constants(), opset=8, ir_version=3)
    for name, array in constants().items():
        model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    inputs = [value.name for value in result.model.graph.input]
    assert set(inputs) == {"x"} | set(arrays(result.model))
    assert inputs[0] == "x"


@pytest.mark.parametrize(("name", "code"), [("w", "BN203"), ("scale", "BN103"), ("var", "BN103")])
def test_since_ir_version_4_a_caller_may_replace_such_an_initializer(name, code):
    model = build(PLAIN, constants())
    value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, constants()[name].shape)
    model.graph.input.append(value)
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "BatchNormalization"]
    assert kept_codes(result) >= {code}
    # and it really may: the folded model answers to another value as the original does
    other = {**feeds(model), name: np.abs(constants()[name]) + np.float32(0.1)}
    for expected, actual in zip(run(model, other), run(result.model, other), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_an_overridable_initializer_beside_the_fold_stays_in_the_interface():
    model = build(
        "g (float[N,3,6,6] x, float[1] k) => (float[N,4,4,4] y) "
        f"{{ c = Conv(x, w) n = {NORM.format('c')} y = Mul(n, k) }}",
        constants(),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32([2]), "k"))
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Mul"]
    assert [value.name for value in result.model.graph.input] == ["x", "k"]
    assert arrays(result.model)["k"] == 2


def test_constants_in_constant_nodes():
    model = build(PLAIN)
    for name, array in reversed(constants().items()):
        node = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        model.graph.node.insert(0, node)
    result = fold_and_compare(model)
    assert [node.op_type for node in result.model.graph.node] == ["Conv"]


def test_the_missing_bias_of_a_raw_export():
    """`torch.onnx.export(optimize=False)` writes it as Expand(CastLike(0), Shape(weight)) and the like."""
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { zero = Constant<value=float {0.0}>() "
        "like = CastLike(zero, w) all = Shape(w) first = Slice(all, o, i) b = Expand(like, first) "
        f"t = Transpose<perm=[1,0,2,3]>(v) c = Conv(x, t, b) y = {NORM.format('c')} }}",
        {
            **constants(),
            "v": weight(3, 4, 3, 3),
            "o": np.array([0]),
            "i": np.array([1]),
        },
    )
    result = fold_and_compare(model)
    assert [node.op_type for node in result.model.graph.node] == ["Conv"]
    assert len(arrays(result.model)) == 2


def test_what_computed_a_constant_stays_where_others_read_it():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[4,3,3,3] z) { t = Transpose<perm=[1,0,2,3]>(v) "
        f"c = Conv(x, t) y = {NORM.format('c')} z = Neg(t) }}",
        {**statistics(), "v": weight(3, 4, 3, 3)},
    )
    assert operators(fold_and_compare(model).model) == ["Transpose", "Conv", "Neg"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
def test_unsqueezed_parameters_of_every_version(opset):
    """The axes are an attribute before version 13 and an input since."""
    axes = "<axes=[1,2]>(k)" if opset < 13 else "(k, axes)"
    model = build(
        CONV.format(f"u = Unsqueeze{axes} y = Mul(c, u)"),
        {"w": weight(4, 3, 3, 3), "k": weight(4, seed=3), "axes": np.array([1, 2])},
        opset=opset,
    )
    if opset < 13:
        del model.graph.initializer[2]
    assert [node.op_type for node in fold_and_compare(model).model.graph.node] == ["Conv"]


def test_a_weight_behind_dequantize_linear_is_not_made_a_float():
    model = build(
        CONV.format(f"y = {NORM.format('c')}").replace("{ c", "{ w = DequantizeLinear(q, s, z) c"),
        {
            "q": np.arange(-54, 54).astype(np.int8).reshape(4, 3, 3, 3),
            "s": np.float32(0.02),
            "z": np.int8(0),
            **statistics(),
        },
    )
    result = fold_and_compare(model)
    assert "DequantizeLinear" in operators(result.model)


def test_a_sparse_initializer_is_not_lost():
    model = build(CONV.format(f"n = {NORM.format('c')} y = Mul(n, k)"), constants())
    values = numpy_helper.from_array(np.float32([2, 3]), "k")
    indices = numpy_helper.from_array(np.int64([0, 2]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    with pytest.raises(bnfold.BnfoldError, match="sparse"):
        bnfold.fold(model)


def test_a_sparse_initializer_of_a_branch_is_not_lost():
    model = build(PLAIN, constants())
    inner = helper.make_graph([], "inner", [], [])
    values = numpy_helper.from_array(np.float32([2, 3]), "k")
    inner.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.int64([0, 2])), [4])
    )
    middle = helper.make_graph([helper.make_node("If", ["b"], [], then_branch=inner)], "middle", [], [])
    model.graph.node.append(helper.make_node("If", ["b"], [], else_branch=middle))
    with pytest.raises(bnfold.BnfoldError, match="sparse"):
        bnfold.fold(model)


@pytest.mark.parametrize("field", ["training_info", "configuration"])
def test_what_onnx_ir_does_not_keep_is_not_lost(field: str):
    model = build(PLAIN, constants())
    getattr(model, field).add()
    with pytest.raises(bnfold.BnfoldError, match="would lose") as caught:
        bnfold.fold(model)
    assert field in caught.value.fix


# outputs and interface


def test_an_output_keeps_its_name_and_its_documentation():
    model = build(PLAIN, constants())
    model.graph.output[0].doc_string = "what comes out"
    folded = fold_and_compare(model).model
    assert [output for node in folded.graph.node for output in node.output] == ["y"]
    assert folded.graph.output[0].doc_string == "what comes out"
    assert folded.graph.output == model.graph.output


def test_an_output_that_others_read_as_well():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] z) "
        f"{{ c = Conv(x, w) y = {NORM.format('c')} z = Relu(y) }}",
        constants(),
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "Relu"]


def test_an_output_listed_twice():
    model = build(PLAIN, constants())
    model.graph.output.append(model.graph.output[0])
    folded = bnfold.fold(model).model
    assert operators(folded) == ["Conv"]
    assert [value.name for value in folded.graph.output] == ["y", "y"]


IDENTITIES = {
    "input to output": "g (float[2,3] x) => (float[2,3] y) { y = Mul(x, one) }",
    "output to output": "g (float[2,3] x) => (float[2,3] r, float[2,3] y) { r = Relu(x) y = Mul(r, one) }",
    "shared": "g (float[2,3] x) => (float[2,3] r, float[2,3] y) { a = Relu(x) r = Neg(a) y = Mul(a, one) }",
    "initializer": "g (float[2,3] x) => (float[2,3] r, float[2,3] y) { r = Neg(x) i = Identity(c) "
    "y = BatchNormalization<epsilon=0.0>(i, ones, zeros, zeros, ones) }",
    "branch": "g (float[2,3] x, bool k) => (float[2,3] y) { r = Relu(x) "
    "y = If(k) <then_branch = t () => (float[2,3] p) { p = Mul(r, one) }, "
    "else_branch = e () => (float[2,3] q) { q = Neg(r) }> }",
    "batchnorm": "g (float[2,3] x) => (float[2,3] y) "
    "{ y = BatchNormalization<epsilon=0.0>(x, ones, zeros, zeros, ones) }",
}


@pytest.mark.parametrize("text", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_an_affine_that_does_nothing_does_not_cost_the_interface_its_names(text):
    pool = {
        "one": np.float32(1),
        "ones": np.ones(3, np.float32),
        "zeros": np.zeros(3, np.float32),
        "c": weight(2, 3),
    }
    model = build(text, {name: array for name, array in pool.items() if re.search(rf"\b{name}\b", text)})
    fold_and_compare(model)


def test_an_affine_that_does_nothing_goes_where_it_can():
    model = build(CONV.format("m = Mul(c, one) y = Relu(m)"), {"w": weight(4, 3, 3, 3), "one": np.float32(1)})
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Relu"]


def test_a_batchnorm_of_a_constant():
    model = build(
        f"g (float[2,4] x) => (float[2,4] y) {{ n = {NORM.format('c')} r = Relu(n) y = Add(x, r) }}",
        {"c": weight(2, 4), **statistics()},
    )
    fold_and_compare(model)


def test_metadata_imports_and_documentation_survive():
    model = build(
        PLAIN.replace("y = ", "n = ").replace(") }", ") y = local.Twice(n) }")
        + '\n<domain: "local", opset_import: ["": 18]> Twice (x) => (y) { y = Add(x, x) }',
        constants(),
    )
    model.doc_string, model.graph.doc_string, model.graph.name = "model", "graph", "network"
    model.producer_name, model.producer_version = "someone", "3.1"
    model.domain, model.model_version = "org.example", 7
    helper.set_model_props(model, {"author": "me", "labels": "a,b"})
    model.opset_import.append(helper.make_opsetid("com.other", 2))
    folded = fold_and_compare(model).model
    assert operators(folded) == ["Conv", "Twice"]
    for name in (
        "doc_string",
        "producer_name",
        "producer_version",
        "domain",
        "model_version",
        "ir_version",
    ):
        assert getattr(folded, name) == getattr(model, name)
    assert (folded.graph.name, folded.graph.doc_string) == ("network", "graph")
    properties = {p.key: p.value for p in folded.metadata_props if p.key != record.KEY}
    assert properties == {"author": "me", "labels": "a,b"}
    assert {(i.domain, i.version) for i in folded.opset_import} == {
        (i.domain, i.version) for i in model.opset_import
    }
    assert [function.name for function in folded.functions] == ["Twice"]
    assert folded.graph.input == model.graph.input
    assert folded.graph.output == model.graph.output


def test_the_argument_is_left_alone_and_the_kind_of_the_result_is_its_kind(tmp_path):
    model = build(PLAIN, constants())
    before = in_bytes(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    written = path.read_bytes()
    from_proto = bnfold.fold(model).model
    assert isinstance(from_proto, onnx.ModelProto)
    assert in_bytes(model) == before
    intermediate = ir.from_proto(model)
    from_ir = bnfold.fold(intermediate).model
    assert isinstance(from_ir, ir.Model)
    assert in_bytes(ir.to_proto(intermediate)) == in_bytes(ir.to_proto(ir.from_proto(model)))
    assert len(list(intermediate.graph)) == 2
    from_path = bnfold.fold(path).model
    assert isinstance(from_path, ir.Model)
    assert path.read_bytes() == written
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert in_bytes(from_proto) == in_bytes(ir.to_proto(from_ir)) == in_bytes(ir.to_proto(from_path))


def test_the_same_input_gives_the_same_bytes():
    model = build(
        "g (float[N,3,6,6] x) => (float[N,4,2,2] y) { c = Conv(x, w) "
        f"n = {NORM.format('c')} r = Relu(n) d = Conv(r, v) m = Mul(d, k) y = Add(m, l) }}",
        {
            **constants(),
            "v": weight(4, 4, 3, 3),
            "k": weight(4, 1, 1, seed=3),
            "l": weight(4, 1, 1, seed=4),
        },
    )
    assert in_bytes(bnfold.fold(model).model) == in_bytes(bnfold.fold(model).model)


def test_a_model_without_anything_to_fold_comes_back_as_it_is():
    model = build(CONV.format("y = Relu(c)"), {"w": weight(4, 3, 3, 3)})
    result = fold_and_compare(model)
    assert result.sites == ()
    assert result.model.graph == ir.to_proto(ir.from_proto(model)).graph


def test_progress_is_told_of_every_chain():
    calls: list[tuple[int, int]] = []
    bnfold.fold(build(PLAIN, constants()), progress=lambda _, done, total: calls.append((done, total)))
    assert calls[0] == (1, 1)


# topologies of the neighbours' suites


def test_conv_bn_relu_add_as_in_a_residual_block():
    model = build(
        "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { c = Conv<pads=[1,1,1,1]>(x, w) "
        f"n = {NORM.format('c')} r = Relu(n) d = Conv<pads=[1,1,1,1]>(r, v) "
        "m = BatchNormalization(d, escale, ebias, emean, evar) a = Add(m, x) y = Relu(a) }",
        {
            "w": weight(4, 4, 3, 3),
            "v": weight(4, 4, 3, 3, seed=5),
            **statistics(),
            **statistics(prefix="e", seed=3),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Relu", "Conv", "Add", "Relu"]
    assert [site.status for site in result.sites] == ["folded"] * 2


def test_a_batchnorm_that_is_split_off_from_its_conv_by_a_pool():
    model = build(
        "g (float[N,3,8,8] x) => (float[N,4,3,3] y) { c = Conv(x, w) "
        f"p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) y = {NORM.format('p')} }}",
        constants(),
    )
    assert operators(fold_and_compare(model).model) == ["Conv", "AveragePool"]


@pytest.mark.parametrize("opset", [7, 8, 9, 12, 13, 14, 15, 18, 21, 23])
def test_every_version_that_onnx_runtime_runs(opset):
    model = build(PLAIN, constants(), opset=opset)
    assert operators(fold_and_compare(model).model) == ["Conv"]


def test_a_network_of_all_the_usual_layers():
    model = build(
        "g (float[N,3,10,10] x) => (float[N,5] y) { c = Conv(x, w) "
        f"n = {NORM.format('c')} r = Relu(n) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) "
        "f = Flatten(p) l = Gemm<transB=1>(f, u, b) m = BatchNormalization(l, escale, ebias, emean, evar) "
        "t = Relu(m) y = MatMul(t, h) }",
        {
            **constants(),
            "u": weight(6, 64),
            "b": weight(6),
            "h": weight(6, 5),
            **statistics(6, prefix="e"),
        },
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Relu", "MatMul"]
    assert len(result.folded) == 2


@pytest.mark.parametrize(("factor", "code"), [(300, "BN401"), (1e-4, "BN402")])
def test_a_chain_that_cannot_be_shorter_in_its_type_stays(factor, code):
    k = np.array([1, 0.9, 0.8, 0.7], np.float16).reshape(4, 1, 1) * np.float16(factor)
    model = build(
        "g (float16[1,4,8,8] x) => (float16[1,4,8,8] y) "
        "{ r = Relu(x) a = Mul(r, k) b = Mul(a, k) y = Relu(b) }",
        {"k": k},
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Relu", "Mul", "Mul", "Relu"]
    assert kept_codes(result) == {code}


def test_a_node_without_a_name_is_reported_by_the_name_that_it_had():
    model = build(
        "g (float[1,3,6,6] x) => (float[1,4,4,4] y) "
        "{ c = Conv(x, w) y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    assert [site.into for site in fold_and_compare(model).sites] == [("c",)]


def test_a_constant_that_fails_in_a_branch_that_is_not_taken():
    model = build(
        "g (float[2,4] x) => (float[2,4] y) { y = If(yes) "
        "<then_branch = t () => (float[2,4] p) { p = Relu(x) }, "
        "else_branch = e () => (float[2,4] q) { w = Gather(m, beyond) q = Add(x, w) }> }",
        {"m": weight(4, 4), "yes": np.array(True), "beyond": np.array([9])},
    )
    assert_same(model, bnfold.fold(model).model)


def test_a_long_row_of_convolutions_beside_one():
    row = " ".join(f"c{i} = Conv({f'c{i - 1}' if i else 'x'}, w)" for i in range(1200))
    model = build(
        f"g (float[1,4,2,2] x) => (float[1,4,2,2] y) {{ {row} d = Conv(x, w) y = Add(c1199, d) }}",
        {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)},
    )
    assert len(operators(bnfold.fold(model).model)) == 1202


# what shall stay


def two_layers() -> onnx.ModelProto:
    """Two times Conv → BatchNormalization → Relu; PyTorch's exporter has called the second `net.bn2`."""
    names = [f"{part}{i}" for i in (1, 2) for part in ("conv", "bn", "relu")]
    model = build(
        "g (float[1,3,6,6] x) => (float[1,3,6,6] y) {"
        " c = Conv(x, w) b = BatchNormalization(c, scale, bias, mean, var) r = Relu(b)"
        " d = Conv(r, w) e = BatchNormalization(d, scale, bias, mean, var) y = Relu(e) }",
        {"w": weight(3, 3, 1, 1), **statistics(3)},
    )
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    scopes = "['', 'net', 'net.bn2', 'batch_norm']"
    model.graph.node[4].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    return model


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ((), []),
        (["bn1"], ["bn1"]),
        (["bn2"], ["bn2"]),
        (["net.bn2"], ["bn2"]),
        ({"bn1", "net.bn2"}, ["bn1", "bn2"]),
        (["conv1"], ["bn1"]),  # the Conv stays as it is, so the BatchNorm has to
        (["relu1"], []),
    ],
)
def test_what_is_named_stays_as_it_is(keep, left):
    model = two_layers()
    result = bnfold.fold(model, keep=keep)
    assert_same(model, result.model)
    assert [node.name for node in result.model.graph.node if node.name.startswith("bn")] == left
    assert [(site.node, site.reason.code) for site in result.kept] == [(name, "BN108") for name in left]


def test_what_is_named_takes_no_part_in_a_merge():
    model = build(
        "g (float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Conv <pads = [1,1,1,1]> (x, w) b = Conv(x, v)"
        " y = Add(a, b) }",
        {"w": weight(4, 4, 3, 3), "v": weight(4, 4, 1, 1)},
    )
    assert operators(bnfold.fold(model).model) == ["Conv"]
    for name in ("a", "b"):
        result = bnfold.fold(model, keep=[name])
        assert operators(result.model) == ["Conv", "Conv", "Add"]
        assert not result.merges


def test_a_name_that_there_is_not_is_no_wish_that_can_be_met():
    with pytest.raises(InputError, match=r"no node named bn3, net\.bn9, which was to be kept") as caught:
        bnfold.fold(two_layers(), keep=["net.bn9", "bn1", "bn3"])
    assert "bnfold inspect" in caught.value.fix


# blocks


BETWEEN = "n = BatchNormalization(x, iscale, ibias, imean, ivar)"
BEHIND = "y = BatchNormalization(c, scale, bias, mean, var)"
BOTH_SIDES = {
    "Conv": ("[N,6,9,9] x", "[N,4,7,7] y", "Conv(n, w, b)", (4, 6, 3, 3)),
    "Conv in groups": ("[N,6,9,9] x", "[N,4,7,7] y", "Conv<group = 2>(n, w)", (4, 3, 3, 3)),
    "ConvTranspose": ("[N,6,9,9] x", "[N,4,9,9] y", "ConvTranspose<group = 2>(n, w, b)", (6, 2, 1, 1)),
    "Gemm": ("[N,6] x", "[N,4] y", "Gemm(n, w, b)", (6, 4)),
    "Gemm transposed": ("[N,6] x", "[N,4] y", "Gemm<transB = 1>(n, w, b)", (4, 6)),
}


def both_sides(layer: str, dtype: type = np.float32) -> onnx.ModelProto:
    """A layer between two BatchNorms."""
    source, result, call, shape = BOTH_SIDES[layer]
    text = f"g (float{source}) => (float{result}) {{ {BETWEEN} c = {call} {BEHIND} }}"
    given = {
        "w": weight(*shape),
        "b": weight(4, seed=8),
        **statistics(4),
        **statistics(6, seed=4, prefix="i"),
    }
    if "b)" not in call:
        del given["b"]
    return build(text, {name: array.astype(dtype) for name, array in given.items()})


@pytest.mark.parametrize("layer", BOTH_SIDES)
def test_what_is_computed_in_blocks_has_the_same_bits(layer, monkeypatch):
    model = both_sides(layer)
    whole = fold_and_compare(model)
    assert {site.status for site in whole.sites} == {"folded"}
    monkeypatch.setattr(parts, "BLOCK", 40)
    assert in_bytes(bnfold.fold(model).model) == in_bytes(whole.model)


def test_a_product_of_matrices_in_blocks_has_the_same_bits(monkeypatch):
    model = build(
        "g (float[2,3,5,6] x) => (float[2,3,5,4] y) { n = Mul(x, k) m = Add(n, t) c = MatMul(m, w) "
        "y = Mul(c, s) }",
        {"w": weight(3, 6, 4), "k": weight(6, seed=2), "t": weight(6, seed=3), "s": weight(4, seed=4)},
    )
    whole = fold_and_compare(model)
    assert operators(whole.model) == ["MatMul", "Add"]
    monkeypatch.setattr(parts, "BLOCK", 40)
    assert in_bytes(bnfold.fold(model).model) == in_bytes(whole.model)


def test_a_result_needs_neither_the_file_nor_the_argument(tmp_path):
    path = tmp_path / "model.onnx"
    model = both_sides("Conv")
    onnx.save(model, path)
    from_file, from_proto = bnfold.fold(path).model, bnfold.fold(model).model
    path.unlink()
    for tensor in model.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    assert in_bytes(ir.to_proto(from_file)) == in_bytes(from_proto)
    assert any(np.any(array) for array in arrays(from_proto).values())
    assert not any(isinstance(value.const_value, Product) for value in from_file.graph.initializers.values())


def two_that_overflow() -> onnx.ModelProto:
    """The first weight overflows, and so does the second bias, which is computed while planning."""
    ones = {f"{letter}{name}": np.ones(4, np.float16) for letter in "fs" for name in ("scale", "var")}
    zeros = {f"{letter}{name}": np.zeros(4, np.float16) for letter in "fs" for name in ("bias", "mean")}
    first, second = (
        f"BatchNormalization({of}, {p}scale, {p}bias, {p}mean, {p}var)" for of, p in (("c", "f"), ("d", "s"))
    )
    return build(
        "g (float16[1,4,4,4] x) => (float16[1,4,4,4] y) { "
        f"c = Conv(x, w) n = {first} r = Relu(n) d = Conv(r, v, b) y = {second} }}",
        {
            **ones,
            **zeros,
            "fscale": np.full(4, 300, np.float16),
            "sscale": np.full(4, 3, np.float16),
            "w": np.full((4, 4, 1, 1), 300, np.float16),
            "v": weight(4, 4, 1, 1, dtype=np.float16),
            "b": np.full(4, 60000, np.float16),
        },
    )


def test_all_that_does_not_fit_is_taken_back_at_once(monkeypatch):
    blamed, runs = [], []
    blame, run = Provenance.blame, Rewriter.write

    def count(self: Rewriter) -> None:
        runs.append(None)
        run(self)

    def note(self: Provenance, node: ir.Node, reason: Reason) -> object:
        blamed.append(node.outputs[0].name)
        return blame(self, node, reason)

    monkeypatch.setattr(Provenance, "blame", note)
    monkeypatch.setattr(Rewriter, "write", count)
    result = bnfold.fold(two_that_overflow())
    assert [site.reason.code for site in result.sites] == ["BN401", "BN401"]
    assert blamed == ["n", "y"]
    assert len(runs) == 2  # one that failed, and one without both


def test_weights_are_computed_while_they_are_written():
    model = two_that_overflow()
    written = []

    def write(folded: ir.Model) -> None:
        weights = [value.const_value for value in folded.graph.initializers.values()]
        written.append([type(tensor) for tensor in weights].count(Product))
        for tensor in weights:
            tensor.tobytes()

    result = fold_into(write, ir.from_proto(model))
    assert in_bytes(ir.to_proto(result.model)) == in_bytes(bnfold.fold(model).model)
    assert written == [0]  # both were taken back before anything was written
    result = fold_into(write, ir.from_proto(both_sides("Conv")))
    assert written == [0, 1]
    assert [str(site.status) for site in result.sites] == ["folded", "folded"]


@pytest.mark.parametrize(("lowest", "status"), [(-127, "folded"), (-128, "kept")])
def test_integers_are_flipped_in_blocks(lowest, status, monkeypatch):
    dequantized = "{ w = DequantizeLinear<axis = 0>(q, s, z) c"
    integers = np.random.default_rng(3).integers(-126, 124, (4, 3, 3, 3), dtype=np.int8)
    integers[:, -1, -1, -1] = lowest  # in the last block of every channel, the flipped one among them
    model = build(
        CONV.format(f"y = {NORM.format('c')}").replace("{ c", dequantized),
        {"q": integers, "s": weight(4, seed=7) ** 2, "z": np.array([0, 0, 0, 0], np.int8), **statistics()},
        opset=19,
    )
    whole = fold_and_compare(model)
    assert [site.status for site in whole.sites] == [status]
    monkeypatch.setattr(parts, "BLOCK", 20)
    assert in_bytes(bnfold.fold(model).model) == in_bytes(whole.model)
