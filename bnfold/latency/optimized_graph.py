"""What ONNX Runtime makes of a model before it runs it: nodes, the bytes that they move, multiply-adds.

A fold can be exact and still make a model slower, by taking apart what the runtime would have run as one
operator. The runtime's optimizer shows that without a clock: its graph is written down, without the weights,
and counted. Nothing is run.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from bnfold.graph.facts import Facts
from bnfold.graph.scopes import nodes
from bnfold.oracle.multiply_adds import of_graph
from bnfold.runtime.interface import as_ir
from bnfold.runtime.sessions import ModelLike, loadable, session

WHOLE = frozenset(
    """
    Attention BiasGelu FastGelu Gelu GroupNorm LayerNormalization MultiHeadAttention QuickGelu
    RotaryEmbedding SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization
    """.split()  # noqa: SIM905 - a list of strings would be twelve lines long
)
"""Operators that the optimizer makes of formulas that are written out."""

SLACK = 1e-3
"""By what part bytes and multiply-adds may grow: a new bias here and there is not what slows a model down."""

_OPEN = 16  # what a dimension of unknown size counts as, in both models alike
_MEMORY = Path("/dev/shm")  # a file system in memory, where there is one


@dataclass(frozen=True)
class OptimizedGraph:
    """What a runtime's own graph of a model amounts to.

    Attributes:
        nodes: Nodes at the optimizer's default level, which chooses layouts for this CPU.
        extended_nodes: Nodes at the extended level, which does not depend on the CPU.
        bytes: What the nodes at the extended level read and write, weights included; a dimension that the
            model leaves open counts as 16. None where a size does not follow from the inputs: then the two
            models could not be compared.
        multiply_adds: Of their convolutions and matrix products, with open dimensions alike; None where the
            runtime does not say a shape.
        whole: How many nodes at the extended level stand for a formula that is written out, by operator.
    """

    nodes: int
    extended_nodes: int
    bytes: int | None
    multiply_adds: int | None
    whole: Mapping[str, int] = field(default_factory=dict)


def optimized_graph(model: ModelLike, provider: str = "cpu") -> OptimizedGraph:
    """Let ONNX Runtime optimise a model, and count what comes out.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model`.
        provider: Whose optimizers take part.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: ONNX Runtime cannot load the model.
    """
    with loadable(_with_shapes(as_ir(model))) as source:
        default = _optimized(source, provider, "ORT_ENABLE_ALL")
        extended = _optimized(source, provider, "ORT_ENABLE_EXTENDED")
    extended_nodes = list(_nodes(extended.graph))
    return OptimizedGraph(
        nodes=sum(1 for _ in _nodes(default.graph)),
        extended_nodes=len(extended_nodes),
        bytes=_moved(extended.graph),
        multiply_adds=of_graph(extended.graph, {}),
        whole=Counter(node.op_type for node in extended_nodes if node.op_type in WHOLE),
    )


def what_grew(before: OptimizedGraph, after: OptimizedGraph) -> tuple[str, ...]:
    """What a fold made worse, as words for a sentence; empty where it made nothing worse."""
    grown = []
    if after.nodes > before.nodes or after.extended_nodes > before.extended_nodes:
        more = max(after.nodes - before.nodes, after.extended_nodes - before.extended_nodes)
        grown.append(f"{more} more node{'s' if more > 1 else ''}")
    for name, one, other in (
        ("bytes read and written", before.bytes, after.bytes),
        ("multiply-adds", before.multiply_adds, after.multiply_adds),
    ):
        if one is not None and other is not None and other > one * (1 + SLACK):
            grown.append(f"{other / one - 1:.1%} more {name}")
    lost = sum(before.whole.values()) - sum(after.whole.values())
    if lost > 0:
        kinds = sorted(kind for kind in before.whole if before.whole[kind] > after.whole.get(kind, 0))
        grown.append(f"{lost} fewer {' and '.join(kinds)}")
    return tuple(grown)


def _with_shapes(model: ir.Model) -> ir.Model:
    """A copy that records every inferred shape: the optimizer writes down those that its source records."""
    copy = model.clone()
    facts = Facts(copy)
    for node in nodes(copy):
        for value in node.outputs:
            shape, dtype = facts.shape(value), facts.dtype(value)
            if shape is not None and dtype is not None and value.name and not value.is_graph_output():
                value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
    return copy


def _optimized(model: str | bytes, provider: str, level: str) -> onnx.ModelProto:
    """The graph at one level; its weights are not kept where a system can throw them away."""
    place = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="bnfold-", dir=place) as name:
        folder = Path(name)
        with contextlib.suppress(
            OSError
        ):  # Windows may not allow links; the weights are then beside the graph
            (folder / "weights").symlink_to(os.devnull)

        def write_down(options: Any) -> None:
            options.graph_optimization_level = getattr(type(options.graph_optimization_level), level)
            options.optimized_model_filepath = str(folder / "graph.onnx")
            entry = options.add_session_config_entry
            entry("session.optimized_model_external_initializers_file_name", "weights")
            entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")

        session(model, provider=provider, optimized="default", threads=1, configure=write_down)
        graph = onnx.load(folder / "graph.onnx", load_external_data=False)
    dims = (dim for value in graph.graph.input for dim in value.type.tensor_type.shape.dim)
    _close(graph.graph, {dim.dim_param for dim in dims})
    return graph


def _close(graph: onnx.GraphProto, named: Collection[str]) -> None:
    """Give open dimensions of the inputs the size that they count as; a shape with any other is not known."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = value.type.tensor_type.shape
        if any(not dim.HasField("dim_value") and dim.dim_param not in named for dim in shape.dim):
            value.type.tensor_type.ClearField("shape")
        for dim in shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = _OPEN
    for body in _bodies(graph):
        _close(body, named)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from graph.node
    for body in _bodies(graph):
        yield from _nodes(body)


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The branches and loop bodies of a graph's own nodes."""
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    return (attribute.g for attribute in attributes if attribute.type == onnx.AttributeProto.GRAPH)


def _moved(graph: onnx.GraphProto, around: Mapping[str, int] | None = None) -> int | None:
    """The bytes of all that the nodes of a graph read and write, once each time; None without their sizes."""
    sizes = dict(around or {})
    for tensor in graph.initializer:
        sizes[tensor.name] = math.prod(tensor.dims) * _width(tensor.data_type)
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            dims = [dim.dim_value for dim in kind.shape.dim]
            sizes.setdefault(value.name, math.prod(dims) * _width(kind.elem_type))
    used = [name for node in graph.node for name in (*node.input, *node.output) if name]
    inner = [_moved(body, sizes) for body in _bodies(graph)]
    if not all(name in sizes for name in used) or None in inner:
        return None
    return sum(sizes[name] for name in used) + sum(moved or 0 for moved in inner)


def _width(data_type: int) -> int:
    """Bytes of one element, at least one."""
    return max(ir.DataType(data_type).bitwidth // 8, 1) if data_type not in (0, 8) else 1
