"""Random models in half precision: over the whole operator table, and with BatchNorms of extreme scales.

Half precision ends at 65504. Where a BatchNorm's scale is far from 1, its two sides are of different sizes,
and a fold that moves the scale to the other term of a sum or to the other factor makes those too large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.oracle.oracle import Oracle
from tests.random_graphs import random_feeds, random_model
from tests.random_values import Grower, Typed

LARGEST = 65504.0
_ROOM = 4.0  # for sums inside an operator, whose terms may be larger than what it gives
_DEVIATIONS = 16.0  # of |μ| + σ: what a BatchNorm reads is not larger, or its statistics are another model's
_SATURATED = 30.0  # beyond it, rounding decides between 0 and 1
_SCALES = (1.0, 5e-4, 4e-3, 0.05, 20.0, 300.0, 2e3)


def batchnorm(g: Grower) -> None:
    """A BatchNorm whose scale is far from 1, with a bias of its size, and statistics of its input's."""
    v = g.value(lambda v: v.rank == 4)
    if v is None:
        return
    c, scale = v.shape[1], g.pick(_SCALES)
    rng = np.random.default_rng([len(g.nodes), c])
    spread = g.pick((1.0, 1.0, 30.0)) if scale >= 1 else g.pick((1.0, 0.05))
    gamma = scale * rng.uniform(0.5, 1.6, c) * (np.sign(rng.uniform(-0.3, 1, c)) if g.choose(2) else 1)
    numbers = {
        "gamma": gamma,
        "beta": rng.normal(0, 1, c) * scale * (1 if g.choose(2) else 0),
        "mean": rng.normal(0, 1, c) * spread * (1 if g.choose(2) else 0),
        "variance": rng.uniform(0.7, 1.4, c) * spread**2,
    }
    names = [g.constant(array.astype(g.dtype)) for array in numbers.values()]
    g.node("BatchNormalization", [v, *names], v.shape)


def convolution(g: Grower) -> None:
    """A pointwise convolution, of many channels now and then, all of one sign or not."""
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        n, c, h, w = v.shape
        out = g.pick((4, 4, 32))
        weight = g.numbers(out, c, 1, 1, low=g.pick((-1.0, 0.7)))
        g.node("Conv", [v, weight, *([g.numbers(out)] if g.choose(2) else [])], (n, out, h, w))


def pair(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    w = None if v is None else g.value(lambda w: w != v and w.shape == v.shape)
    if v is not None and w is not None:
        g.node(g.pick(("Add", "Add", "Mul", "Sub")), [v, w], v.shape)


def mean(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and min(v.shape[2:]) > 1)
    if v is None:
        return
    op = g.pick(("AveragePool", "ReduceMean", "GlobalAveragePool"))
    if op == "AveragePool":
        g.node(op, [v], (*v.shape[:2], v.shape[2] - 1, v.shape[3] - 1), kernel_shape=[2, 2])
    elif op == "ReduceMean":
        g.node(op, [v], (*v.shape[:2], 1, 1), axes=[2, 3])
    else:
        g.node(op, [v], (*v.shape[:2], 1, 1))


def activation(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        op = g.pick(("Relu", "LeakyRelu", "Sigmoid", "Tanh", "PRelu"))
        slope = [g.numbers(v.shape[1], 1, 1, low=0.1)] if op == "PRelu" else []
        alpha = {"alpha": 0.125} if op == "LeakyRelu" else {}
        g.node(op, [v, *slope], v.shape, **alpha)


STEPS = (convolution, convolution, pair, pair, mean, activation)


def scaled_model(choose: Callable[[int], int]) -> onnx.ModelProto:
    """A model of two inputs whose BatchNorms have scales from 0.0005 to 2000."""
    g = Grower(choose, np.float16, 17)
    inputs = []
    for name, channels in (("x0", 4), ("x1", 32)):
        shape = (2, channels, 4, 4)
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape))
        inputs[-1].doc_string = ",".join(map(str, shape))
        g.values.append(Typed(name, shape))
    for _ in range(4 + choose(8)):
        g.pick(STEPS)(g)
        if g.choose(2):
            batchnorm(g)
    made = [v for v in g.values if not v.name.startswith("x")]
    outputs = [v.name for v in made if not g.read[v.name]][:6]
    return helper.make_model(
        g.graph("scaled", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def half_model(choose: Callable[[int], int]) -> onnx.ModelProto:
    """One of either kind, its statistics those of its values, as after a training."""
    model = scaled_model(choose) if choose(2) else random_model(choose, np.float16)
    if model.opset_import[0].version < 14:
        model.opset_import[0].version = 17  # before 14, onnx.reference mixes in the statistics of the batch
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    for node in norms:
        read = np.asarray(Oracle(model).values(random_feeds(model, 0))[node.input[0]])
        axes = tuple(axis for axis in range(read.ndim) if axis != 1)
        numbers = {"mean": read.mean(axes), "variance": read.var(axes) + np.square(read).mean() * 0.01}
        for index, (kind, array) in enumerate(numbers.items(), 3):
            node.input[index] = f"{node.name}_{kind}"
            stored = np.minimum(array, LARGEST).astype(np.float16)
            model.graph.initializer.append(numpy_helper.from_array(stored, node.input[index]))
    return model


def fits(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> bool:
    """Whether a run stays within half precision and within what the model's statistics say of its values.

    Args:
        model: The model.
        values: All that it computes, evaluated in float64.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and node.input[0] in values:
            mean, variance = (constants[name].astype(np.float64) for name in node.input[3:])
            usual = np.abs(mean).max() + np.sqrt(variance.max())
            if np.abs(values[node.input[0]]).max(initial=0) > _DEVIATIONS * usual:
                return False
        saturates = node.op_type in ("Sigmoid", "Softmax", "Tanh")
        if saturates and np.abs(values.get(node.input[0], np.zeros(1))).max(initial=0) > _SATURATED:
            return False
    floats = (array for array in values.values() if array.dtype.kind == "f")
    return all(np.abs(array).max(initial=0) <= LARGEST / _ROOM for array in floats)
