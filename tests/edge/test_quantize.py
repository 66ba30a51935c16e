"""Eight bits: what ONNX Runtime's tool is asked for, power of two scales, and the study of the loss."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.edge import equalize
from bnfold.edge.channels import Channels
from bnfold.edge.fidelity import fidelity, study
from bnfold.edge.noise import Both, Noise
from bnfold.edge.quantize import (
    REQUANTISED,
    Calibrated,
    Quantized,
    Scheme,
    named,
    power_of_two_above,
    quantize,
    scales,
)
from bnfold.edge.rows import split
from bnfold.errors import InputError, ModelError
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.inputs.samples import Samples
from bnfold.report.record import record
from bnfold.runtime.interface import interface
from tests.small_networks import Draft, residual

CLASSES = 10


def data(rows: int = 48, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (rows, 3, 12, 12)).astype(np.float32)}


def network(seed: int = 0) -> ir.Model:
    """A residual network, folded."""
    return named(bnfold.fold(from_proto(residual(seed))).model)


def imbalanced(model: ir.Model, most: int, seed: int = 0) -> ir.Model:
    """The same function with channels between layers scaled by 2^±most at random."""
    copy = model.clone()
    channels = Channels(Facts(copy))
    every = np.arange(channels.classes.size)
    roots, held = channels.classes.root(every), channels.classes.why_fixed(every)
    steps = np.random.default_rng(seed).integers(-most, most + 1, len(every))[roots]
    steps[[why is not None for why in held]] = 0
    editor = Editor(channels.facts)
    equalize.write(channels, steps, editor)
    editor.compute()
    return copy


def labelled(model: ir.Model, rows: int = 64) -> Samples:
    """Samples whose classes are what the model says of them, but for a few."""
    from bnfold.runtime.sessions import run, session

    feeds = data(rows, seed=9)
    classes = run(session(model, optimized="default"), feeds)[0].argmax(axis=1)
    classes[:4] = (classes[:4] + 1) % CLASSES
    return Samples((feeds,), labels=("all",), classes=classes)


def points(model: ir.Model) -> dict[str, Any]:
    """The zero points of the pairs around activations."""
    found = (node.inputs[2] for node in model.graph if node.op_type == "QuantizeLinear")
    return {str(v.name): v.const_value.numpy() for v in found if v is not None and v.const_value is not None}


def is_power_of_two(array: Any) -> bool:
    return bool(np.all(np.frexp(array)[0] == 0.5))


def test_every_layer_is_quantised_and_the_outputs_are_near() -> None:
    model, samples = network(), Samples((data(seed=1),), labels=("one",))
    done = quantize(model, data())
    layers = {str(node.name) for node in model.graph if node.op_type in ("Conv", "Gemm")}
    assert set(done.layers) == layers
    assert not done.floats
    assert done.rows == 48
    near = fidelity(model, done.model, samples)
    assert near.sqnr > 20
    assert (near.output, near.rows, near.accuracy) == ("y", 48, None)
    assert not [key for key in done.model.metadata_props if key.startswith("onnx.")]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_the_scheme_is_what_the_file_holds(per_channel: bool, symmetric: bool, signed: bool) -> None:
    done = quantize(network(), data(16), Scheme(per_channel, symmetric, signed=signed))
    zeros = points(done.model)
    assert {zero.dtype for zero in zeros.values()} == {np.dtype(np.int8 if signed else np.uint8)}
    middle = {0, -1} if signed else {127, 128}
    assert all(int(zero) in middle for zero in zeros.values()) == symmetric
    sizes = {np.size(scale) for name, scale in scales(done.model).items() if "weight" in name}
    assert (max(sizes) > 1) == per_channel


@pytest.mark.parametrize("scheme", [Scheme(pow2_scales=True), Scheme(True, True, True, True)])
def test_scales_become_the_next_powers_of_two_and_the_ranges_stay_covered(scheme: Scheme) -> None:
    model = network()
    with Calibrated(model, data()) as calibrated:
        plain = calibrated.quantize(Scheme(scheme.per_channel, scheme.symmetric, signed=scheme.signed))
        done = calibrated.quantize(scheme)
    before, after = scales(plain.model), scales(done.model)
    assert before.keys() == after.keys()
    assert all(is_power_of_two(one) for one in after.values())
    for name, scale in before.items():
        if "quantized_scale" not in name:  # a bias has the product of two scales
            assert np.all((after[name] >= scale) & (after[name] < 2 * scale)), name
    old, new = points(plain.model), points(done.model)
    for name, zero in old.items():
        about, step = np.iinfo(zero.dtype), name.replace("_zero_point", "_scale")
        ends = [(about.min - int(zero)) * before[step], (about.max - int(zero)) * before[step]]
        made = [(about.min - int(new[name])) * after[step], (about.max - int(new[name])) * after[step]]
        assert made[0] <= ends[0] + after[step] / 2
        assert made[1] >= ends[1] - after[step] / 2
    assert fidelity(model, done.model, Samples((data(seed=1),), labels=("one",))).sqnr > 12


@pytest.mark.parametrize(
    ("scale", "above"), [(0.25, 0.25), (0.26, 0.5), (3.0, 4.0), (1.0, 1.0), (1e-3, 2.0**-9)]
)
def test_the_power_of_two_above(scale: float, above: float) -> None:
    assert power_of_two_above(np.array([scale], np.float32)).tolist() == [above]


def test_a_layer_may_be_left_in_float() -> None:
    model = network()
    name = next(str(node.name) for node in model.graph if node.op_type == "Conv")
    done = quantize(model, data(8), Scheme(leave=(name,)))
    assert name in done.floats
    assert name not in done.layers
    node = next(node for node in model.graph if node.name == name)
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'stem.0', 'conv2d']"
    assert quantize(model, data(8), Scheme(leave=("stem.0",))).floats == done.floats
    with pytest.raises(InputError, match="'nowhere' is not a node"):
        quantize(model, data(8), Scheme(leave=("nowhere",)))


def test_channels_out_of_balance_are_saved_by_equalisation_and_by_per_channel_scales() -> None:
    model = imbalanced(network(), 4)
    balanced = equalize.equalize(model).model
    found = study(balanced, data(), judged_on=labelled(model), unequalized=model)
    assert found.before is not None
    assert found.after.sqnr > found.before.sqnr + 6
    assert found.after.accuracy is not None
    assert found.after.accuracy.scores[0].original == 60 / 64
    assert found.after.points_lost is not None
    assert found.passed == (found.after.points_lost <= 0.5)
    assert f"({found.before.sqnr:.1f} dB without equalisation)" in found.sentence
    per_channel = quantize(model, data(), Scheme(per_channel=True))
    assert fidelity(model, per_channel.model, labelled(model)).sqnr > found.before.sqnr + 3


def spoilt() -> tuple[ir.Model, str]:
    """A network with one weight far above all others of its layer, on a channel that is always zero."""
    model = network()
    before, node = (one for one in model.graph if one.name in ("layer1.conv1", "layer1.conv2"))
    for owner, place, at, number in (
        (node, 1, (0, 0, 0, 0), 100.0),
        (before, 1, (0,), 0.0),
        (before, 2, (0,), -0.1),
    ):
        value = owner.inputs[place]
        assert value is not None
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[at] = number
        value.const_value = ir.Tensor(array, name=value.name)
    return model, str(node.name)


def test_the_study_names_the_layer_that_costs_most() -> None:
    model, bad = spoilt()
    found = study(model, data())
    assert [one.layer for one in found.layers] == list(found.quantized.layers)
    assert all(math.isfinite(one.sqnr) for one in found.layers)
    worst = min(found.layers, key=lambda one: one.weight)
    assert worst.layer == bad
    assert found.leave[0].layer == bad
    assert found.leave[0].is_worth_it
    assert f"{bad} in float would bring" in found.sentence
    again = study(model, data(), Scheme(leave=(bad,)))
    assert again.as_written == pytest.approx(found.as_written + found.leave[0].gain, abs=0.01)
    assert REQUANTISED in again.quantized.notes


def test_the_last_layer_is_compared_at_the_output_itself() -> None:
    """The tool renames what computes an output, and takes the Relu out of what it can."""
    model = network()
    found = study(model, data())
    rows = {one.layer: one for one in found.layers}
    last = next(str(node.name) for node in model.graph if node.op_type == "Gemm")
    assert rows[last].sqnr == pytest.approx(found.as_written, abs=3)
    assert found.as_written == pytest.approx(found.by_default, abs=6)
    assert len(rows) == len(found.quantized.layers)


def test_large_batches_are_run_in_parts_and_classes_stay_in_order() -> None:
    ports = interface(network()).inputs
    whole = Samples((data(70),), labels=("all",), classes=np.arange(70))
    parts = split(whole, ports)
    assert [len(feeds["x"]) for feeds in parts.feeds] == [32, 32, 6]
    assert np.array_equal(np.concatenate([feeds["x"] for feeds in parts.feeds]), whole.feeds[0]["x"])
    assert parts.classes is whole.classes


def test_a_model_without_weights_is_refused() -> None:
    d = Draft(0)
    model = from_proto(d.model(["N", 3, 12, 12], d.node("Relu", "r", "x")))
    with pytest.raises(ModelError, match="no layer"):
        quantize(model, data(4))


def test_one_scale_a_channel_is_refused_where_the_opset_has_none() -> None:
    """ONNX Runtime's tool writes a file that ONNX Runtime does not load."""
    d = Draft(0)
    proto = d.model(["N", 3, 12, 12], d.conv("c", "x", (4, 3, 3, 3), bias=True))
    proto.opset_import[0].version = 12
    with pytest.raises(ModelError, match="needs opset 13; the model has 12") as refused:
        quantize(named(from_proto(proto)), data(4), Scheme(per_channel=True))
    assert "--opset 13" in str(refused.value.fix)
    quantize(named(from_proto(proto)), data(4), Scheme())


