"""Operators written as an older version has them, where onnx's converter does not do that, or not always.

Each function is given a node and changes it to the same computation as the version before writes it, or
refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.contract.opsets import crosses, differs, own_nodes
from bnfold.contract.preparing import Preparation, demand_types, hold_constants, named, to_attributes
from bnfold.errors import ModelError
from bnfold.graph.nodes import integer, integers, name_of, text

_FROM_THE_END_SINCE = 11  # axes and indices may be negative
# Reductions of one element are that element. Of others, runtimes and versions differ in what is left of them.
_KEEP_ONE_ELEMENT = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_REDUCTIONS = (
    *_KEEP_ONE_ELEMENT,
    *(f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "SumSquare")),
)
_OLD_MODES = {"linear": "bilinear", "cubic": "bicubic"}
_OLD_CONSTANTS = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
_FLOAT8 = tuple(kind for kind in ir.DataType if kind.name.startswith("FLOAT8"))


def adapt(at: Preparation, model: ir.Model) -> None:
    """Prepare a model for one step to another version.

    Raises:
        ModelError: An operator stands in the way; names the node.
    """
    for node in [node for node in own_nodes(model) if differs(node, at.now, at.opset)]:
        while node.inputs and node.inputs[-1] is None:  # left out in two ways, of which adapters know one
            node.resize_inputs(len(node.inputs) - 1)
        if at.opset > at.now:
            continue
        for since, name, function in _NEWEST_FIRST:
            if node.op_type == name and crosses(since, at.now, at.opset):
                function(at, node)
        if crosses(_FROM_THE_END_SINCE, at.now, at.opset) and _changed_in(node, _FROM_THE_END_SINCE):
            _count_from_the_first(at, node)
        if onnx.defs.has(node.op_type, at.opset):
            demand_types(at, node)
    hold_constants(at, model)


def _changed_in(node: ir.Node, version: int) -> bool:
    return onnx.defs.has(node.op_type, version) and (
        onnx.defs.get_schema(node.op_type, version).since_version == version
    )


def _count_from_the_first(at: Preparation, node: ir.Node) -> None:
    axes = integers(node, "axes")
    more = {"OneHot": 1, "Unsqueeze": len(axes)}.get(node.op_type, 0)  # axes of the result, which has more
    if integer(node, "axis", 0) < 0:
        node.attributes["axis"] = ir.AttrInt64("axis", at.axis(node, integer(node, "axis", 0), more))
    if any(axis < 0 for axis in axes):
        node.attributes["axes"] = ir.AttrInt64s("axes", [at.axis(node, axis, more) for axis in axes])


def _without_saturation(_: Preparation, node: ir.Node) -> None:
    """It is about floats of 8 bits, which older versions do not have."""
    if integer(node, "to", 0) not in _FLOAT8:
        node.attributes.pop("saturate", None)


def _without_rounding(_: Preparation, node: ir.Node) -> None:
    if integer(node, "to", 0) != ir.DataType.FLOAT8E8M0:
        node.attributes.pop("round_mode", None)


def _reduce(at: Preparation, node: ir.Node) -> None:
    """Without axes, either all are reduced or none."""
    reduces_none = bool(integer(node, "noop_with_empty_axes", 0))
    if len(node.inputs) > 1:
        axes = at.constant(node, 1)
        if axes is not None and axes.size:
            node.attributes.pop("noop_with_empty_axes", None)
            return
        at.shorten(node, 1)
    node.attributes.pop("noop_with_empty_axes", None)
    if not reduces_none:
        return
    if node.op_type not in _KEEP_ONE_ELEMENT:
        raise ModelError(f"{named(node)} reduces no axis, which opset {at.opset} cannot say")
    node.op_type = "Identity"
    node.attributes.clear()


def _split(at: Preparation, node: ir.Node) -> None:
    """A number of parts: the sizes of the parts, the last of which may be smaller."""
    parts = integer(node, "num_outputs", len(node.outputs))
    node.attributes.pop("num_outputs", None)
    if len(node.inputs) > 1:
        return
    size = at.facts.size(node.inputs[0], integer(node, "axis", 0))
    if size is None:
        raise ModelError(
            f"{named(node)} makes {parts} parts of an axis of unknown size, and opset {at.opset} needs it"
        )
    most = -(-size // parts)
    last = size - most * (parts - 1)
    if last <= 0:
        raise ModelError(
            f"{named(node)} makes {parts} parts of {most} out of {size} elements, which leaves {last}"
        )
    at.hold(node, 1, np.array([most] * (parts - 1) + [last], np.int64))


def _pad_all_axes(at: Preparation, node: ir.Node) -> None:
    if len(node.inputs) < 4:
        return
    pads, axes, rank = at.constant(node, 1), at.constant(node, 3), at.facts.rank(node.inputs[0])
    if rank is None:
        raise ModelError(f"{named(node)} has axes, and the number of its input's dimensions is not known")
    assert pads is not None, "Pad has pads"
    assert axes is not None, "counted above"
    whole = np.zeros((2, rank), np.int64)
    whole[:, axes.reshape(-1)] = pads.reshape(2, -1)
    at.shorten(node, 3)
    at.hold(node, 1, whole.reshape(-1))
    if node.inputs[-1] is None:
        at.shorten(node, 2)


def _constant(at: Preparation, node: ir.Node) -> None:
    """Weights have always had any type, and Constants only floats."""
    if at.facts.dtype(node.outputs[0]) not in _OLD_CONSTANTS:
        at.compute(node)


def _pool(_: Preparation, node: ir.Node) -> None:
    """Dilations of one are what is meant without any."""
    if {*integers(node, "dilations")} == {1}:
        node.attributes.pop("dilations")


def _slice(at: Preparation, node: ir.Node) -> None:
    steps = at.constant(node, 4)
    if steps is not None and (steps != 1).any():
        raise ModelError(f"{named(node)} has steps, which opset {at.opset} does not know")
    to_attributes(at, node)


def _slice_from_the_first(at: Preparation, node: ir.Node) -> None:
    axes = at.constant(node, 3)
    if axes is not None and (axes < 0).any():
        counted = [at.axis(node, int(axis)) for axis in axes.reshape(-1)]
        at.hold(node, 3, np.array(counted, axes.dtype))


def _indices(at: Preparation, node: ir.Node, place: int) -> npt.NDArray[Any]:
    """The indices that a node reads, which must be known, since those that count from the end are new."""
    indices: npt.NDArray[Any] | None = at.facts.constants.array(node.inputs[place])
    if indices is None:
        raise ModelError(
            f"{named(node)} reads its indices from {name_of(node.inputs[place])!r}, which may count from the"
            f" end, and opset {at.opset} does not"
        )
    return indices


def _one_hot(at: Preparation, node: ir.Node) -> None:
    """An index below 0 was one of no class."""
    if (_indices(at, node, 0) < 0).any():
        raise ModelError(f"{named(node)} has indices that count from the end, and opset {at.opset} does not")


def _gather(at: Preparation, node: ir.Node) -> None:
    indices = _indices(at, node, 1)
    if (indices >= 0).all():
        return
    size = at.facts.size(node.inputs[0], integer(node, "axis", 0))
    if size is None:
        raise ModelError(
            f"{named(node)} counts from the end of an axis of unknown size, and opset {at.opset} does not"
        )
    at.hold(node, 1, np.where(indices < 0, indices + size, indices).astype(indices.dtype))


def _scan(at: Preparation, node: ir.Node) -> None:
    if any(axis < 0 for name in node.attributes if name.endswith("_axes") for axis in integers(node, name)):
        raise ModelError(
            f"{named(node)} has axes that count from the last one, and opset {at.opset} does not"
        )


def _gemm(at: Preparation, node: ir.Node) -> None:
    """Nothing is added by leaving out what is to be added, or by a zero."""
    if len(node.inputs) > 2:
        return
    kind = at.facts.dtype(node.inputs[0])
    if kind is None:
        raise ModelError(
            f"{named(node)} adds nothing, and the type of the zero that opset {at.opset} needs is not known"
        )
    at.hold(node, 2, np.zeros((1,), kind.numpy()))


def _dropout(at: Preparation, node: ir.Node) -> None:
    training = at.constant(node, 2)
    if (training is not None and training.any()) or len(node.outputs) > 1:
        raise ModelError(
            f"{named(node)} drops elements or gives its mask, which opset {at.opset} does in another way"
        )
    node.attributes.pop("seed", None)
    to_attributes(at, node)


def _resize_with_inputs(at: Preparation, node: ir.Node) -> None:
    """Inputs without elements in place of those that are left out."""
    for index in (1, 2):
        if index >= len(node.inputs) or node.inputs[index] is None:
            at.hold(node, index, np.zeros(0, np.float32))


def _resize_all_axes(at: Preparation, node: ir.Node) -> None:
    """Scales or sizes of all axes, where those of some are said."""
    if "axes" not in node.attributes:
        return
    axes, shape = integers(node, "axes"), at.facts.shape(node.inputs[0])
    index = 2 if len(node.inputs) == 3 else 3
    some = at.constant(node, index)
    plain = text(node, "keep_aspect_ratio_policy", "stretch") == "stretch" and node.inputs[1] is None
    if shape is None or some is None or not plain:
        raise ModelError(f"{named(node)} has axes, which came with opset 18")
    whole: list[float | None] = [1.0] * len(shape)
    if index == 3:
        whole = [at.facts.size(node.inputs[0], axis) for axis in range(len(shape))]
    for axis, one in zip(axes, some.reshape(-1).tolist(), strict=True):
        whole[axis] = one
    if None in whole:
        raise ModelError(f"{named(node)} has axes, which came with opset 18, and other axes of unknown size")
    at.hold(node, index, np.array(whole, some.dtype))
    node.attributes.pop("axes")


def _one_scale(at: Preparation, node: ir.Node) -> None:
    """One scale for the whole tensor, without an axis."""
    rank = at.facts.rank(node.inputs[1])
    if rank == 0:
        node.attributes.pop("axis", None)
        return
    scale = at.facts.constants.array(node.inputs[1])
    if scale is None or scale.size > 1:
        raise ModelError(f"{named(node)} has a scale for each channel, which came with opset 13")
    node.attributes.pop("axis", None)
    for index in range(1, len(node.inputs)):
        number = at.constant(node, index)
        if number is not None:
            at.hold(node, index, number.reshape(()))


def _grid_of_pictures(at: Preparation, node: ir.Node) -> None:
    if at.facts.rank(node.inputs[0]) != 4:
        raise ModelError(f"{named(node)} has an input that is not of 4 dimensions, which came with opset 20")
    mode = text(node, "mode", "linear")
    node.attributes["mode"] = ir.AttrString("mode", _OLD_MODES.get(mode, mode))


def _aligned_regions(_: Preparation, node: ir.Node) -> None:
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    if mode != "output_half_pixel":
        raise ModelError(
            f'{named(node)} has coordinate_transformation_mode="{mode}", which came with opset 16'
        )
    node.attributes.pop("coordinate_transformation_mode")


_Adapter = Callable[[Preparation, ir.Node], None]
# Before onnx's converter, which does the rest.
_PREPARED: dict[tuple[str, int], _Adapter] = {
    ("Cast", 19): _without_saturation,
    ("CastLike", 19): _without_saturation,
    ("Cast", 24): _without_rounding,
    ("CastLike", 24): _without_rounding,
    ("Constant", 9): _constant,
    ("ReduceSum", 13): _reduce,
    **{(name, 18): _reduce for name in _REDUCTIONS if name != "ReduceSum"},
    ("MaxPool", 10): _pool,
    ("AveragePool", 19): _pool,
    ("LpPool", 18): _pool,
    ("Resize", 18): _resize_all_axes,
    ("Gather", 11): _gather,
    ("OneHot", 11): _one_hot,
    ("Scan", 11): _scan,
    ("Slice", 11): _slice_from_the_first,
}
# All of it; the converter does not see the node.
_ADAPTERS: dict[tuple[str, int], _Adapter] = {
    ("Clip", 11): to_attributes,
    ("DequantizeLinear", 13): _one_scale,
    ("Dropout", 12): _dropout,
    ("Gemm", 11): _gemm,
    ("GridSample", 20): _grid_of_pictures,
    ("Pad", 11): to_attributes,
    ("Pad", 18): _pad_all_axes,
    ("QuantizeLinear", 13): _one_scale,
    ("Resize", 13): _resize_with_inputs,
    ("RoiAlign", 16): _aligned_regions,
    ("Slice", 10): _slice,
    ("Split", 18): _split,
    ("TopK", 10): to_attributes,
}
ADAPTED = frozenset(_ADAPTERS)
_NEWEST_FIRST = sorted(
    ((since, name, function) for (name, since), function in (_PREPARED | _ADAPTERS).items()),
    key=lambda one: -one[0],
)
