"""Random models whose records of sizes are wrong, in every place where a file may hold one.

Batch, height and width are open, and a model is run at several sizes, so that no record can be right for all.
Numbers are made of sizes and take part in the arithmetic: who believes a record computes another function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.random_layers import batchnorm
from tests.random_values import Grower, Typed

SIZES = ((2, 8, 8), (1, 6, 10), (3, 4, 5))
"""Batch, height and width; the first is what the generator reckons with."""

_EXPORTED = {21: (1, 6, 6), 20: (2, 8, 8), 18: (7, 12, 4), 17: (1, 4, 12)}
"""The size that the records of a model are of, by its opset."""

_CHANNELS = 4
_FLOAT = TensorProto.FLOAT


def _map(g: Grower) -> Typed | None:
    return g.value(lambda v: v.rank == 4)


def _integers(g: Grower, *numbers: int) -> str:
    return g.constant(np.asarray(numbers, np.int64))


def _helper(g: Grower, op: str, inputs: list[Typed | str], **attributes: Any) -> str:
    """A node whose output takes no part in the growth, such as a shape."""
    made = g.node(op, inputs, (), **attributes)
    g.values.remove(made)
    return made.name


def arithmetic(g: Grower) -> None:
    """A number for each channel, or one for all: no other axis has a size that is known."""
    v = g.value(lambda v: v.rank > 2)
    if v is not None:
        op = g.pick(("Mul", "Add", "Sub", "Div"))
        low, high = (0.5, 1.6) if op in ("Mul", "Div") else (-1.0, 1.0)
        shape = (_CHANNELS, *[1] * (v.rank - 2)) if g.choose(4) else ()
        g.node(op, [v, g.numbers(*shape, low=low, high=high, zeros=op != "Div")], v.shape)


def convolution(g: Grower) -> None:
    v = _map(g)
    if v is not None:
        k = g.pick((1, 1, 3))
        weight = g.numbers(_CHANNELS, _CHANNELS, k, k)
        bias = [g.numbers(_CHANNELS)] if g.choose(2) else []
        g.node("Conv", [v, weight, *bias], v.shape, pads=[k // 2] * 4)


def custom(g: Grower) -> None:
    """An operator of another domain, whose output's sizes nobody can derive."""
    v = _map(g)
    if v is None:
        return
    kind = g.pick(("Gelu", "QuickGelu", "FusedMatMul"))
    if kind != "FusedMatMul":
        g.node(kind, [v], v.shape, domain="com.microsoft")
        return
    last = _helper(g, "Transpose", [v], perm=[0, 2, 3, 1])
    product = _helper(g, kind, [last, g.numbers(*[_CHANNELS] * 2)], domain="com.microsoft", alpha=0.5)
    if g.choose(2):
        product = _helper(g, "Add", [product, g.numbers(_CHANNELS)])
    g.node("Transpose", [product], v.shape, perm=[0, 3, 1, 2])