def test_nothing_is_printed_and_no_handler_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger().handlers)
    quantize(network(), data(4))
    assert logging.getLogger().handlers == handlers
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_the_given_model_is_not_changed_and_the_record_is_json() -> None:
    model = network()
    before = to_proto(model).SerializeToString(deterministic=True)
    found = study(model, data(16), judged_on=labelled(model, 16))
    assert to_proto(model).SerializeToString(deterministic=True) == before
    bare = Quantized(None, *list(vars(found.quantized).values())[1:])  # type: ignore[arg-type]
    written = record(found, "sentence", "passed", "is_worse_by_default", without=("quantized",)) | {
        "quantized": record(bare)
    }
    assert json.loads(json.dumps(written))["quantized"]["scheme"]["per_channel"] is False


def test_noise_is_in_decibels() -> None:
    noise = Noise()
    noise.add(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
    assert noise.decibels == pytest.approx(20)
    assert Noise(1.0, 0.0).decibels == math.inf
    shorter = Noise()
    shorter.add(np.array([3.0, 4.0]), np.array([3.0]))
    assert shorter.decibels == 0
    shorter.add([np.array([1.0])], [np.array([2.0])])
    shorter.add(None, None)
    assert shorter.decibels == 0
    assert Noise(1.0, math.inf).decibels == -math.inf
    assert math.isnan(Noise(1.0, math.nan).decibels)


def test_the_worst_output_is_the_one_that_is_not_a_number() -> None:
    d = Draft(1)
    model = named(from_proto(d.model(["N", 3, 12, 12], d.conv("c", "x", (4, 3, 3, 3), bias=True))))
    found = Both(model, model, "off")
    ports = interface(model).outputs
    for noises in ([Noise(1.0, 0.5), Noise(1.0, math.nan)], [Noise(1.0, math.nan), Noise(1.0, 0.5)]):
        found._noise = noises
        assert math.isnan(found.worst([*ports, *ports])[1])


def test_what_is_not_finite_in_floats_is_not_measured_against() -> None:
    noise = Noise()
    noise.add(np.array([3.0, 4.0, -np.inf, np.nan]), np.array([3.0, 3.5, -200.0, 0.0]))
    assert noise.decibels == pytest.approx(20)
    noise.add(np.array([1.0]), np.array([np.inf]))
    assert noise.decibels == -math.inf


def test_other_types_count_by_what_differs() -> None:
    noise = Noise()
    noise.add([{0: np.array([1, 2, 3, 4])}, np.array(["a", "b"])], [{0: np.array([1, 2, 0, 4])}, None])
    assert (noise.others, noise.differing) == (6, 3)
    assert noise.decibels == pytest.approx(10 * math.log10(2))


def classes_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the best class as its one output."""
    proto.graph.node.append(onnx.helper.make_node("ArgMax", ["y"], ["best"], "best", axis=1, keepdims=0))
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("best", 7, ["N"]))
    return proto


def test_classes_without_scores_are_compared_as_classes() -> None:
    """There is no float among the outputs, and int8 destroys what they are chosen by."""
    d = Draft(3)
    y = d.node("Relu", "r", d.conv("c", "x", (16, 3, 3, 3), bias=True))
    y = d.gemm("g", d.node("Flatten", "f", d.node("GlobalAveragePool", "p", y)), 16, CLASSES)
    proto = classes_of(d.model(["N", 3, 12, 12], y))
    good, bad = (named(from_proto(proto)) for _ in range(2))
    weight = next(node for node in bad.graph if node.op_type == "Gemm").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    array = weight.const_value.numpy() * np.geomspace(1e-3, 1, 16, dtype=np.float32)
    array[:, 0] = 1e4  # the same for all classes: it decides nothing, and takes all of the range
    weight.const_value = ir.Tensor(array.astype(np.float32), name=weight.name)
    found = [study(one, data(64)) for one in (good, bad)]
    assert [one.after.output for one in found] == ["best", "best"]
    assert found[0].after.same is not None
    assert found[1].after.same is not None
    assert found[0].after.same > 0.9 > 0.5 > found[1].after.same
    assert f"; {found[1].after.same:.2%} of the classes or indices are the same" in found[1].sentence
    assert found[1].after.sqnr == pytest.approx(-10 * math.log10(1 - found[1].after.same))
