"""Bias correction: means put right, biases where there were none, and nothing that makes a model worse."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.edge.bias import _OPERATORS, Corrected, correct
from bnfold.edge.noise import signal_to_noise
from bnfold.edge.quantize import Calibrated, Quantized, Scheme, named
from bnfold.edge.rows import split
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import interface
from bnfold.runtime.sessions import run, session
from tests.small_networks import Draft, residual

ROWS = 96
PLAIN = Scheme(correct_biases=False)


def data(seed: int = 0, rows: int = ROWS) -> dict[str, Any]:
    """Pictures: no pixel is below 0, so that rounded weights shift what they make of them."""
    return {"x": np.abs(np.random.default_rng(seed).normal(0.5, 1, (rows, 3, 12, 12))).astype(np.float32)}


def every_operator(seed: int, *, bias: bool) -> ir.Model:
    """A Conv, one of groups, a ConvTranspose and a Gemm, with biases or none, and no BatchNorm."""
    d = Draft(seed)
    y = d.node("Relu", "r1", d.conv("c1", "x", (8, 3, 3, 3), bias=bias, pads=[1, 1, 1, 1]))
    y = d.node("Relu", "r2", d.conv("c2", y, (16, 2, 3, 3), bias=bias, group=4))
    y = d.node("Relu", "r3", d.conv("t", y, (16, 6, 2, 2), bias=bias, op="ConvTranspose", strides=[2, 2]))
    y = d.node("Flatten", "f", d.node("GlobalAveragePool", "p", y))
    if bias:
        return named(from_proto(d.model(["N", 3, 12, 12], d.gemm("g", y, 6, 5))))
    y = d.node("Gemm", "g", y, d.weight("g", 5, 6, fan=6), transB=1)
    return named(from_proto(d.model(["N", 3, 12, 12], y)))


def means(model: ir.Model, names: tuple[str, ...]) -> dict[str, Any]:
    """The mean of each layer's output, a number for each channel."""
    copy = model.clone()
    copy.graph.outputs.clear()
    for node in copy.graph:
        if node.name in names:
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            copy.graph.outputs.append(node.outputs[0])
    order = [node.name for node in copy.graph if node.name in names]
    found = run(session(copy, optimized="off"), data())
    return {
        str(name): one.astype(float).mean(axis=tuple(axis for axis in range(one.ndim) if axis != 1))
        for name, one in zip(order, found, strict=True)
    }


def both(model: ir.Model, **scheme: Any) -> tuple[Quantized, Quantized]:
    """Quantised without correction and with it, on one calibration."""
    with Calibrated(model, data()) as calibrated:
        return (
            calibrated.quantize(Scheme(correct_biases=False, **scheme)),
            calibrated.quantize(Scheme(**scheme)),
        )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_mean_of_every_layer_is_put_right(bias: bool, per_channel: bool) -> None:
    model = every_operator(1, bias=bias)
    plain, done = both(model, per_channel=per_channel)
    assert set(done.corrected) == set(done.layers) == {"c1", "c2", "t", "g"}
    wanted = means(model, done.layers)
    off = {
        label: {name: np.abs(one - wanted[name]).max() for name, one in means(found, done.layers).items()}
        for label, found in (("plain", plain.model), ("done", done.model))
    }
    for name in done.layers:
        assert off["done"][name] < 0.35 * off["plain"][name], (name, off)
    assert done.gain > 1
    unseen = split(Samples((data(),), labels=("all",)), interface(model).inputs).feeds[2:]
    before, after = (signal_to_noise(model, one.model, unseen, "off") for one in (plain, done))
    assert done.gain == pytest.approx(after - before, abs=1)


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_it_holds_on_other_data_and_for_any_opset(opset: int) -> None:
    proto = residual(3)
    proto = onnx.version_converter.convert_version(proto, opset)
    model = named(bnfold.fold(from_proto(proto)).model)
    plain, done = both(model)
    held_out = (data(seed=7),)
    before, after = (signal_to_noise(model, one.model, held_out, "off") for one in (plain, done))
    assert after > before + 0.5
    assert done.model.opset_imports[""] == plain.model.opset_imports[""]