def pool(g: Grower) -> None:
    v = _map(g)
    if v is not None and min(v.shape[2:]) > 2:
        op = g.pick(("MaxPool", "AveragePool"))
        shape = (*v.shape[:2], v.shape[2] // 2, v.shape[3] // 2)
        g.node(op, [v], shape, kernel_shape=[2, 2], strides=[2, 2])


def activation(g: Grower) -> None:
    v = _map(g)
    if v is not None:
        g.node(g.pick(("Sigmoid", "Relu", "Tanh", "Identity")), [v], v.shape)


def addition(g: Grower) -> None:
    v = _map(g)
    w = None if v is None else g.value(lambda w: w != v and w.shape == v.shape)
    if v is not None and w is not None:
        g.node(g.pick(("Add", "Mul", "Sub")), [v, w], v.shape)


def size_arithmetic(g: Grower) -> None:
    """A number that is made of the size of one value scales or shifts another."""
    v, w = g.pick(_maps(g)), _map(g)
    if w is None:
        return
    if g.choose(2):
        number = _helper(g, "Size", [v])
    else:
        shape = _helper(g, "Shape", [v])
        number = _helper(g, "Gather", [shape, g.constant(np.asarray(g.choose(4), np.int64))])
    number = _helper(g, "Cast", [number], to=_FLOAT)
    op = g.pick(("Mul", "Div", "Add", "Sub"))
    pair: list[Typed | str] = [number, w] if op in ("Mul", "Add") and g.choose(2) else [w, number]
    g.node(op, pair, w.shape)


def _maps(g: Grower) -> list[Typed]:
    return [v for v in g.values if v.rank == 4][::-1]


def flattened(g: Grower) -> None:
    """A BatchNorm or arithmetic on a map whose height and width are one axis, by its own shape."""
    v = _map(g)
    if v is None:
        return
    n, c, h, w = v.shape
    shape = _helper(g, "Shape", [g.pick([u for u in _maps(g) if u.shape == v.shape])])
    if g.choose(2):
        head = _helper(g, "Slice", [shape, _integers(g, 0), _integers(g, 2)])
        target = _helper(g, "Concat", [head, _integers(g, -1)], axis=0)
    else:
        target = _integers(g, 0, 0, -1)
    flat = g.node("Reshape", [v, target], (n, c, h * w))
    g.pick((batchnorm, arithmetic))(g)
    last = g.values[-1] if g.values[-1].shape == flat.shape else flat
    g.node("Reshape", [last, shape], v.shape)


def filled(g: Grower) -> None:
    """A number for each channel, expanded to the shape of a value."""
    v = _map(g)
    if v is not None:
        shape = _helper(g, "Shape", [g.pick([u for u in _maps(g) if u.shape == v.shape])])
        full = g.node("Expand", [g.numbers(_CHANNELS, 1, 1, low=0.5, high=1.6), shape], v.shape)
        g.node(g.pick(("Add", "Mul")), [v, full], v.shape)


def summed(g: Grower) -> None:
    """A sum over the map: a shift before it is multiplied by a size."""
    v = _map(g)
    if v is not None:
        keep = g.choose(2)
        op = g.pick(("ReduceSum", "ReduceMean"))
        shape = (*v.shape[:2], *[1, 1] * keep)
        if g.opset < 18 and op == "ReduceMean":
            total = g.node(op, [v], shape, axes=[2, 3], keepdims=keep)
        else:
            total = g.node(op, [v, _integers(g, 2, 3)], shape, keepdims=keep)
        if keep:
            total = g.node("Conv", [total, g.numbers(_CHANNELS, _CHANNELS, 1, 1)], total.shape)
            g.node("Add", [v, total], v.shape)


_INSIDE = (convolution, activation, size_arithmetic, batchnorm, batchnorm, arithmetic, flattened, custom)


def _grown(g: Grower, given: Typed, shape: tuple[int, ...]) -> Typed:
    """Grow a body from one value to another of a shape."""
    g.values = [given]
    for _ in range(2 + g.choose(4)):
        g.pick(_INSIDE)(g)
    last = next(v for v in reversed(g.values) if v.shape == shape)
    return last if last != given else g.node("Identity", [given], shape)


def _leaves_width_open(g: Grower) -> bool:
    """Whether no record in this model states a width.

    ONNX Runtime believes what is stated of a branch's output where no size is left open, and then fails. So
    only such models get branches.
    """
    return g.opset in (20, 17)


def branch(g: Grower) -> None:
    v = _map(g)
    if v is None or g.parent is not None or not _leaves_width_open(g):
        return
    bodies = []
    for which in ("then", "else"):
        body = Grower(g.choose, g.dtype, g.opset, parent=g)
        last = _grown(body, v, v.shape)
        bodies.append(_recorded(body, body.graph(which, [], [last.name]), outputs=True))
    condition = f"x_condition_{len(g.conditions)}"
    g.conditions.append(condition)
    g.read[v.name] += 1
    g.node("If", [condition], v.shape, then_branch=bodies[0], else_branch=bodies[1])


def loop(g: Grower) -> None:
    """A loop that runs twice; its body declares a size for what it carries."""
    v = _map(g)
    if v is None or g.parent is not None:
        return
    body = Grower(g.choose, g.dtype, g.opset, parent=g)
    carried = Typed(g.name("carried"), v.shape)
    last = _grown(body, carried, v.shape)
    inputs = [
        helper.make_tensor_value_info(g.name("iteration"), TensorProto.INT64, []),
        helper.make_tensor_value_info(g.name("go"), TensorProto.BOOL, []),
        helper.make_tensor_value_info(carried.name, _FLOAT, _wrong(g, carried)),
    ]
    graph = body.graph("body", inputs, [last.name])
    go = g.name("go")
    graph.node.append(helper.make_node("Identity", [inputs[1].name], [go]))
    graph.output.insert(0, helper.make_tensor_value_info(go, TensorProto.BOOL, []))
    count, yes = g.constant(np.asarray(2, np.int64)), g.constant(np.asarray(True))
    g.node("Loop", [count, yes, v], v.shape, body=_recorded(body, graph, outputs=bool(g.choose(2))))


def function(g: Grower, functions: list[onnx.FunctionProto]) -> None:
    """A call of a function of the model, which others call at other sizes; its body records sizes."""
    v = _map(g)
    if v is None:
        return
    if not functions or g.chance(3):
        body = Grower(g.choose, g.dtype, g.opset)
        body._root = g._root  # names are the model's, constants the body's own
        constants, g._root.constants = g._root.constants, {}
        shared, g._root._shared = g._root._shared, {}
        last = _grown(body, Typed("a", v.shape), v.shape)
        held, g._root.constants, g._root._shared = {**g._root.constants, **body.constants}, constants, shared
        stored = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            for name, array in held.items()
        ]
        made = helper.make_function(
            "local", f"F{len(functions)}", ["a"], [last.name], [*stored, *body.nodes], _opsets(g)[:2]
        )
        made.value_info.extend(_records(body, [v for v in body.values if v.name != "a"]))
        functions.append(made)
    g.node(g.pick(functions).name, [v], v.shape, domain="local")


