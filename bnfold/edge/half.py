"""Writing a model in half precision: ONNX Runtime's converter places the Casts, and its leftovers are tidied.

`onnxruntime.transformers.float16` is the copy of onnxconverter-common's converter that is kept up: it knows
about Casts and Resizes that are in the model (onnxconverter-common's issues 208 and 320) and takes the whole
range of float16. What it leaves: a Cast for each reader of one value, all of one name; a value that goes
through float16 between two nodes that stay in float32, where it may overflow; and weights in float16 for a
node in float32. Nothing that is installed converts to bfloat16, so its Casts and constants get that type
here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from bnfold.errors import MissingExtraError, ModelError, reason
from bnfold.files.external_data import exchange, self_contained, tensors
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.files.save import save_onnx
from bnfold.graph.facts import Facts
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.runtime.interface import as_ir

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_APART = 2**30  # bytes of weights from which on the converter gets a file
_STATED = ("to", "dtype")
_FLOAT_ONLY = {"Resize": {1, 2}, "Upsample": {1}}  # inputs that are float32 whatever the first is


def prepared(model: ir.Model) -> ir.Model:
    """A clone that the converter can take: no functions, no Constant nodes, a name for every node.

    Raises:
        ModelError: It has branches or loops, or is in half precision in part.
    """
    copy = self_contained(model)
    passes.InlinePass()(copy)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    for node in copy.graph:
        if any(
            one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for one in node.attributes.values()
        ):
            raise ModelError(
                f"{node.op_type} {node.name or ''} has a graph of its own, which is not converted.",
                "Export the model without branches and loops.",
            )
    if any(tensor.dtype in HALVES for tensor in tensors(copy)) or any(
        value.dtype in HALVES for value in (*copy.graph.inputs, *copy.graph.outputs)
    ):
        raise ModelError("The model is in half precision already, in part.", "Give the model in float32.")
    taken: set[str] = set()
    for number, node in enumerate(copy.graph):
        wanted = node.name or f"{node.op_type}_{number}"
        node.name = f"{wanted}_{number}" if wanted in taken else wanted
        taken.add(node.name)
    return copy


def unsupported(model: ir.Model, dtype: ir.DataType) -> dict[str, str]:
    """The nodes by name that have no such type at the model's opset, and why."""
    facts, found = Facts(model), {}
    for node in model.graph:
        values = [*node.inputs, *node.outputs]
        if not any(value is not None and facts.dtype(value) == ir.DataType.FLOAT for value in values):
            continue
        if node.domain not in ONNX_DOMAINS:
            found[str(node.name)] = f"{node.op_type} of {node.domain} is not in ONNX's standard"
        elif (version := facts.version(node)) and not _takes(node, version, dtype):
            later = next(
                (
                    one
                    for one in range(version, onnx.defs.onnx_opset_version() + 1)
                    if _takes(node, one, dtype)
                ),
                0,
            )
            name = dtype.name.lower()
            found[str(node.name)] = f"{node.op_type} has no {name} in opset {version}" + (
                f", but from opset {later} on" if later else ""
            )
    return found


