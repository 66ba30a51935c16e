"""Every value that both models have is compared on its own; the first wrong one is named with its fold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.runtime import sessions
from bnfold.runtime.agreement import UNITS
from bnfold.validation import layer_proof
from bnfold.validation.layer_proof import first_off, measure, prove, shared
from bnfold.validation.layers import Layer
from tests.graphs import build, feeds, statistics, weight

UNIT = 2.0**-24
NETWORK = """g (float[N,3,6,6] x) => (float[N,5] y) {
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    [bn1] b = BatchNormalization (a, ascale, abias, amean, avar)
    [relu1] c = Relu (b)
    [conv2] d = Conv (c, w2)
    [bn2] e = BatchNormalization (d, bscale, bbias, bmean, bvar)
    [relu2] f = Relu (e)
    [pool] p = GlobalAveragePool (f)
    [flat] y = Flatten (p)
}"""


def network() -> onnx.ModelProto:
    constants = {"w1": weight(4, 3, 3, 3), "w2": weight(5, 4, 3, 3, seed=2)}
    return build(NETWORK, constants | statistics(4, 0, "a") | statistics(5, 1, "b"))


def folded(fault: Callable[[dict[str, np.ndarray]], object] | None = None) -> onnx.ModelProto:
    """The network after its fold, with its constants changed by `fault`: `w1`, `b1`, `w2` and `b2`."""
    made = bnfold.fold(network()).model
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    by_name = {tensor.name: tensor for tensor in made.graph.initializer}
    held = {
        f"{letter}{number}": by_name[node.input[index]]
        for number, node in enumerate(convolutions, 1)
        for letter, index in (("w", 1), ("b", 2))
    }
    constants = {name: numpy_helper.to_array(tensor).copy() for name, tensor in held.items()}
    if fault:
        fault(constants)
    for name, tensor in held.items():
        tensor.CopyFrom(numpy_helper.from_array(constants[name], tensor.name))
    return made


def proof(
    other: onnx.ModelProto, model: onnx.ModelProto | None = None, unit: float = UNIT
) -> dict[str, Layer]:
    one = network() if model is None else model
    return {
        layer.name: layer
        for layer in prove(ir.from_proto(one), ir.from_proto(other), feeds(one, seed=3), unit)
    }


def test_a_right_fold_agrees_everywhere() -> None:
    found = proof(folded())
    assert list(found) == ["b", "c", "e", "f", "p", "y"]
    assert [layer.depth for layer in found.values()] == [0, 1, 2, 3, 4, 5]
    assert all(layer.agrees for layer in found.values())
    assert 0 < found["b"].fold_error < 4 * UNIT
    assert found["c"].fold_error == 0.0  # from the same true value before it
    assert layer_proof.ULPS * UNIT < found["e"].bound < 100 * UNIT


def test_values_that_a_fold_removed_are_not_shared() -> None:
    one, other = ir.from_proto(network()), ir.from_proto(folded())
    assert shared(one, other) == ("b", "c", "e", "f", "p", "y")
    assert shared(one, one) == ("a", "b", "c", "d", "e", "f", "p", "y")


def test_layers_tell_their_nodes_and_the_batch_norms_that_are_gone() -> None:
    found = proof(folded())
    assert (found["b"].site, found["e"].site) == ("bn1", "bn2")
    assert (found["b"].originals, found["e"].originals) == (("conv1", "bn1"), ("conv2", "bn2"))
    assert found["e"].nodes == ("conv2",)
    assert (found["f"].site, found["f"].nodes, found["f"].originals) == (None, ("relu2",), ("relu2",))


FAULTS: dict[str, tuple[str, Callable[[dict[str, np.ndarray]], object]]] = {
    "one channel off by a thousandth": ("b", lambda c: np.multiply(c["w1"][2], 1.001, out=c["w1"][2])),
    "the last bias off by 1e-5": ("e", lambda c: np.add(c["b2"], 1e-5, out=c["b2"], where=[1, 0, 0, 0, 0])),
    "two channels swapped": ("e", lambda c: c["w2"].__setitem__([0, 1], c["w2"][[1, 0]])),
    "no bias": ("b", lambda c: c["b1"].fill(0)),
    "rounded to half": ("e", lambda c: c["w2"].__setitem__(..., c["w2"].astype(np.float16))),
    "one NaN": ("e", lambda c: c["w2"].__setitem__((0, 0, 0, 0), math.nan)),
    "one infinity": ("b", lambda c: c["w1"].__setitem__((0, 0, 0, 0), math.inf)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_at_its_layer_and_nowhere_else(name: str) -> None:
    where, fault = FAULTS[name]
    assert [layer.name for layer in proof(folded(fault)).values() if not layer.agrees] == [where]


def test_two_faults_do_not_hide_each_other() -> None:
    def both(constants: dict[str, np.ndarray]) -> None:
        constants["w1"] *= 1.01
        constants["w2"] /= 1.01

    assert [layer.name for layer in proof(folded(both)).values() if not layer.agrees] == ["b", "e"]


def test_another_shape_is_infinitely_wrong() -> None:
    text = "g (float[N,4] x) => (float[N,?] z) {{ y = Concat <axis = {}> (x, x) z = Relu (y) }}"
    found = proof(build(text.format(0)), build(text.format(1)))
    assert (found["y"].fold_error, found["z"].fold_error) == (math.inf, 0.0)


def test_what_is_not_finite_alike_agrees() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { l = Log (x) m = MatMul (l, w) y = Identity (m) }"
    one = build(text, {"w": weight(4, 4)})
    values = {"x": np.array([[-1, 1, 2, 3], [0, 1, 2, 3]], np.float32)}
    found = prove(ir.from_proto(one), ir.from_proto(one), values, UNIT)
    assert [layer.fold_error for layer in found] == [0.0, 0.0, 0.0]


def test_integers_and_sequences_must_be_the_same() -> None:
    text = """g (float[N,4] x) => (int64[N] top, seq(float[?,4]) parts) {
        top = <OP> <axis = 1, keepdims = 0> (x)
        parts = SplitToSequence <axis = 0> (x)
    }"""
    one, other = (build(text.replace("<OP>", name)) for name in ("ArgMax", "ArgMin"))
    assert [layer.agrees for layer in proof(one, one).values()] == [True, True]
    assert [layer.fold_error for layer in proof(other, one).values()] == [math.inf, 0.0]


def test_a_sequence_of_unequal_parts() -> None:
    text = """g (float[3,4] x) => (seq(float[?,4]) y)
        { m = Mul (x, k) s = Constant <value = int64[2] {1, 2}> () y = SplitToSequence <axis = 0> (m, s) }"""
    one, other = (build(text, {"k": np.array(factor, np.float32)}) for factor in (2, 2.001))
    assert [layer.agrees for layer in proof(one, one).values()] == [True, True]
    assert [layer.agrees for layer in proof(other, one).values()] == [False, True]


def test_a_dynamic_model_is_allowed_what_its_weights_round() -> None:
    """Where the original itself cancels, one rounding of its weights shows; just that is allowed."""
    w = np.array([[1.0], [-1.0], [1.0], [-0.999]], np.float32)
    text = "g (float[1,4] x) => (float[1,1] y) { y = MatMul (x, w) }"
    one, near, far = (build(text, {"w": (w * factor).astype(np.float32)}) for factor in (1, 1 + 6e-8, 1.01))
    inputs = {"x": np.ones((1, 4), np.float32)}
    agree = [
        prove(ir.from_proto(one), ir.from_proto(other), inputs, UNIT)[0].agrees for other in (one, near, far)
    ]
    assert agree == [True, True, False]
    (layer,) = prove(ir.from_proto(one), ir.from_proto(far), inputs, UNIT)
    assert layer.bound > 100 * UNIT


def test_a_subgraph_belongs_to_the_region_of_its_node() -> None:
    text = """g (float[N,4] x, bool b) => (float[N,4] y) {
        [mul] m = MatMul (x, w)
        [norm] n = BatchNormalization (m, scale, bias, mean, var)
        [if] y = If (b) <
            then_branch = t () => (float[N,4] u) { u = Relu (n) },
            else_branch = e () => (float[N,4] v) { v = Neg (n) }
        >
    }"""
    one = build(text, {"w": weight(4, 4), **statistics(4)})
    other = bnfold.fold(one).model
    found = proof(other, one)
    assert all(layer.agrees for layer in found.values())
    assert (found["y"].originals, found["y"].nodes) == (("if",), ("if",))
    other.graph.node[-1].attribute[0].g.node[0].op_type = "Abs"
    other.graph.node[-1].attribute[1].g.node[0].op_type = "Abs"
    assert [layer.name for layer in proof(other, one).values() if not layer.agrees] == ["y"]


def test_an_operator_that_the_oracle_does_not_know() -> None:
    other = folded()
    other.graph.node[-1].op_type, other.graph.node[-1].domain = "Mystery", "local"
    with pytest.raises(NotEvaluableError, match="Mystery"):
        prove(ir.from_proto(network()), ir.from_proto(other), feeds(network()), UNIT)


# --- the runtime's own numbers ----------------------------------------------------------------------------


def test_the_runtime_is_measured_at_every_value() -> None:
    one, other = ir.from_proto(network()), ir.from_proto(folded())
    before = [str(value.name) for value in one.graph.outputs]
    inputs = feeds(network())
    found = measure(prove(one, other, inputs, UNIT), one, other, inputs, "cpu", 1)
    assert all(0 < layer.original_error < 1e-5 for layer in found if layer.original_error is not None)
    assert None not in [error for layer in found for error in (layer.original_error, layer.folded_error)]
    assert first_off(found, "cpu") is None
    assert [value.name for value in one.graph.outputs] == before


def test_a_runtime_that_is_wrong_at_one_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime gives the folded model's value `e` and all behind it wrongly, while the fold is right."""
    one, other = ir.from_proto(network()), ir.from_proto(folded())
    inputs = feeds(network())
    real, seen = sessions.run, list[Any]()

    def run(session: Any, given: Any, names: Any = None) -> list[Any]:
        values = real(session, given, names)
        seen.append(session)
        wrong = names is not None and len(seen) == 2
        return [
            value * 1.01 if wrong and name in "efpy" else value
            for name, value in zip(names, values, strict=True)
        ]

    monkeypatch.setattr(sessions, "run", run)
    found = measure(prove(one, other, inputs, UNIT), one, other, inputs, "cpu", 1)
    blame = first_off(found, "cpu")
    assert blame is not None
    assert (blame.layer.name, blame.runtime, blame.provider) == ("e", True, "cpu")
    assert "The fold of bn2 is right in float64 there." in blame.sentence