def _opsets(g: Grower) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid(*pair) for pair in (("", g.opset), ("com.microsoft", 1), ("local", 1))]


def _wrong(g: Grower, v: Typed) -> list[int | None]:
    """The shape that a value had when the model was exported at another size, some of it left open."""
    n, h, w = _EXPORTED[g.opset]
    halvings = {SIZES[0][1] >> k: k for k in range(3)}
    dims: list[int | None] = [n, *v.shape[1:]]
    if v.rank == 4 and v.shape[2] > 1:
        dims[2:] = [h >> halvings[v.shape[2]], w >> halvings[v.shape[3]]]
    elif v.rank == 3 and v.shape[2] > 1:
        k = halvings[round(v.shape[2] ** 0.5)]
        dims[2] = (h >> k) * (w >> k)
    dims = [dim if axis == 1 or g.choose(4) else None for axis, dim in enumerate(dims)]
    if _leaves_width_open(g) and v.rank > 2:
        dims[-1] = None
    return dims


def _records(g: Grower, values: list[Typed]) -> list[onnx.ValueInfoProto]:
    """Wrong records of some values; those of custom operators may be wrong in their channels too."""
    by_output = {output: node for node in g.nodes for output in node.output}
    found = []
    for v in values:
        if g.choose(3) and v.name in by_output:
            dims, node = _wrong(g, v), by_output[v.name]
            if node.domain and g.chance(8) and v.rank > 1:
                dims[1] = 6
            found.append(helper.make_tensor_value_info(v.name, _FLOAT, dims))
    return found


def _recorded(g: Grower, graph: onnx.GraphProto, *, outputs: bool) -> onnx.GraphProto:
    """A graph with wrong records, of its outputs too where that is wanted."""
    shapes = {v.name: v for v in g.values}
    returned = {output.name for output in graph.output}
    graph.value_info.extend(_records(g, [v for v in g.values if v.name not in returned]))
    if outputs:
        for output in graph.output:
            if output.name in shapes:
                dims = _wrong(g, shapes[output.name])
                output.CopyFrom(helper.make_tensor_value_info(output.name, _FLOAT, dims))
    return graph


STEPS = (
    convolution, custom, pool, activation, addition, size_arithmetic, flattened, filled, summed, branch, loop,
)  # fmt: skip


def stale_model(choose: Callable[[int], int]) -> onnx.ModelProto:
    """Grow a model with open batch, height and width."""
    g = Grower(choose, np.float32, tuple(_EXPORTED)[choose(len(_EXPORTED))])
    functions: list[onnx.FunctionProto] = []
    g.values.append(Typed("x", (SIZES[0][0], _CHANNELS, *SIZES[0][1:])))
    for _ in range(4 + choose(8)):
        if g.choose(6) == 5:
            function(g, functions)
        else:
            g.pick(STEPS)(g)
        if g.choose(5) < 3:
            g.pick((batchnorm, batchnorm, arithmetic))(g)
    inputs = [helper.make_tensor_value_info("x", _FLOAT, ["N", _CHANNELS, "H", "W"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in g.conditions]
    made = [v for v in g.values if v.name != "x"]
    outputs = [v.name for v in made if not g.read[v.name]][:6]
    graph = _recorded(g, g.graph("stale", inputs, outputs), outputs=False)
    return helper.make_model(graph, opset_imports=_opsets(g), functions=functions, ir_version=10)


def stale_feeds(model: onnx.ModelProto, size: tuple[int, int, int], seed: int) -> dict[str, np.ndarray]:
    """Inputs of such a model at one size."""
    rng = np.random.default_rng(seed)
    n, h, w = size
    conditions = {v.name: np.asarray(rng.random() < 0.5) for v in model.graph.input if v.name != "x"}
    return {"x": rng.normal(0, 1, (n, _CHANNELS, h, w)).astype(np.float32), **conditions}
