"""Random graphs over the whole operator table, grown value by value with known shapes.

Sizes are mostly 4, whatever an axis means, so that a mistaken axis is not saved by a mismatch of sizes. Every
choice is a call of one function, so that a property test can shrink a graph, and the same choices can grow
the same graph in another precision.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

_LARGEST = 600  # elements of a value
_HIGHEST_RANK = 5
_BATCH = 2


@dataclass(frozen=True)
class Typed:
    """A value of the graph and the shape that it has at run time."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Grower:
    """Grows one graph, or the body of a branch.

    Args:
        choose: Gives a number from 0 to n − 1; 0 is the plainest choice.
        dtype: Type of every float in the graph.
        opset: Version of ONNX's operator set.
        parent: The graph around a branch's body.
    """

    def __init__(
        self, choose: Callable[[int], int], dtype: type = np.float32, opset: int = 18, parent: Grower | None = None
    ) -> None:
        self.choose, self.dtype, self.opset, self.parent = choose, dtype, opset, parent
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.values: list[Typed] = []
        self.read: Counter[str] = Counter()
        self.conditions: list[str] = []
        self._root: Grower = parent._root if parent is not None else self
        self._count = 0

    # choices

    def chance(self, one_in: int) -> bool:
        """Whether something unlikely happens."""
        return self.choose(one_in) == one_in - 1

    def pick(self, options: Sequence[Any]) -> Any:
        """One of several options."""
        return options[self.choose(len(options))]

    def value(self, fits: Callable[[Typed], bool] = lambda _: True) -> Typed | None:
        """A value, mostly one that nothing reads yet, mostly a late one."""
        found = [value for value in self.values if fits(value)][::-1]
        fresh = [value for value in found if not self.read[value.name]]
        if fresh and not self.chance(8):
            found = fresh
        return self.pick(found[:4]) if found else None

    # making

    def name(self, stem: str) -> str:
        """A new name."""
        self._root._count += 1
        return f"{stem}_{self._root._count}"

    def constant(self, array: Any) -> str:
        """A constant, in an initializer of this graph or, now and then, of the one around it."""
        home = self.parent if self.parent is not None and self.chance(2) else self
        name = self.name("c")
        home.constants[name] = np.asarray(array)
        return name

    def numbers(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        """A constant of random numbers, now and then one that others read as well."""
        wanted = (low, high, shape)
        known = self._root._shared.get(wanted)
        if known is not None and self.chance(6):
            return known
        rng = np.random.default_rng([self._root._count, len(shape)])
        signs = np.sign(rng.uniform(-0.4, 1.0, shape)) if low > 0 and low < 0.7 else 1.0
        array = rng.uniform(low, high, shape) * signs
        if low > 0 and low < 0.7 and self.chance(12):
            array = array * (rng.random(shape) < 0.6)  # some scales are zero
        name = self.name("w")
        self._root.constants[name] = np.asarray(array, self.dtype)
        self._root._shared[wanted] = name
        return name

    _shared: dict[tuple[float, float, tuple[int, ...]], str]

    def node(self, op: str, inputs: Sequence[Typed | str], *shapes: tuple[int, ...], **attributes: Any) -> Typed:
        """A node with an output of each shape; gives the first."""
        names = [value.name if isinstance(value, Typed) else value for value in inputs]
        outputs = [Typed(self.name("v"), tuple(shape)) for shape in shapes]
        self.nodes.append(
            helper.make_node(op, names, [v.name for v in outputs], name=self.name(op.lower()), **attributes)
        )
        self.read.update(names)
        if self.parent is not None:
            self.parent.read.update(names)
        self.values.extend(outputs)
        return outputs[0]

    # growing

    def grow(self, steps: int) -> None:
        """Add operators until there are enough, each now and then followed by an affine."""
        for _ in range(steps):
            step = self.pick(_LIKELY if self.choose(3) else STEPS)
            step(self)
            if self.choose(5) < 2:
                self.pick((batchnorm, batchnorm, arithmetic))(self)

    def graph(self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]) -> onnx.GraphProto:
        """The graph as ONNX has it."""
        shapes = {value.name: value.shape for value in self.values}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        infos = [helper.make_tensor_value_info(out, kind, [None] * len(shapes[out])) for out in outputs]
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        return helper.make_graph(self.nodes, name, list(inputs), infos, tensors)


