"""LSTM, GRU and RNN against ONNX Runtime, with everything that ONNX's reference ignores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from tests.oracle.ops.nodes import agrees, agrees_on, evaluated, floats, node

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
X = {"x": floats(5, 3, 2)}


def parts(operator: str, directions: int, size: int = 4) -> dict[str, np.ndarray]:
    """The weights of a network, smaller for longer sums, as trained ones are."""
    gates = GATES[operator] * size
    return {
        "w": floats(directions, gates, 2),
        "r": floats(directions, gates, size) / 2,
        "b": floats(directions, 2 * gates),
    }


def rest(operator: str, directions: int, size: int = 4) -> dict[str, np.ndarray]:
    """Lengths, first states, and peepholes where there are any."""
    states = ("h", "c") if operator == "LSTM" else ("h",)
    more = {name: floats(directions, 3, size, seed=len(name) + 7) for name in states}
    if operator == "LSTM":
        more["p"] = floats(directions, 3 * size)
    return {"lengths": np.array([5, 2, 3], np.int32), **more}


def count(operator: str) -> int:
    return 3 if operator == "LSTM" else 2


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("whole", [True, False])
def test_directions_with_and_without_lengths_and_states(operator: str, direction: str, whole: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    constants = parts(operator, directions) | ({} if whole else rest(operator, directions))
    agrees(operator, X, constants, outputs=count(operator), opset=14, hidden_size=4, direction=direction)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "clip": 0.3}),
        ("GRU", {"activations": ["HardSigmoid", "Softsign"], "activation_alpha": [0.3]}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.2}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Elu"]}),
        ("RNN", {"clip": 0.3}),
        ("RNN", {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [1.3]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [0.3], "activation_beta": [0.1]}),
        ("RNN", {"activations": ["LeakyRelu"]}),
        ("RNN", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.4]}),
        ("RNN", {"activations": ["Softplus"], "clip": 1.0}),
    ],
)
def test_variants(operator: str, attributes: dict[str, Any]) -> None:
    constants = parts(operator, 1)
    agrees(operator, X, constants, outputs=count(operator), opset=14, hidden_size=4, **attributes)


def test_parameters_belong_to_the_activations_that_have_any() -> None:
    both = {"activations": ["Tanh", "LeakyRelu"], "activation_alpha": [0.2], "direction": "bidirectional"}
    agrees("RNN", X, parts("RNN", 2), outputs=2, opset=14, hidden_size=4, **both)


@pytest.mark.parametrize("operator", GATES)
def test_the_batch_comes_first_with_layout(operator: str) -> None:
    constants = parts(operator, 1)
    turned = {"x": np.swapaxes(X["x"], 0, 1).copy()}
    common: dict[str, Any] = {"opset": 14, "outputs": count(operator), "hidden_size": 4}
    plain = agrees(operator, X, constants, **common)
    batched = node(operator, turned, constants, layout=1, **common)
    y, *states = Oracle(batched).run(turned)
    assert np.array_equal(y, np.transpose(plain[0], (2, 0, 1, 3)))
    for state, expected in zip(states, plain[1:], strict=True):
        assert np.array_equal(state, np.swapaxes(expected, 0, 1))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="Swish"):
        evaluated("RNN", X, parts("RNN", 1), opset=14, activations=["Swish"])


def test_a_left_out_bias_is_zero() -> None:
    constants = parts("GRU", 1)
    del constants["b"]
    agrees_on(node("GRU", X, constants, outputs=2, opset=14, hidden_size=4), X)