@pytest.mark.parametrize(("folded_error", "blamed"), [(4.9e-6, False), (5.1e-6, True)])
def test_the_runtime_may_round_as_it_does_for_the_original(folded_error: float, blamed: bool) -> None:
    layer = Layer("e", 0, 0.0, 1e-6, original_error=1e-6, folded_error=folded_error)
    assert (first_off([replace(layer, folded_error=1e-6), layer], "cuda") is not None) == blamed


@pytest.mark.parametrize("coarse", ["float16", "bfloat16"])
def test_a_coarser_type_elsewhere_excuses_nothing(coarse: str) -> None:
    """The model has a table of another type, which the layer with the fault does not read."""
    one = build(
        """g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[2,2] z) {
            [conv] a = Conv (x, w)
            [bn] y = BatchNormalization (a, scale, bias, mean, var)
            [cast] z = Cast <to = 1> (table)
        }""",
        {"w": weight(4, 3, 3, 3), "table": np.ones((2, 2), np.float16), **statistics(4)},
    )
    other = bnfold.fold(one).model
    conv = next(node for node in other.graph.node if node.op_type == "Conv")
    held = next(tensor for tensor in other.graph.initializer if tensor.name == conv.input[1])
    array = numpy_helper.to_array(held).copy()
    array[2] *= np.float32(1.0005)
    held.CopyFrom(numpy_helper.from_array(array, held.name))
    unit = UNITS[coarse]
    wrong = [
        layer.name
        for layer in prove(ir.from_proto(one), ir.from_proto(other), feeds(one), unit)
        if not layer.agrees
    ]
    assert wrong == ["y"]
