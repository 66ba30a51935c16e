"""LSTM, GRU and RNN of every opset, as ONNX's operator documentation writes them, step by step.

ONNX's reference ignores sequence lengths, clipping and other activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

Step: TypeAlias = Callable[..., tuple[Array, ...]]
_Functions: TypeAlias = Sequence[Callable[[Array], Array]]

# Each function of x, α and β, with the defaults of α and β; None where it has none.
_ACTIVATIONS: dict[str, tuple[Callable[..., Array], float | None, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), 1.0, None),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a: np.where(x >= 0, x, a * x), 0.01, None),
    "relu": (lambda x: np.maximum(x, 0), None, None),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), None, None),
    "softplus": (lambda x: np.logaddexp(0.0, x), None, None),
    "softsign": (lambda x: x / (1 + np.abs(x)), None, None),
    "tanh": (np.tanh, None, None),
    "thresholdedrelu": (lambda x, a: np.where(x >= a, x, 0), 1.0, None),
}


def lstm(
    call: Call,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
) -> tuple[Array, ...]:
    """`LSTM`, with peepholes `p` and with `input_forget`, which takes 1 − i for the forget gate.

    `clip` bounds what the gates' activations read. ONNX says that of all activations, but ONNX Runtime leaves
    out the last one, `h(C)`, and so does this.
    """
    functions = _functions(call, ("Sigmoid", "Tanh", "Tanh"), len(w))
    b, p = _or_zeros(b, (len(w), 8 * r.shape[-1])), _or_zeros(p, (len(w), 3 * r.shape[-1]))
    steps = [_lstm_step(call, *parts) for parts in zip(w, r, b, p, functions, strict=True)]
    return _unrolled(call, x, r.shape[-1], lengths, (h, c), steps)


def _lstm_step(call: Call, w: Array, r: Array, b: Array, p: Array, functions: _Functions) -> Step:
    f, g, h = functions
    bias, (peep_i, peep_o, peep_f) = np.add(*np.split(b, 2)), np.split(p, 3)

    def step(x: Array, before: Array, cell: Array) -> tuple[Array, Array]:
        i, o, forget, new = np.split(x @ w.T + before @ r.T + bias, 4, -1)
        i = f(i + peep_i * cell)
        forget = 1 - i if call.get("input_forget", 0) else f(forget + peep_f * cell)
        cell = forget * cell + i * g(new)
        return f(o + peep_o * cell) * h(cell), cell

    return step


def gru(
    call: Call,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
) -> tuple[Array, ...]:
    """`GRU`; `linear_before_reset` multiplies by the reset gate after the matrix product, not before it."""
    functions = _functions(call, ("Sigmoid", "Tanh"), len(w))
    b = _or_zeros(b, (len(w), 6 * r.shape[-1]))
    steps = [_gru_step(call, *parts) for parts in zip(w, r, b, functions, strict=True)]
    return _unrolled(call, x, r.shape[-1], lengths, (h,), steps)


def _gru_step(call: Call, w: Array, r: Array, b: Array, functions: _Functions) -> Step:
    f, g = functions
    size = r.shape[-1]
    b_w, b_r = np.split(b, 2)
    gates, hidden = r[: 2 * size].T, r[2 * size :].T

    def step(x: Array, before: Array) -> tuple[Array]:
        z, reset, new = np.split(x @ w.T + b_w, 3, -1)
        more_z, more_reset = np.split(before @ gates + b_r[: 2 * size], 2, -1)
        z, reset, rest = f(z + more_z), f(reset + more_reset), b_r[2 * size :]
        if call.get("linear_before_reset", 0):
            new = g(new + reset * (before @ hidden + rest))
        else:
            new = g(new + (reset * before) @ hidden + rest)
        return ((1 - z) * new + z * before,)

    return step


def rnn(
    call: Call,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
) -> tuple[Array, ...]:
    """`RNN`: `f(x·Wᵀ + h·Rᵀ + biases)`."""
    functions = _functions(call, ("Tanh",), len(w))
    b = _or_zeros(b, (len(w), 2 * r.shape[-1]))
    steps = [_rnn_step(*parts) for parts in zip(w, r, b, functions, strict=True)]
    return _unrolled(call, x, r.shape[-1], lengths, (h,), steps)


def _rnn_step(w: Array, r: Array, b: Array, functions: _Functions) -> Step:
    bias = np.add(*np.split(b, 2))
    return lambda x, before: (functions[0](x @ w.T + before @ r.T + bias),)


def _or_zeros(array: Array | None, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape) if array is None else array


def _unrolled(
    call: Call,
    x: Array,
    size: int,
    lengths: Array | None,
    states: Sequence[Array | None],
    steps: Sequence[Step],
) -> tuple[Array, ...]:
    """All hidden states, and the last of every state, over time.

    A sequence that is shorter than the others keeps its state after its end, and its outputs there are 0. So
    a backward direction begins at the end of each sequence.

    Args:
        call: The node.
        x: The input; with `layout` the batch is its first axis, as it is of the states and the results.
        size: Of the hidden state.
        lengths: Of each sequence of the batch.
        states: The first states, hidden state first.
        steps: For each direction a function from an input and the states to the next states.
    """
    batch_first = bool(call.get("layout", 0))
    turned = [s if s is None or not batch_first else np.swapaxes(s, 0, 1) for s in (x, *states)]
    x = np.asarray(turned[0])
    time, batch = x.shape[:2]
    ends = np.full(batch, time) if lengths is None else lengths
    first = [_or_zeros(state, (len(steps), batch, size)) for state in turned[1:]]
    y, last = np.zeros((time, len(steps), batch, size)), [np.empty_like(state) for state in first]
    for number, step in enumerate(steps):
        backwards = call.get("direction", "forward") == "reverse" or number == 1
        now = [state[number] for state in first]
        for place in reversed(range(time)) if backwards else range(time):
            runs = (place < ends)[:, None]
            now = [np.where(runs, new, old) for new, old in zip(step(x[place], *now), now, strict=True)]
            y[place, number] = np.where(runs, now[0], 0)
        for results, result in zip(last, now, strict=True):
            results[number] = result
    if batch_first:
        return np.transpose(y, (2, 0, 1, 3)), *(np.swapaxes(state, 0, 1) for state in last)
    return y, *last


def _functions(call: Call, default: Sequence[str], directions: int) -> list[_Functions]:
    """The activations of each direction, with their parameters and with clipping before them.

    Parameters belong to the functions that have any, in order, as ONNX Runtime reads them. The third function
    of a direction is LSTM's `h`.
    """
    names = call.get("activations") or list(default) * directions
    alphas = iter(call.get("activation_alpha") or ())
    betas = iter(call.get("activation_beta") or ())
    bounds = [None if place % len(default) == 2 else call.get("clip") for place in range(len(names))]
    made = [_activation(name, alphas, betas, clip) for name, clip in zip(names, bounds, strict=True)]
    return [made[start : start + len(default)] for start in range(0, len(made), len(default))]


def _activation(
    name: str, alphas: Iterator[float], betas: Iterator[float], clip: float | None
) -> Callable[[Array], Array]:
    if name.lower() not in _ACTIVATIONS:
        raise Refusal(f"the activation {name!r} is not known")
    function, alpha, beta = _ACTIVATIONS[name.lower()]
    given = [
        next(values, float(np.float32(default)))
        for values, default in ((alphas, alpha), (betas, beta))
        if default is not None
    ]
    if clip is None:
        return lambda x: function(x, *given)
    return lambda x: function(np.clip(x, -clip, clip), *given)


OPERATORS: dict[str, Operator] = {"GRU": gru, "LSTM": lstm, "RNN": rnn}
