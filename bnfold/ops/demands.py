"""What each operator demands of shapes and of the numbers in its attributes, as ONNX's `Operators.md` says.

Sizes that are not known are taken to fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, integers
from bnfold.graph.shape_inference import Dim, Dims
from bnfold.ops.linear import is_zero

Check = Callable[[ir.Node, Facts], "str | None"]
"""What is wrong with a node, as the end of "has …"; None where nothing is."""

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _shape(node: ir.Node, index: int, facts: Facts) -> Dims | None:
    """The shape of an input, None where it is left out or not known."""
    return facts.shape(node.inputs[index]) if index < len(node.inputs) else None


def _differ(one: Dim, other: Dim) -> bool:
    """Whether two sizes are proved to be different."""
    return isinstance(one, int) and isinstance(other, int) and one != other


def _do_not_broadcast(shapes: Sequence[Dims], *, onto: Dims | None = None) -> bool:
    """Whether shapes are proved not to broadcast, to each other or onto a given one."""
    rank = max(map(len, (*shapes, onto or ())))
    if onto is not None and rank > len(onto):
        return True
    for axis in range(1, rank + 1):
        sizes = {shape[-axis] for shape in shapes if len(shape) >= axis}
        known = {size for size in sizes if isinstance(size, int) and size != 1}
        if onto is not None:
            limit = onto[-axis] if len(onto) >= axis else 1
            known = {size for size in known if isinstance(limit, int) and size != limit}
            if known:
                return True
        elif len(known) > 1:
            return True
    return False


def _windows(node: ir.Node, spatial: int | None) -> str | None:
    """The lists of numbers that windows have: one for each of the spatial axes, two for pads."""
    for name, each in (
        ("kernel_shape", 1),
        ("strides", 1),
        ("dilations", 1),
        ("pads", 2),
        ("output_padding", 1),
    ):
        given = integers(node, name)
        if given and spatial is not None and len(given) != each * spatial:
            return f"{len(given)} {name} for {spatial} spatial axes"
        if given and name in ("kernel_shape", "strides", "dilations") and min(given) < 1:
            return f"{name} of {list(given)}"
    return None


def _convolution(node: ir.Node, facts: Facts) -> str | None:
    weight, groups, data = _shape(node, 1, facts), integer(node, "group", 1), _shape(node, 0, facts)
    if weight is None or not all(isinstance(size, int) for size in weight):
        if facts.has_constant(node, 1):
            weight = tuple(facts.stored(node, 1).shape.numpy())
        else:
            return f"{groups} groups" if groups < 1 else _windows(node, None)
    if len(weight) < 3 or groups < 1 or not isinstance(weight[0], int) or weight[0] % groups:
        return f"a weight of shape {list(weight)} in {groups} groups"
    transposed = node.op_type == "ConvTranspose"
    each = weight[1]
    inner = each * groups if isinstance(each, int) else None
    cin, cout = (weight[0], inner) if transposed else (inner, weight[0])
    if data is not None and len(data) != len(weight):
        return f"an input of {len(data)} axes for a weight of shape {list(weight)}"
    if data is not None and _differ(data[1], cin):
        return f"an input of {data[1]} channels where its weight has {cin}"
    kernel = integers(node, "kernel_shape")
    if any(_differ(size, given) for size, given in zip(weight[2:], kernel, strict=False)):
        return f"a kernel_shape of {list(kernel)} for a weight of shape {list(weight)}"
    return _windows(node, len(weight) - 2) or _bias(node, 2, cout, facts)


def _bias(node: ir.Node, index: int, size: Dim, facts: Facts) -> str | None:
    """A bias that is not one number for each channel; zeros of any shape are no bias."""
    shape = _shape(node, index, facts)
    if shape is None or size is None or (len(shape) == 1 and not _differ(shape[0], size)):
        return None
    value = node.inputs[index]
    return (
        None
        if value is None or is_zero(value, facts)
        else f"a bias of shape {list(shape)} for {size} channels"
    )


def _gemm(node: ir.Node, facts: Facts) -> str | None:
    matrices = [_shape(node, index, facts) for index in (0, 1)]
    for what, shape in zip(("an input", "a weight"), matrices, strict=True):
        if shape is not None and len(shape) != 2:
            return f"{what} of shape {list(shape)}"
    turned = [integer(node, name, 0) != 0 for name in ("transA", "transB")]
    a, b = (
        (None, None) if shape is None else shape[::-1] if turn else shape
        for shape, turn in zip(matrices, turned, strict=True)
    )
    if _differ(a[1], b[0]):
        return f"a product of {a[1]} columns with {b[0]} rows"
    c = _shape(node, 2, facts)
    if c is None or facts.version(node) < 7 or not _do_not_broadcast([c], onto=(a[0], b[1])):
        return None
    value = node.inputs[2]
    given = f"a weight of shape {list(matrices[1] or ())}"
    return None if value is None or is_zero(value, facts) else f"a bias of shape {list(c)} for {given}"


def _matmul(node: ir.Node, facts: Facts) -> str | None:
    a, b = _shape(node, 0, facts), _shape(node, 1, facts)
    if a is None or b is None:
        return None
    if not a or not b:
        return "a factor without axes"
    rows = b[-2] if len(b) > 1 else b[0]
    if _differ(a[-1], rows):
        return f"a product of {a[-1]} columns with {rows} rows"
    bad = _do_not_broadcast([a[:-2], b[:-2]])
    return f"factors of shapes {list(a)} and {list(b)}" if bad else None


def _per_channel(first: int, stop: int) -> Check:
    """Of inputs that are a number for each channel of input 0."""

    def check(node: ir.Node, facts: Facts) -> str | None:
        data = _shape(node, 0, facts)
        if data is not None and len(data) < 2:
            return f"an input of shape {list(data)}, which has no channels"
        if node.op_type == "BatchNormalization" and integer(node, "spatial", 1) == 0:
            return None  # a number for each element
        channels = data[1] if data is not None and len(data) > 1 else None
        for index in range(first, stop):
            shape = _shape(node, index, facts)
            if shape is not None and (len(shape) != 1 or _differ(shape[0], channels)):
                what = "" if channels is None else f" for {channels} channels"
                return f"an input {index} of shape {list(shape)}{what}"
        return None

    return check


def _group_normalization(node: ir.Node, facts: Facts) -> str | None:
    groups, channels = integer(node, "num_groups", 1), facts.size(node.inputs[0], 1)
    if groups < 1 or (channels is not None and channels % groups):
        return f"{groups} groups" + ("" if channels is None else f" of {channels} channels")
    return None


def _transpose(node: ir.Node, facts: Facts) -> str | None:
    perm, rank = integers(node, "perm"), facts.rank(node.inputs[0])
    if perm and (sorted(perm) != list(range(len(perm))) or (rank is not None and len(perm) != rank)):
        return f"a perm of {list(perm)}" + ("" if rank is None else f" for {rank} axes")
    return None


def _axes_fault(axes: Sequence[int] | None, rank: int | None) -> str | None:
    if axes is None or rank is None:
        return None
    if any(not -rank <= axis < rank for axis in axes):
        return f"axes {list(axes)} where there are {rank}" if len(axes) > 1 else f"axis {axes[0]} of {rank}"
    return (
        f"axes {list(axes)}, one of them twice" if len({axis % rank for axis in axes}) < len(axes) else None
    )


def _axis(node: ir.Node, facts: Facts) -> str | None:
    """An attribute `axis` of input 0."""
    rank = facts.rank(node.inputs[0])
    given = [integer(node, "axis", 0)] if "axis" in node.attributes else None
    if node.op_type == "Flatten" and given is not None and given[0] == rank:
        return None
    return _axes_fault(given, rank)


def _axes(index: int) -> Check:
    """A list of axes of input 0, in an attribute or in an input."""

    def check(node: ir.Node, facts: Facts) -> str | None:
        axes = facts.integers(node, index, "axes")
        rank = facts.rank(node.inputs[0])
        if node.op_type == "Unsqueeze" and axes is not None and rank is not None:
            rank += len(axes)
        return _axes_fault(axes, rank)

    return check


def _concat(node: ir.Node, facts: Facts) -> str | None:
    shapes = [shape for index in range(len(node.inputs)) if (shape := _shape(node, index, facts)) is not None]
    if len({len(shape) for shape in shapes}) > 1:
        return f"inputs of {' and '.join(map(str, sorted({len(shape) for shape in shapes})))} axes"
    fault = _axis(node, facts)
    if fault or not shapes or not shapes[0]:
        return fault
    joined = integer(node, "axis", 1) % len(shapes[0])
    for axis in range(len(shapes[0])):
        sizes = {shape[axis] for shape in shapes if isinstance(shape[axis], int)}
        if axis != joined and len(sizes) > 1:
            return f"inputs of different sizes along axis {axis}"
    return None


def _split(node: ir.Node, facts: Facts) -> str | None:
    fault, sizes = _axis(node, facts), facts.integers(node, 1, "split")
    if fault or sizes is None:
        return fault
    whole = facts.size(node.inputs[0], integer(node, "axis", 0))
    if len(sizes) != len(node.outputs) or min(sizes, default=0) < 0 or _differ(whole, sum(sizes)):
        return f"a split of {sizes} of {'?' if whole is None else whole} into {len(node.outputs)} outputs"
    return None


def _pad(node: ir.Node, facts: Facts) -> str | None:
    rank, pads = facts.rank(node.inputs[0]), facts.integers(node, 1, "pads")
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    axes = facts.integers(node, 3, "axes") if has_axes else None
    padded = len(axes) if axes is not None else None if has_axes else rank
    if pads is not None and padded is not None and len(pads) != 2 * padded:
        return f"{len(pads)} pads for {padded} axes"
    return _axes_fault(axes, rank)


def _reshape(node: ir.Node, facts: Facts) -> str | None:
    before, target = _shape(node, 0, facts), facts.integers(node, 1, "shape")
    if target is None:
        return None
    if target.count(-1) > 1 or min(target, default=0) < -1:
        return f"a shape of {target}"
    if before is None or not all(isinstance(size, int) for size in before):
        return None
    copies = integer(node, "allowzero", 0) == 0
    if copies and any(size == 0 and axis >= len(before) for axis, size in enumerate(target)):
        return f"a shape of {target} for an input of {len(before)} axes"
    sizes = [before[axis] if copies and size == 0 else size for axis, size in enumerate(target)]
    known = math.prod(size for size in sizes if isinstance(size, int) and size != -1)
    elements = math.prod(size for size in before if isinstance(size, int))
    fits = known == elements if -1 not in target else known != 0 and elements % known == 0
    return (
        None if fits or (-1 in target and elements == 0) else f"a shape of {target} for {elements} elements"
    )


def _expand(node: ir.Node, facts: Facts) -> str | None:
    before, target = _shape(node, 0, facts), facts.integers(node, 1, "shape")
    if target is None:
        return None
    bad = min(target, default=0) < 0 or (before is not None and _do_not_broadcast([before, tuple(target)]))
    return f"a shape of {target}" + ("" if before is None else f" for {list(before)}") if bad else None


def _tile(node: ir.Node, facts: Facts) -> str | None:
    if facts.version(node) < 6:
        return None  # one number of tiles and an axis
    rank, repeats = facts.rank(node.inputs[0]), facts.integers(node, 1, "repeats")
    bad = repeats is not None and rank is not None and (len(repeats) != rank or min(repeats, default=0) < 0)
    return f"repeats of {repeats} for {rank} axes" if bad else None


def _blocks(node: ir.Node, facts: Facts) -> str | None:
    size, shape = integer(node, "blocksize", 1), _shape(node, 0, facts)
    if size < 1 or (shape is not None and len(shape) != 4):
        return f"blocks of {size}" + ("" if shape is None else f" in {len(shape)} axes")
    divided = {"DepthToSpace": ((1, size * size),), "SpaceToDepth": ((2, size), (3, size))}[node.op_type]
    for axis, divisor in divided:
        length = None if shape is None else shape[axis]
        if isinstance(length, int) and length % divisor:
            return f"blocks of {size} for a size of {length} along axis {axis}"
    return None


def _pool(node: ir.Node, facts: Facts) -> str | None:
    rank = facts.rank(node.inputs[0])
    if rank is not None and rank < 3:
        return f"an input of {rank} axes"
    return _windows(node, None if rank is None else rank - 2)


def _elementwise(node: ir.Node, facts: Facts) -> str | None:
    if facts.version(node) < 7:
        return None  # `broadcast` and `axis` decide
    shapes = [shape for index in range(len(node.inputs)) if (shape := _shape(node, index, facts)) is not None]
    if len(shapes) < 2:
        return None
    onto = shapes[0] if node.op_type == "PRelu" and facts.rank(node.inputs[0]) is not None else None
    if not _do_not_broadcast(shapes[1:] if onto is not None else shapes, onto=onto):
        return None
    return "inputs of shapes " + " and ".join(str(list(shape)) for shape in shapes)


def _recurrent(node: ir.Node, facts: Facts) -> str | None:
    gates, data = _GATES[node.op_type], _shape(node, 0, facts)
    shapes = [_shape(node, index, facts) for index in (1, 2, 3)]
    for shape, rank, what in zip(shapes, (3, 3, 2), ("weight", "recurrence", "bias"), strict=True):
        if shape is not None and len(shape) != rank:
            return f"a {what} of shape {list(shape)}"
    weight, back, bias = shapes
    hidden = back[2] if back is not None else None
    if data is not None and len(data) != 3:
        return f"an input of {len(data)} axes"
    if data is not None and weight is not None and _differ(data[2], weight[2]):
        return f"an input of {data[2]} features where its weight has {weight[2]}"
    rows = gates * hidden if isinstance(hidden, int) else None
    both = 2 * rows if rows is not None else None
    for shape, axis, size in ((weight, 1, rows), (back, 1, rows), (bias, 1, both)):
        if shape is not None and _differ(shape[axis], size):
            return f"a weight of shape {list(shape)} for {hidden} hidden units"
    return None


def _dequantize(node: ir.Node, facts: Facts) -> str | None:
    data, scale = _shape(node, 0, facts), _shape(node, 1, facts)
    if data is None or scale is None or len(scale) != 1 or integer(node, "block_size", 0):
        return None
    axis = integer(node, "axis", 1)
    if scale[0] != 1 and not -len(data) <= axis < len(data):
        return f"axis {axis} of {len(data)}"
    is_wrong = scale[0] != 1 and _differ(data[axis], scale[0])
    return f"{scale[0]} scales for {data[axis]} slices" if is_wrong else None


CHECKS: dict[str, Check] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_channel(1, 5),
    "InstanceNormalization": _per_channel(1, 3),
    "GroupNormalization": _group_normalization,
    "Transpose": _transpose,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "Gather", "Flatten", "LayerNormalization"), _axis),
    **dict.fromkeys(("ArgMax", "ArgMin"), _axis),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _axes(1)),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _axes(1)),
    "Slice": _axes(3),
    "Concat": _concat,
    "Split": _split,
    "Pad": _pad,
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum", "PRelu", "Pow", "Where"), _elementwise),
    **dict.fromkeys(_GATES, _recurrent),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _dequantize),
}
"""The check of each operator that has one, by ONNX's names."""
