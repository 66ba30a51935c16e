"""Taking operators out of a model: what one reads becomes outputs, and what it computes becomes inputs."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bnfold.folding import record
from bnfold.graph.scopes import subgraphs


def inlined(model: ir.Model) -> ir.Model:
    """A copy without functions, in order, so that operators inside them can be taken out."""
    copy = model.clone()
    if copy.functions:
        InlinePass()(copy)
    copy.graph.sort()
    return copy


def with_bodies(node: ir.Node) -> Iterator[ir.Node]:
    """A node and all nodes of its subgraphs."""
    yield node
    for attribute in node.attributes.values():
        for graph in subgraphs(attribute):
            yield from graph.all_nodes()


def signature(node: ir.Node) -> bytes:
    """The operator with its attributes, whatever its values are named."""
    proto = ir.serde.serialize_node(node)
    bare = onnx.NodeProto(domain=proto.domain, op_type=proto.op_type)
    bare.attribute.extend(sorted(proto.attribute, key=lambda attribute: attribute.name))
    return bytes(bare.SerializeToString(deterministic=True))


def expose(graph: ir.Graph, value: ir.Value, name: str, dtype: ir.DataType | None) -> None:
    """Make a value an output of this name."""
    node = ir.node("Identity", [value])
    output = node.outputs[0]
    output.name, output.type = name, value.type if dtype is None else ir.TensorType(dtype)
    graph.append(node)
    graph.outputs.append(output)


def keep_record(original: ir.Model, folded: ir.Model, cut: ir.Model, cut_folded: ir.Model) -> None:
    """Let a fold be known as one after the same operators were taken out of both models.

    The graphs are others then, and what their names say is the same.
    """
    if record.is_fold_of(folded, original) and not original.functions:
        record.write(cut_folded, record.digest(cut), record.names(cut), ())
