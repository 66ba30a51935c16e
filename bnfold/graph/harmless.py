"""Models that are only inferred, without what ends the process in the inference of onnx 1.23."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import onnx
from onnx.defs import OpSchema

from bnfold.graph.scopes import ONNX_DOMAINS

GUARDED = "bnfold.guarded"
"""The domain of operators whose inference is asked only where it can answer."""

_CRASHING = frozenset({"DictVectorizer", "LabelEncoder", "RegexFullMatch"})
# their inference reads the type of an input without asking whether there is one
_GUARDED_SLICE = "GuardedSlice"  # onnx.reference demands that a name is of one domain only
_SLICE = "Slice"
# its inference cuts between 0 and a size, which is negative after a window that is larger than its input
_OF_SHAPES = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Shape", "Size", "Slice", "Squeeze", "Sub"}
    | {"Unsqueeze"}
)  # of their values inference follows the numbers, which it does for ONNX's own operators only


def harmless(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Change what ends the process in a model that is only inferred.

    Some operators lose their inputs: it knows nothing of what they give then; the types that the file records
    of it are not touched. A Slice becomes one whose inference is not asked where a size is negative.
    """
    is_guarded = _protect(proto.graph.node, frozenset(one.name for one in proto.graph.initializer))
    for function in proto.functions:
        is_guarded |= _protect(function.node, frozenset())
    if is_guarded:
        for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
            version = next((one.version for one in imports if one.domain in ONNX_DOMAINS), 1)
            imports.add(domain=GUARDED, version=max(1, version))
        _register()
    return proto


def _protect(nodes: Iterable[onnx.NodeProto], shapes: frozenset[str]) -> bool:
    """Change the nodes of a graph and of all within; whether any is guarded now.

    Args:
        nodes: In topological order.
        shapes: Names of values outside that are constant, or computed from shapes.
    """
    own, is_guarded = set(shapes), False
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    known = own - {one.name for one in graph.input} | {one.name for one in graph.initializer}
                    is_guarded |= _protect(graph.node, frozenset(known))
        if node.op_type in _CRASHING:
            node.ClearField("input")
        is_plain = node.domain in ONNX_DOMAINS
        if is_plain and node.op_type == _SLICE and not own.issuperset(node.input[:1]):
            node.domain, node.op_type, is_guarded = GUARDED, _GUARDED_SLICE, True
        is_shape = node.op_type in ("Shape", "Size", "Constant") or own.issuperset(node.input)
        if is_plain and is_shape and node.op_type in _OF_SHAPES | {"Constant"}:
            own.update(node.output)
        else:
            own.difference_update(node.output)
    return is_guarded


@functools.cache
def _register() -> None:
    """Make the guarded operators known to onnx, as of each version of ONNX's own."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.name == _SLICE and schema.domain in ONNX_DOMAINS:
            guarded = OpSchema(
                _GUARDED_SLICE,
                GUARDED,
                schema.since_version,
                inputs=schema.inputs,
                outputs=schema.outputs,
                attributes=list(schema.attributes.values()),
                type_constraints=[
                    (one.type_param_str, list(one.allowed_type_strs), one.description)
                    for one in schema.type_constraints
                ],
            )
            answer = functools.partial(_answered, schema.get_type_and_shape_inference_function())
            guarded.set_type_and_shape_inference_function(answer)
            onnx.defs.register_schema(guarded)


def _answered(infer: Callable[[Any], None], node: Any) -> None:
    """Let an operator's own inference answer, unless a size of its input is negative."""
    kind = node.get_input_type(0)
    if kind is not None and any(size.dim_value < 0 for size in kind.tensor_type.shape.dim):
        return
    with contextlib.suppress(Exception):  # what does not fit; the shape then stays unknown
        infer(node)
