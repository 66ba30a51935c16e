"""Softmax, LogSoftmax and Hardmax across opset 13, whose `axis` means something else before it.

From opset 13 on they look along one axis. Before, they take their input for a matrix, whose columns are all
axes from `axis` on, and look along its rows. Both are the same for the last axis, so that others are made the
last one:

- to an older version, by a Transpose that exchanges the two axes, and another one that puts them back;
- to a newer version, by a Flatten before it, and a Reshape to the sizes of the input after it.

Where every size after the axis is 1, both are the same as well, and nothing is added. The default is 1 before
opset 13 and -1 from there on, so it is written down. onnx's own converter changes the axis alone for an older
version, and leaves Hardmax as it is for a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from bnfold.contract.opsets import crosses, opset_of, own_nodes
from bnfold.errors import ModelError
from bnfold.graph.facts import Facts
from bnfold.graph.naming import Names, rename
from bnfold.graph.nodes import integer, label

OPERATORS = ("Hardmax", "LogSoftmax", "Softmax")
ALONG_ONE_AXIS_SINCE = 13
_FROM_THE_END_SINCE = 11  # Flatten and these operators take negative axes


def along_last_axis(model: ir.Model, opset: int) -> int:
    """Let these operators look along the last axis alone, if a conversion changes what others mean.

    Args:
        model: The model, which is modified.
        opset: The version that it is about to be converted to.

    Returns:
        How many Reshapes were added that may no longer take tensors without elements.

    Raises:
        ModelError: The number of dimensions is not known and has to be; names the node.
    """
    now = opset_of(model)
    if not crosses(ALONG_ONE_AXIS_SINCE, now, opset):
        return 0
    found = [node for node in own_nodes(model) if node.op_type in OPERATORS]
    if not found:
        return 0
    facts, names, of_sizes = Facts(model), Names(model), 0
    for node in found:
        axis = integer(node, "axis", 1 if now < ALONG_ONE_AXIS_SINCE else -1)
        shape = facts.shape(node.inputs[0])
        if shape is None:
            of_sizes += _with_unknown_rank(node, axis, now, opset, names)
            continue
        axis %= max(len(shape), 1)
        if all(size == 1 for size in shape[axis + 1 :]):
            _set_axis(node, axis)
        elif now < ALONG_ONE_AXIS_SINCE:
            _flatten(node, axis, names)
            of_sizes += not all(isinstance(size, int) and size > 0 for size in shape)
        else:
            _exchange(node, axis, len(shape), names)
    return of_sizes


def _with_unknown_rank(node: ir.Node, axis: int, now: int, opset: int, names: Names) -> int:
    """Do what can be done without the rank; returns how many Reshapes were added."""
    if axis == -1 and min(now, opset) >= _FROM_THE_END_SINCE:
        _set_axis(node, axis)
        return 0
    if now < ALONG_ONE_AXIS_SINCE and (axis >= 0 or now >= _FROM_THE_END_SINCE):
        _flatten(node, axis, names)
        return 1
    raise ModelError(
        f"{node.op_type} {label(node)!r} has axis={axis}, which means something else before opset"
        f" {ALONG_ONE_AXIS_SINCE}, and the number of its dimensions is not known"
    )


def _set_axis(node: ir.Node, axis: int) -> None:
    node.attributes["axis"] = ir.AttrInt64("axis", axis)


def _flatten(node: ir.Node, axis: int, names: Names) -> None:
    """Look along the rows of a matrix, and give the result its shape again."""
    value, result = node.inputs[0], node.outputs[0]
    sizes = ir.Node("", "Shape", [value])
    matrix = ir.Node("", "Flatten", [value], [ir.AttrInt64("axis", axis)])
    _name(sizes, f"{result.name}.sizes", names, ir.DataType.INT64)
    _name(matrix, f"{result.name}.matrix", names, result.dtype)
    _set_axis(node, 1)
    _around(node, [sizes, matrix], matrix, "Reshape", [sizes.outputs[0]], [], names)


def _exchange(node: ir.Node, axis: int, rank: int, names: Names) -> None:
    """Look along the last axis of a transposed tensor, and transpose the result back."""
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    turned = ir.Node("", "Transpose", [node.inputs[0]], [ir.AttrInt64s("perm", order)])
    _name(turned, f"{node.outputs[0].name}.turned", names, node.outputs[0].dtype)
    _set_axis(node, rank - 1)
    _around(node, [turned], turned, "Transpose", [], [ir.AttrInt64s("perm", order)], names)


def _around(
    node: ir.Node,
    before: Sequence[ir.Node],
    gives: ir.Node,
    after: str,
    others: Sequence[ir.Value],
    attributes: Sequence[ir.Attr],
    names: Names,
) -> None:
    """Put nodes before a node, and one after it that gives what it gave."""
    graph, result = node.graph, node.outputs[0]
    assert graph is not None
    graph.insert_before(node, before)
    node.replace_input_with(0, gives.outputs[0])
    back = ir.Node("", after, [result, *others], attributes)
    graph.insert_after(node, back)
    rename(back.outputs[0], like=result)
    result.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
    back.replace_input_with(0, result)
    result.name, result.shape = names.fresh(f"{result.name}.inner"), None


def _name(node: ir.Node, wanted: str, names: Names, dtype: ir.DataType | None) -> None:
    value = node.outputs[0]
    value.name = names.fresh(wanted)
    value.type = None if dtype is None else ir.TensorType(dtype)
