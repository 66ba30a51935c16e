"""The signatures of operators: how many inputs and outputs they have, and which attributes of which types.

Source: ONNX's own schemas, in the version that a model names.
"""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from bnfold.graph.scopes import ONNX_DOMAINS

_TYPES = {
    getattr(onnx.defs.OpSchema.AttrType, kind.name): kind
    for kind in ir.AttributeType
    if hasattr(onnx.defs.OpSchema.AttrType, kind.name)
}


@functools.lru_cache(maxsize=1024)
def _schema(operator: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, version, "")
    except (onnx.defs.SchemaError, TypeError, OverflowError):
        return None


@functools.lru_cache(maxsize=1024)
def _ever(operator: str) -> frozenset[str]:
    """The attributes of an operator in all its versions, of which exporters mix some."""
    every = _all_schemas().get(operator, ())
    return frozenset(name for schema in every for name in schema.attributes)


@functools.cache
def _all_schemas() -> dict[str, list[onnx.defs.OpSchema]]:
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in ONNX_DOMAINS:
            found.setdefault(schema.name, []).append(schema)
    return found


def signature_fault(node: ir.Node, version: int) -> str | None:
    """How a node contradicts its operator's signature, as the end of "has …"; None where it does not.

    Args:
        node: Of one of ONNX's own operators.
        version: The opset that it is of.
    """
    schema = _schema(node.op_type, version)
    if schema is None:
        return None
    given = max((place + 1 for place, value in enumerate(node.inputs) if value is not None), default=0)
    if given > schema.max_input or len(node.inputs) < schema.min_input:
        return f"{given} inputs where it takes {_between(schema.min_input, schema.max_input)}"
    if len(node.outputs) > schema.max_output:
        return f"{len(node.outputs)} outputs where it gives {schema.max_output}"
    for place, (value, formal) in enumerate(zip(node.inputs, schema.inputs, strict=False)):
        if value is None and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            return f"no input {place}, {formal.name}"
    for name, attribute in node.attributes.items():
        known = schema.attributes.get(name)
        if known is None and name not in _ever(node.op_type) and not name.startswith("__"):
            return f"an attribute {name}, which {node.op_type} does not have"  # "__": of a runtime
        wanted = attribute.type if known is None else _TYPES.get(known.type, attribute.type)
        if wanted != attribute.type:
            return f"an attribute {name} of type {attribute.type.name} in place of {wanted.name}"
    needed = (
        name for name, known in schema.attributes.items() if known.required and name != "consumed_inputs"
    )
    absent = next((name for name in needed if name not in node.attributes), None)  # nobody wrote that one
    return None if absent is None else f"no attribute {absent}"


def _between(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} or more" if high >= 2**31 - 1 else f"{low} to {high}"