def random_model(choose: Callable[[int], int], dtype: type = np.float32) -> onnx.ModelProto:
    """Grow a model: one to three inputs, several outputs, an opset from 13 to 21."""
    opset = (18, 17, 13, 21)[choose(4)]
    grower = Grower(choose, dtype, opset)
    grower._shared = {}
    known = choose(4)  # 3: only ranks are recorded; 2: the batch is a symbol
    inputs = []
    for index in range(1 + choose(3)):
        shape = grower.pick(((_BATCH, 4, 4, 4), (4, 4, 4, 4), (_BATCH, 4, 4), (4, 4), (_BATCH, 3, 4, 5), (4, 1, 4, 4)))
        dims: list[Any] = [None] * len(shape) if known == 3 else list(shape)
        if known == 2 and shape[0] == _BATCH:
            dims[0] = "N"
        name = f"x{index}"
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims))
        inputs[-1].doc_string = ",".join(map(str, shape))
        grower.values.append(Typed(name, shape))
    grower.grow(4 + choose(11))
    inputs += [helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in grower.conditions]
    made = [value for value in grower.values if not value.name.startswith("x")]
    outputs = [value.name for value in made if not grower.read[value.name]][:6]
    if made and choose(4) == 3:
        outputs.append(made[choose(len(made))].name)
    model = helper.make_model(
        grower.graph("random", inputs, sorted(set(outputs))),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )
    return model


