"""Names of values: new ones, and one value standing under the name of another."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.graph.scopes import nodes, scopes

QUANTIZATION = "quant_parameter_tensor_names"  # under which onnx_ir keeps a value's quantization annotation


def can_stand_for(source: ir.Value, result: ir.Value) -> bool:
    """Whether a value can take the place and the name of another that is an output of its graph."""
    producer, maker = source.producer(), result.producer()
    own = producer is not None and maker is not None and producer.graph is maker.graph
    return not result.is_graph_output() or (own and not source.is_graph_output())


def rename(value: ir.Value, like: ir.Value) -> None:
    """Give a value the name, type and shape under which readers and callers know another."""
    value.name, value.type, value.shape = like.name, like.type, like.shape
    value.doc_string = like.doc_string
    value.metadata_props.update(like.metadata_props)
    value.meta.pop(QUANTIZATION, None)
    if QUANTIZATION in like.meta:
        value.meta[QUANTIZATION] = like.meta[QUANTIZATION]


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of a value read another, under the name that callers know."""
    if old.is_graph_output():
        rename(new, like=old)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def annotated(model: ir.Model) -> set[str]:
    """The initializers that quantization annotations name."""
    values = (value for node in nodes(model) for value in node.outputs)
    return {name for value in values for name in (value.meta.get(QUANTIZATION) or {}).values()}


class Names:
    """Gives names that nothing in a model has yet.

    Attributes:
        original: The names that the model had at the start.
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        self._count: dict[str, int] = {}
        for scope in scopes(model):
            self._taken.update(value.name or "" for value in scope.graph.inputs)
            self._taken.update(scope.graph.initializers)
            for node in scope.graph:
                self._taken.add(node.name or "")
                self._taken.update(output.name or "" for output in node.outputs)
        self.original = frozenset(self._taken - {""})

    def fresh(self, wanted: str) -> str:
        """Return `wanted`, with a number appended where it is taken, and remember it as taken."""
        name, count = wanted, self._count.get(wanted, 1)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        self._count[wanted] = count
        return name
