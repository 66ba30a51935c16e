"""Operators that another version does not have, replaced by what ONNX defines them as."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.inliner
import onnx_ir as ir

from bnfold.contract.opsets import crosses, opset_of, own_nodes
from bnfold.contract.preparing import Preparation
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto

# With a scale for each group before this version, and one for each channel from there on.
_ANOTHER_MEANING_SINCE = {"GroupNormalization": 21}


def written_out(model: ir.Model, opset: int) -> tuple[ir.Model, tuple[str, ...]]:
    """Replace operators that a version does not have by what ONNX defines them as.

    Args:
        model: The model. It may be modified.
        opset: The version that is to have all of its operators.

    Returns:
        The model, and the operators that were replaced.
    """
    found: dict[str, None] = {}
    while missing := [name for name in _missing(model, opset) if name not in found]:
        at = Preparation(model, opset)
        computed = [at.compute(node) for node in list(own_nodes(model)) if node.op_type in missing]
        if all(computed):
            continue
        found |= dict.fromkeys(missing)
        _say_defaults(model, missing)
        ids = [("", name) for name in missing]
        proto = onnx.inliner.inline_selected_functions(to_proto(model), ids, inline_schema_functions=True)
        model = from_proto(proto)
    return model, tuple(found)


def _missing(model: ir.Model, opset: int) -> list[str]:
    """The operators that a version lacks or has with another meaning, and that ONNX defines by others."""
    now, names = opset_of(model), {node.op_type for node in own_nodes(model)}
    others = {name for name, since in _ANOTHER_MEANING_SINCE.items() if crosses(since, now, opset)}
    lacks = {name for name in names if not onnx.defs.has(name, opset)} | (names & others)
    absent = sorted(name for name in lacks if onnx.defs.has(name, now))
    schemas: list[Any] = [onnx.defs.get_schema(name, now) for name in absent]
    return [one.name for one in schemas if one.has_function or one.has_context_dependent_function]


def _say_defaults(model: ir.Model, names: list[str]) -> None:
    """Write down the attributes that nodes leave out: the inliner would take them for absent ones."""
    now = opset_of(model)
    for node in own_nodes(model):
        if node.op_type not in names:
            continue
        for name, attribute in onnx.defs.get_schema(node.op_type, now).attributes.items():
            default = attribute.default_value
            if name not in node.attributes and default.type != onnx.AttributeProto.UNDEFINED:
                made = ir.from_proto(default)
                assert isinstance(made, ir.Attr)
                node.attributes[name] = ir.Attr(name, made.type, made.value)