def random_feeds(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Inputs of a random model."""
    rng = np.random.default_rng(seed)
    made = {}
    for value in model.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if kind == np.bool_:
            made[value.name] = np.asarray(rng.random() < 0.5)
        else:
            made[value.name] = rng.normal(0, 1, [int(size) for size in value.doc_string.split(",")]).astype(kind)
    return made


# affines


def batchnorm(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        c = v.shape[1]
        gamma, var = g.numbers(c, low=0.5, high=1.6), g.numbers(c, low=0.7, high=1.4)
        parameters = [v, gamma, g.numbers(c), g.numbers(c), var]
        g.node("BatchNormalization", parameters, v.shape, epsilon=g.pick((1e-5, 1e-3)))


def arithmetic(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank + 1)
    shape = [1] * axis + [v.shape[axis]] + [1] * (v.rank - axis - 1) if axis < v.rank else [[], [1]][g.choose(2)]
    while shape and shape[0] == 1 and g.choose(2):
        shape = shape[1:]
    op = g.pick(("Mul", "Add", "Sub", "Div"))
    low, high = (0.5, 1.6) if op in ("Mul", "Div") else (-1.0, 1.0)
    pair: list[Typed | str] = [v, g.numbers(*shape, low=low, high=high)]
    g.node(op, pair[::-1] if op != "Div" and g.chance(3) else pair, v.shape)


# linear operators


def convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is None:
        return
    n, c, *spatial = v.shape
    groups = g.pick([k for k in (1, 2, c) if c % k == 0])
    cout = g.pick([k for k in (4, 2, c) if k % groups == 0] or [c])
    k = g.pick([k for k in (1, 3, 2) if k <= min(spatial)])
    pad, stride = g.pick((0, 0, k // 2)), g.pick((1, 1, 2))
    out = [(size + 2 * pad - k) // stride + 1 for size in spatial]
    weight = g.numbers(cout, c // groups, *[k] * len(spatial))
    bias = [g.numbers(cout)] if g.choose(2) else []
    g.node(
        "Conv", [v, weight, *bias], (n, cout, *out),
        group=groups, pads=[pad] * (2 * len(spatial)), strides=[stride] * len(spatial),
    )  # fmt: skip


def transposed_convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is None:
        return
    n, c, *spatial = v.shape
    groups = g.pick([k for k in (1, 2) if c % k == 0])
    k, stride = g.pick((1, 2, 3)), g.pick((1, 1, 2))
    crop = g.pick((0, (k - 1) // 2, k - 1))
    out = [(size - 1) * stride - 2 * crop + k for size in spatial]
    if min(out) < 1 or n * 4 * math.prod(out) > _LARGEST:
        return
    weight = g.numbers(c, 4 // groups, *[k] * len(spatial))
    bias = [g.numbers(4)] if g.choose(2) else []
    g.node(
        "ConvTranspose", [v, weight, *bias], (n, 4, *out),
        group=groups, pads=[crop] * (2 * len(spatial)), strides=[stride] * len(spatial),
    )  # fmt: skip


def gemm(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 2)
    if v is None:
        return
    ta, tb, left = g.choose(2), g.choose(2), g.chance(4)
    rows, k = v.shape[::-1] if ta else v.shape
    weight = g.numbers(*((4, k) if tb else (k, 4)))
    shape, inputs = (rows, 4), [v, weight]
    if left:
        k, columns = v.shape[::-1] if tb else v.shape
        shape, inputs = (4, columns), [g.numbers(*((k, 4) if ta else (4, k))), v]
    addend = g.pick((None, shape[1:], (1, shape[1]), (shape[0], 1), ()))
    inputs += [] if addend is None else [g.numbers(*addend)]
    g.node("Gemm", inputs, shape, transA=ta, transB=tb, alpha=g.pick((1.0, 0.5)), beta=g.pick((1.0, -0.5)))


def matmul(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is None:
        return
    *batch, rows, k = v.shape
    leading = [1] if g.chance(6) and batch else []
    if g.chance(3):
        out = g.node("MatMul", [g.numbers(*leading, 4, rows), v], (*batch, 4, k))
    else:
        out = g.node("MatMul", [v, g.numbers(*leading, k, 4)], (*batch, rows, 4))
    if g.choose(2):
        bias = g.numbers(out.shape[-1])
        g.node("Add", [out, bias] if g.choose(2) else [bias, out], out.shape)


def attention(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    w = None if v is None else g.value(
        lambda w: w != v and w.rank == v.rank and w.shape[:-2] == v.shape[:-2] and w.shape[-1] == v.shape[-2]
    )  # fmt: skip
    if v is None or w is None:
        return
    if g.choose(3):
        axis = -1 if g.choose(3) else g.choose(w.rank)
        w = g.node("Softmax", [w], w.shape, axis=axis)
    g.node("MatMul", [w, v], (*w.shape[:-1], v.shape[-1]))


# layout


def transpose(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        left, perm = list(range(v.rank)), []
        while left:
            perm.append(left.pop(-1 - g.choose(len(left))))
        g.node("Transpose", [v], [v.shape[axis] for axis in perm], perm=perm)


def reshape(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is None:
        return
    axis, shape = g.choose(v.rank), list(v.shape)
    if g.choose(2) and axis + 1 < v.rank:
        shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
    elif shape[axis] % 2 == 0 and v.rank < _HIGHEST_RANK:
        shape[axis : axis + 1] = [2, shape[axis] // 2][:: 1 - 2 * g.choose(2)]
    else:
        shape = [shape[0], math.prod(shape[1:])]
    target = list(shape)
    if g.choose(2):
        target[g.choose(len(target))] = -1
    if g.choose(2) and shape[0] == v.shape[0] and target[0] != -1:
        target[0] = 0
    g.node("Reshape", [v, g.constant(np.asarray(target, np.int64))], shape)


def shuffle(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and v.shape[1] % 2 == 0)
    if v is not None:
        n, c, h, w = v.shape
        split = np.asarray([0, 2, c // 2, h, w], np.int64)
        v = g.node("Reshape", [v, g.constant(split)], (n, 2, c // 2, h, w))
        v = g.node("Transpose", [v], (n, c // 2, 2, h, w), perm=[0, 2, 1, 3, 4])
        g.node("Reshape", [v, g.constant(np.asarray([0, -1, h, w], np.int64))], (n, c, h, w))


def flatten(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        axis = g.pick((1, g.choose(v.rank + 1)))
        g.node("Flatten", [v], (math.prod(v.shape[:axis]), math.prod(v.shape[axis:])), axis=axis)


def squeeze(g: Grower) -> None:
    v = g.value(lambda v: 1 in v.shape and v.rank > 2)
    if v is not None:
        axis = v.shape.index(1)
        axes = g.constant(np.asarray([axis - g.choose(2) * v.rank], np.int64))
        g.node("Squeeze", [v, axes], v.shape[:axis] + v.shape[axis + 1 :])


def unsqueeze(g: Grower) -> None:
    v = g.value(lambda v: v.rank < _HIGHEST_RANK)
    if v is not None:
        axis = g.choose(v.rank + 1)
        axes = g.constant(np.asarray([axis - g.choose(2) * (v.rank + 1)], np.int64))
        g.node("Unsqueeze", [v, axes], (*v.shape[:axis], 1, *v.shape[axis:]))


# joins


def concat(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank)
    w = g.value(lambda w: w.rank == v.rank and all(
        a == b for i, (a, b) in enumerate(zip(v.shape, w.shape, strict=True)) if i != axis
    ))  # fmt: skip
    w = w or v
    shape = [*v.shape]
    shape[axis] += w.shape[axis]
    if math.prod(shape) <= _LARGEST:
        other = g.numbers(*w.shape) if g.chance(6) else w
        g.node("Concat", [v, other], shape, axis=axis - g.choose(2) * v.rank)


def split(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0 and max(v.shape) > 1)
    if v is None:
        return
    axis = g.pick([axis for axis, size in enumerate(v.shape) if size > 1])
    first = g.pick((v.shape[axis] // 2, 1))
    sizes = [first, v.shape[axis] - first]
    shapes = [(*v.shape[:axis], size, *v.shape[axis + 1 :]) for size in sizes]
    one = g.node("Split", [v, g.constant(np.asarray(sizes, np.int64))], *shapes, axis=axis)
    if g.choose(2):
        two = g.values[-1]
        if g.choose(2):
            one = g.node(g.pick(("Relu", "Identity")), [one], one.shape)
        g.node("Concat", [one, two] if g.choose(2) else [two, one], v.shape, axis=axis)


def slicing(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0 and max(v.shape) > 1)
    if v is None:
        return
    axis = g.pick([axis for axis, size in enumerate(v.shape) if size > 1])
    start, end, step = g.pick(((1, 99, 1), (0, -1, 1), (-1, -99, -1), (0, 99, 2)))
    size = len(range(v.shape[axis])[start:end:step])
    bounds = [g.constant(np.asarray([number], np.int64)) for number in (start, end, axis, step)]
    g.node("Slice", [v, *bounds], (*v.shape[:axis], size, *v.shape[axis + 1 :]))


def gather(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    if v is None:
        return
    axis = g.choose(v.rank)
    size = v.shape[axis]
    rng = np.random.default_rng(g.choose(50))
    indices = rng.permutation(size) if g.choose(3) else rng.integers(-size, size, 3)
    shape = (*v.shape[:axis], len(indices), *v.shape[axis + 1 :])
    g.node("Gather", [v, g.constant(indices.astype(np.int64))], shape, axis=axis)


# arithmetic of values


def _partner(g: Grower, v: Typed) -> Typed | None:
    if g.chance(8):
        return v
    same = g.value(lambda w: w != v and w.shape == v.shape)
    if same is not None and g.choose(4):
        return same
    return g.value(
        lambda w: w != v and w.rank <= v.rank and all(
            a in (1, b) for a, b in zip(w.shape[::-1], v.shape[::-1], strict=False)
        )
    ) or same  # fmt: skip


def addition(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    w = None if v is None else _partner(g, v)
    if v is None or w is None:
        return
    op = g.pick(("Add", "Add", "Sub", "Sum"))
    pair: list[Typed | str] = [v, w][:: 1 - 2 * g.choose(2)]
    if op == "Sum" and g.choose(2):
        pair.append(g.numbers(v.shape[-1]))
    g.node(op, pair, v.shape)


def product(g: Grower) -> None:
    v = g.value(lambda v: v.rank > 0)
    w = None if v is None else _partner(g, v)
    if v is None or w is None:
        return
    if w != v and g.choose(2):
        w = g.node("Sigmoid", [w], w.shape)
        if g.chance(3):
            g.node("Div", [v, w], v.shape)
            return
    g.node("Mul", [v, w][:: 1 - 2 * g.choose(2)], v.shape)


def gate(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        n, c, *_ = v.shape
        w = g.node("GlobalAveragePool", [v], (n, c, 1, 1))
        w = g.node("Conv", [w, g.numbers(c, c, 1, 1)], w.shape)
        w = g.node("Sigmoid", [w], w.shape)
        g.node("Mul", [v, w], v.shape)


def residual(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4)
    if v is not None:
        n, c, *spatial = v.shape
        arms = []
        for _ in range(2):
            arm = g.node("Conv", [v, g.numbers(4, c, 1, 1)], (n, 4, *spatial))
            if g.choose(2):
                parameters = [g.numbers(4, low=0.5, high=1.6), g.numbers(4), g.numbers(4)]
                arm = g.node(
                    "BatchNormalization", [arm, *parameters, g.numbers(4, low=0.7, high=1.4)], arm.shape
                )
            arms.append(arm)
        g.node(g.pick(("Add", "Sub", "Sum")), arms, (n, 4, *spatial))


# pools, activations, the rest


def pool(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4) and min(v.shape[2:]) >= 2)
    if v is None:
        return
    spatial = v.shape[2:]
    k, stride, pad, ceil = 2, g.pick((1, 2, 3)), g.pick((0, 0, 1)), g.choose(2)
    rounded = math.ceil if ceil else math.floor
    out = [rounded((size + 2 * pad - k) / stride) + 1 for size in spatial]
    out = [o - (ceil and (o - 1) * stride >= size + pad) for o, size in zip(out, spatial, strict=True)]
    settings: dict[str, Any] = {
        "kernel_shape": [k] * len(spatial), "strides": [stride] * len(spatial),
        "pads": [pad] * (2 * len(spatial)), "ceil_mode": ceil,
    }  # fmt: skip
    op = g.pick(("AveragePool", "MaxPool"))
    if op == "AveragePool":
        settings["count_include_pad"] = g.choose(2)
    g.node(op, [v], (*v.shape[:2], *out), **settings)


def reduction(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 3)
    if v is None:
        return
    if g.choose(2):
        op = g.pick(("GlobalAveragePool", "GlobalMaxPool"))
        g.node(op, [v], (*v.shape[:2], *[1] * (v.rank - 2)))
        return
    axes = g.pick(([-1], [-2, -1], [1]))
    keep = g.choose(2)
    gone = [axis % v.rank for axis in axes]
    shape = [1 if i in gone else size for i, size in enumerate(v.shape) if keep or i not in gone]
    op = g.pick(("ReduceMean", "ReduceMax", "ReduceMin"))
    if g.opset < 18:
        g.node(op, [v], shape, axes=axes, keepdims=keep)
    else:
        g.node(op, [v, g.constant(np.asarray(axes, np.int64))], shape, keepdims=keep)


def activation(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2)
    if v is not None:
        op = g.pick(("Relu", "LeakyRelu", "PRelu"))
        slope = [g.numbers(*g.pick(((1,), (v.shape[1], *[1] * (v.rank - 2)))))] if op == "PRelu" else []
        g.node(op, [v, *slope], v.shape)


def barrier(g: Grower) -> None:
    v = g.value()
    if v is not None:
        g.node(g.pick(("Sigmoid", "Tanh")), [v], v.shape)


def padding(g: Grower) -> None:
    v = g.value(lambda v: v.rank >= 2 and min(v.shape[-2:]) >= 2)
    if v is None:
        return
    mode = g.pick(("constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else [])))
    axis = v.rank - 1 - (g.choose(v.rank) if g.chance(4) else g.choose(2))
    pads = [0] * (2 * v.rank)
    if v.shape[axis] > 1:
        pads[axis] = 1
    pads[axis + v.rank] = 1 if v.shape[axis] > 1 else 0
    shape = [size + pads[i] + pads[i + v.rank] for i, size in enumerate(v.shape)]
    inputs = [v, g.constant(np.asarray(pads, np.int64))]
    if mode == "constant" and g.choose(2):
        inputs.append(g.constant(np.asarray(g.pick((0.0, 0.5)), g.dtype)))
    if math.prod(shape) <= _LARGEST:
        g.node("Pad", inputs, shape, mode=mode)


def resize(g: Grower) -> None:
    v = g.value(lambda v: v.rank == 4 and min(v.shape) > 1)
    if v is None:
        return
    mode = g.pick(("nearest", "linear", "cubic"))
    axes = (2, 3) if mode != "nearest" or g.choose(3) else (g.choose(4),)
    shape = [size * (2 if i in axes else 1) for i, size in enumerate(v.shape)]
    if math.prod(shape) > _LARGEST:
        return
    if g.choose(2):
        extra = ["", g.constant(np.asarray([2.0 if i in axes else 1.0 for i in range(4)], np.float32))]
    else:
        extra = ["", "", g.constant(np.asarray(shape, np.int64))]
    transform = g.pick(("half_pixel", "asymmetric", "align_corners"))
    g.node("Resize", [v, *extra], shape, mode=mode, coordinate_transformation_mode=transform)


def passthrough(g: Grower) -> None:
    v = g.value()
    if v is not None:
        op = g.pick(("Identity", "Dropout", "Cast"))
        to = {"to": helper.np_dtype_to_tensor_dtype(np.dtype(g.dtype))} if op == "Cast" else {}
        g.node(op, [v], v.shape, **to)


def branch(g: Grower) -> None:
    """An If whose branches capture a value, and now and then put a BatchNorm before or behind it."""
    v = g.value(lambda v: v.rank >= 2)
    if v is None or g.parent is not None:
        return
    bodies = []
    for which in ("then", "else"):
        body = Grower(g.choose, g.dtype, g.opset, parent=g)
        body.values = [v]
        for _ in range(1 + g.choose(3)):
            body.pick((batchnorm, same_convolution, activation, arithmetic, addition, barrier))(body)
        last = next(w for w in reversed(body.values) if w.shape == v.shape)
        if last == v:
            last = body.node("Identity", [v], v.shape)
        bodies.append(body.graph(which, [], [last.name]))
    condition = f"x_condition_{len(g.conditions)}"
    g.conditions.append(condition)
    g.read[v.name] += 1
    g.node("If", [condition], v.shape, then_branch=bodies[0], else_branch=bodies[1])


def same_convolution(g: Grower) -> None:
    v = g.value(lambda v: v.rank in (3, 4))
    if v is not None:
        c = v.shape[1]
        g.node("Conv", [v, g.numbers(c, c, *[1] * (v.rank - 2))], v.shape)


_LIKELY = (convolution, matmul, barrier, residual)
STEPS = (
    convolution, transposed_convolution, gemm, matmul, attention, transpose, reshape, shuffle, flatten, squeeze,
    unsqueeze, concat, split, slicing, gather, addition, product, gate, residual, pool, reduction, activation,
    barrier, padding, resize, passthrough, branch,
)  # fmt: skip