def test_the_other_name_of_the_domain_will_do() -> None:
    proto = to_proto(every_operator(1, bias=False))
    proto.opset_import[0].domain = "ai.onnx"
    plain, done = both(named(from_proto(proto)))
    assert set(done.corrected) == set(plain.layers)


def test_a_layer_without_bias_runs_in_integers_as_before(tmp_path: Path) -> None:
    plain, done = both(every_operator(2, bias=False))
    counts = [kernels(one.model, tmp_path) for one in (plain, done)]
    more = counts[1] - counts[0]
    assert more == Counter({"DequantizeLinear": 1})  # that of the ConvTranspose, which runs in floats
    assert (counts[1]["QLinearConv"], counts[1]["QGemm"]) == (2, 1)


def kernels(model: ir.Model, folder: Path) -> Counter[str]:
    """How often ONNX Runtime runs each operator at its default."""
    path = str(folder / "optimized.onnx")

    def keep(options: Any) -> None:
        options.optimized_model_filepath = path

    session(model, optimized="default", configure=keep)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_only_biases_change() -> None:
    plain, done = both(every_operator(4, bias=True))
    one, other = (found.model.graph.initializers for found in (plain, done))
    assert one.keys() == other.keys()
    changed = {
        name
        for name, value in one.items()
        if not np.array_equal(value.const_value.numpy(), other[name].const_value.numpy())  # type: ignore[union-attr]
    }
    assert changed == {f"{name}.bias_quantized" for name in ("c1", "c2", "t", "g")}
    assert [node.op_type for node in plain.model.graph] == [node.op_type for node in done.model.graph]


@pytest.mark.parametrize("seed", range(6))
def test_it_never_makes_the_outputs_worse(seed: int) -> None:
    """Data around 0 shift nothing, so that there is little to win."""
    model = every_operator(seed, bias=seed % 2 == 0)
    centred = {"x": np.random.default_rng(seed).normal(0, 1, (8, 3, 12, 12)).astype(np.float32)}
    with Calibrated(model, centred) as calibrated:
        plain, done = calibrated.quantize(PLAIN), calibrated.quantize(Scheme())
    before, after = (signal_to_noise(model, one.model, (centred,), "off") for one in (plain, done))
    assert after >= before
    assert (done.gain > 0) == bool(done.corrected)


def test_a_bias_that_two_layers_read_stays() -> None:
    d = Draft(5)
    shared = d.constant("bias", d.rng.normal(0, 0.5, 8))
    outs = [
        d.node("Conv", name, "x", d.weight(name, 8, 3, 3, 3, fan=27), shared) for name in ("one", "other")
    ]
    model = named(from_proto(d.model(["N", 3, 12, 12], d.node("Add", "sum", *outs))))
    plain, done = both(model)
    for found in (plain, done):
        session(found.model, optimized="default")
    wanted = means(model, ("one", "other"))
    if done.corrected:  # the tool wrote one for each
        for name, one in means(done.model, ("one", "other")).items():
            assert np.abs(one - wanted[name]).max() < 0.05


def test_nothing_is_done_where_no_layer_has_a_bias_of_its_own() -> None:
    d = Draft(6)
    y = d.node("MatMul", "m", "x", d.weight("m", 12, 7, fan=12))
    model = named(from_proto(d.model(["N", 3, 12, 12], y)))
    with Calibrated(model, data()) as calibrated:
        plain, done = calibrated.quantize(PLAIN), calibrated.quantize(Scheme())
    assert (done.corrected, done.gain) == ((), 0.0)
    assert to_proto(done.model).SerializeToString(True) == to_proto(plain.model).SerializeToString(True)
    assert correct(model, plain.model, (), ()) == Corrected(plain.model)
    assert "MatMul" not in _OPERATORS