def _takes(node: ir.Node, version: int, dtype: ir.DataType) -> bool:
    """Whether every input and output of a node that may be float32 may be of a type too."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    wanted = f"tensor({dtype.name.lower()})"
    fixed = _FLOAT_ONLY.get(node.op_type, set())
    ports = [port for at, port in enumerate(schema.inputs[: max(1, len(node.inputs))]) if at not in fixed]
    ports += schema.outputs[: len(node.outputs)]
    return all("tensor(float)" not in port.types or wanted in port.types for port in ports)


def to_half(
    model: ir.Model, dtype: ir.DataType, kept: Collection[str], operators: Collection[str], *, keep_io: bool
) -> ir.Model:
    """Convert a prepared model.

    Args:
        model: From [`prepared`][bnfold.edge.half.prepared]; it is not modified.
        dtype: `FLOAT16` or `BFLOAT16`.
        kept: Names of nodes that stay in float32.
        operators: Operators that stay in float32.
        keep_io: Whether inputs and outputs stay float32.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: The converter fails.
    """
    converter = _converter()
    with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
        source: Any = to_proto(model)
        if sum(tensor.nbytes for tensor in tensors(model)) > _APART:
            source = str(Path(folder) / "model.onnx")
            save_onnx(model, Path(source), external_data=True)
        try:
            made = converter.convert_float_to_float16(
                source,
                keep_io_types=keep_io,
                op_block_list=sorted({*operators}),
                node_block_list=sorted({*kept}),
            )
        except Exception as error:  # whatever the converter raises, assertions among it
            raise ModelError(
                f"ONNX Runtime's converter fails: {reason(error)}.",
                "Ask its makers; the model is not written.",
            ) from error
    _without_repeats(made)
    converted = as_ir(from_proto(made))
    stored = dict(model.graph.initializers)
    _without_detours(converted, stored)
    if dtype == ir.DataType.BFLOAT16:
        _to_bfloat16(converted, stored)
    return converted


def blocked_by_default() -> tuple[str, ...]:
    """The operators that the converter leaves in float32 unless asked otherwise."""
    return tuple(_converter().DEFAULT_OP_BLOCK_LIST)


def _converter() -> Any:
    try:
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "The conversion to half precision") from error
    return float16


def _without_repeats(proto: onnx.ModelProto) -> None:
    """Drop the Casts that the converter writes again for each reader of a value in float32."""
    seen: set[str] = set()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if node.op_type == "Cast" and node.output[0] in seen:
            continue
        seen.update(node.output)
        proto.graph.node.append(node)


def _casts(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Value, int]]:
    """Every Cast with what it reads and the type that it casts to."""
    for node in list(model.graph):
        if node.op_type == "Cast" and node.domain in ONNX_DOMAINS and node.inputs[0] is not None:
            yield node, node.inputs[0], node.attributes["to"].as_int()


def _without_detours(model: ir.Model, stored: Mapping[str, ir.Value]) -> None:
    """Let a node in float32 read what another computes in float32, and weights as they were stored."""
    facts = Facts(model)
    for node, value, to in _casts(model):
        if to != ir.DataType.FLOAT:
            continue
        first = value.producer()
        source = first.inputs[0] if first is not None and first.op_type == "Cast" else None
        if source is not None and facts.dtype(source) == ir.DataType.FLOAT:
            _let_read(node.outputs[0], source)
        elif value.is_initializer() and value.name in stored:
            whole = stored[str(value.name)].const_value
            assert whole is not None, "an initializer has a tensor"
            constant = ir.Value(name=f"{value.name}.float32", const_value=whole)
            constant.type, constant.shape = ir.TensorType(whole.dtype), ir.Shape(whole.shape.numpy())
            model.graph.register_initializer(constant)
            _let_read(node.outputs[0], constant)
    passes.RemoveUnusedNodesPass()(model)


def _let_read(cast: ir.Value, source: ir.Value) -> None:
    """Let all that reads a Cast's result read what it is made of; an output of the model keeps its name."""
    if not cast.is_graph_output():
        cast.replace_all_uses_with(source)
        return
    if source.producer() is None or source.is_graph_output():
        maker = cast.producer()
        assert maker is not None, "it is a Cast's"
        maker.replace_input_with(0, source)  # a Cast from float32 to float32, which does nothing
        return
    name, cast.name = cast.name, f"{cast.name}.cast"
    source.type, source.shape = cast.type, cast.shape
    cast.replace_all_uses_with(source, replace_graph_outputs=True)
    source.name = name


def _to_bfloat16(model: ir.Model, stored: Mapping[str, ir.Value]) -> None:
    """Let everything that is float16 be bfloat16, constants rounded from what was stored."""

    def coarser(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype != ir.DataType.FLOAT16:
            return tensor
        before = stored.get(str(tensor.name))
        whole = tensor if before is None or before.const_value is None else before.const_value
        array = whole.numpy().astype(ir.DataType.BFLOAT16.numpy())
        return ir.Tensor(array, dtype=ir.DataType.BFLOAT16, name=tensor.name)

    exchange(model, coarser)
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for value in (*values, *(value for node in model.graph for value in node.outputs)):
        if value.dtype == ir.DataType.FLOAT16:
            value.type = ir.TensorType(ir.DataType.BFLOAT16)
    for node in model.graph:
        for name in _STATED:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value == ir.DataType.FLOAT16:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.BFLOAT16))
