"""Meeting `--opset` and `--ir-version`: the file has them, or the error says what prevents that."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from bnfold.errors import InputError, ModelError, reason

OLDEST = 7  # from here on, BatchNormalization has the meaning that bnfold's exports rely on
NATIVE = range(18, 26)  # what the exporter writes; for others the model is converted
OLDEST_IR = 4  # in version 3 every weight is an input that a caller may override
_PARKED = "bnfold.parked"
# Operators for which onnx's converter has no adapter between versions that differ only in the types they take
# or in optional inputs and attributes, and the opset from which this holds. The checker, at the end, checks
# the types, the inputs and the attributes.
_ALIKE = {
    **dict.fromkeys(("BatchNormalization", "Relu", "Add", "Sub", "Mul", "Div"), 7),
    **dict.fromkeys(("CumSum", "Pad"), 11),
    "Split": 13,
}


def check(opset: int | None, ir_version: int | None) -> None:
    """Refuse versions that do not exist, before any work is spent on them.

    Raises:
        InputError: Says which there are.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise InputError(f"Opset {opset} cannot be exported to.", f"Take one from {OLDEST} to {newest}.")
    if ir_version is None:
        return
    if not OLDEST_IR <= ir_version <= onnx.IR_VERSION:
        raise InputError(
            f"IR version {ir_version} cannot be written.",
            f"Take one from {OLDEST_IR} to {onnx.IR_VERSION}.",
        )


def set_ir_version(model: ir.Model, version: int) -> None:
    """Set the IR version of `model`, if its opset allows that.

    Raises:
        InputError: The opset needs a newer one; says which opset would fit.
    """
    opset = model.graph.opset_imports.get("", OLDEST)
    table = onnx.helper.OP_SET_ID_VERSION_MAP  # the IR version that each opset came with
    needed = table["ai.onnx", opset]
    if version < needed:
        fitting = max(n for (domain, n), came in table.items() if domain == "ai.onnx" and came <= version)
        raise InputError(
            f"Opset {opset} needs IR version {needed} or newer, and {version} was requested.",
            f"Add --opset {fitting}, or take --ir-version {needed}.",
        )
    model.ir_version = version


def convert(model: ir.Model, opset: int) -> ir.Model:
    """Give `model` an opset that the exporter does not write itself.

    To older ones with onnx's own converter, which drops node metadata; that is put back. To newer ones if no
    operator of the model has changed in between.

    Raises:
        ModelError: That is not possible; names the operator.
    """
    if opset > NATIVE[-1]:
        return _raise(model, opset)
    origin = {node.outputs[0].name: dict(node.metadata_props) for node in model.graph if node.outputs}
    for node in _alike(model, "", opset):
        node.domain = _PARKED
    model.graph.opset_imports[_PARKED] = 1
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), opset))
        for node in _alike(converted, _PARKED, opset):
            node.domain = ""
        converted.graph.opset_imports.pop(_PARKED, None)
        _drop_newer_defaults(converted, opset)
        onnx.checker.check_model(ir.to_proto(converted))
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"The model cannot be converted to opset {opset}: {_problem(error, model, opset)}.",
            "Leave --opset out, or take a newer one.",
        ) from error
    for node in converted.graph:
        node.metadata_props.update(origin.get(node.outputs[0].name, {}))
    return converted


def _problem(error: Exception, model: ir.Model, opset: int) -> str:
    """What the converter says, with the operator, which it sometimes leaves out."""
    said = _said(error)
    nodes = [node for node in model.graph.all_nodes() if not node.domain]
    if any(node.op_type in said for node in nodes):
        return said
    culprit = next((node.op_type for node in nodes if _complaint(node, opset) == said), None)
    return f"{culprit}: {said}" if culprit else said


def _said(error: Exception) -> str:
    return reason(error).rpartition(" failed: ")[2]  # without the line of onnx's source


def _complaint(node: ir.Node, opset: int) -> str | None:
    """What onnx's converter says of this node by itself."""
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return None  # its body may read values of the outer graph
    values = list(dict.fromkeys(value for value in node.inputs if value is not None))
    alone = onnx.helper.make_graph(
        [ir.to_proto(node)],
        "alone",
        [ir.to_proto(value) for value in values if value.const_value is None],
        [ir.to_proto(value) for value in node.outputs],
        [ir.to_proto(value.const_value) for value in values if value.const_value is not None],
    )
    imports = [onnx.helper.make_opsetid("", node.version or NATIVE[0])]
    try:
        onnx.version_converter.convert_version(onnx.helper.make_model(alone, opset_imports=imports), opset)
    except RuntimeError as error:
        return _said(error)
    return None


def _raise(model: ir.Model, opset: int) -> ir.Model:
    now = model.graph.opset_imports[""]
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        first = onnx.defs.get_schema(node.op_type, opset).since_version
        if first > now:
            raise ModelError(
                f"The model cannot be converted to opset {opset}: {node.op_type} changed in opset {first}.",
                f"Leave --opset out, or take {first - 1} or older.",
            )
    model.graph.opset_imports[""] = opset
    return model


def _alike(model: ir.Model, domain: str, opset: int) -> list[ir.Node]:
    newest = onnx.defs.onnx_opset_version()
    nodes = model.graph.all_nodes()
    return [n for n in nodes if n.domain == domain and _ALIKE.get(n.op_type, newest + 1) <= opset]


def _drop_newer_defaults(model: ir.Model, opset: int) -> None:
    """Remove attributes that the converter left and `opset` does not know, if they have the default value.

    `ReduceMean` keeps `noop_with_empty_axes=0` of opset 18 when it is converted to 17, for instance.
    """
    for node in model.graph.all_nodes():
        if node.domain or not onnx.defs.has(node.op_type, opset):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        newer = onnx.defs.get_schema(node.op_type, NATIVE[0]).attributes
        for name in [name for name in node.attributes if name not in known and name in newer]:
            default = ir.from_proto(newer[name].default_value)
            if isinstance(default, ir.Attr) and default.value == node.attributes[name].value:
                del node.attributes[name]