def test_names_that_others_took_are_not_taken_again() -> None:
    """Some exporters name a node as its output."""
    d = Draft(8)
    inputs = ("x", d.weight("c", 8, 3, 3, 3, fan=27))
    d.nodes.append(onnx.helper.make_node("Conv", inputs, ["c"], "c"))
    y = d.node("Add", "a", "c", d.constant("c:bias_scale", d.rng.normal(0, 1, (8, 1, 1))))
    d.nodes.append(onnx.helper.make_node("Relu", [y], ["c:bias"], "c:bias_DequantizeLinear"))
    d.nodes.append(onnx.helper.make_node("Relu", ["c:bias"], ["bnfold:mean"], "node_ReduceMean_0"))
    y = d.node("Mul", "m", "bnfold:mean", d.constant("bnfold:axes", d.rng.normal(1, 1, (8, 1, 1))))
    y = d.conv("e", y, (4, 8, 3, 3), bias=True)
    _, done = both(named(from_proto(d.model(["N", 3, 12, 12], y))))
    assert set(done.corrected) == {"c", "e"}
    onnx.checker.check_model(to_proto(done.model), full_check=True)
    for level in ("off", "default"):
        session(done.model, optimized=level)  # type: ignore[arg-type]


@pytest.mark.parametrize("factors", [{"alpha": 0.5}, {"beta": 0.25}])
def test_a_gemm_of_factors_gets_no_bias_since_it_would_run_in_floats(
    factors: dict[str, float], tmp_path: Path
) -> None:
    d = Draft(9)
    y = d.node("Relu", "r", d.conv("c", "x", (6, 3, 3, 3), bias=True))
    y = d.node("Flatten", "f", d.node("GlobalAveragePool", "p", y))
    y = d.node("Relu", "r2", d.node("Gemm", "g", y, d.weight("g", 5, 6, fan=6), transB=1, **factors))
    plain, done = both(named(from_proto(d.model(["N", 3, 12, 12], y))))
    assert done.corrected == ("c",)
    assert kernels(done.model, tmp_path) == kernels(plain.model, tmp_path)
    assert kernels(done.model, tmp_path)["QGemm"] == 1


def test_layers_in_half_precision_stay() -> None:
    d = Draft(10, np.float16)
    proto = d.model(["N", 3, 12, 12], d.conv("c", "x", (8, 3, 3, 3), bias=False))
    proto.opset_import[0].version = 19
    given = {"x": data()["x"].astype(np.float16)}
    with Calibrated(named(from_proto(proto)), given) as calibrated:
        done = calibrated.quantize(Scheme())
    assert (done.layers, done.corrected) == (("c",), ())


def test_outputs_that_are_infinite_in_eight_bits_or_no_arrays_are_no_error() -> None:
    d = Draft(11)
    y = d.node("Relu", "r", d.conv("c", "x", (4, 3, 3, 3), bias=True))
    proto = d.model(["N", 3, 12, 12], d.node("Log", "l", d.node("Add", "a", y, d.constant("e", 1e-6))))
    proto.graph.node.append(onnx.helper.make_node("SplitToSequence", [y, "s"], ["z"], "split", axis=1))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([3, 1]), "s"))
    proto.graph.output.append(onnx.helper.make_tensor_sequence_value_info("z", 1, None))
    model = named(from_proto(proto))
    with Calibrated(model, data()) as calibrated:
        done = calibrated.quantize(Scheme())
    assert done.corrected == ()
    assert signal_to_noise(model, done.model, (data(),), "off") == -math.inf


def test_given_models_are_not_changed() -> None:
    model = every_operator(7, bias=False)
    plain, _ = both(model)
    before = [to_proto(one).SerializeToString(deterministic=True) for one in (model, plain.model)]
    correct(model, plain.model, plain.layers, (data(),))
    assert [to_proto(one).SerializeToString(deterministic=True) for one in (model, plain.model)] == before
