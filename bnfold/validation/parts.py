"""Two models without the operators that nobody here can run, so that the rest of them is compared.

Where ONNX Runtime cannot load a model because of operators of other people's domains, each of these is taken
out of both models: what it reads becomes outputs, and what it computes becomes inputs, for which values are
drawn that both models are given alike. If these parts agree and the operators have the same attributes, the
whole models agree, whatever the operators compute. Where the model does not say of which type and shape that
is, values like those of the operator's first input are tried. What none can be drawn for is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import onnx.defs
import onnx_ir as ir

from bnfold.errors import InputError, ModelError, listed
from bnfold.graph.nodes import captured, label
from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.graph.shape_inference import Dims, infer
from bnfold.inputs.values import DRAWN
from bnfold.runtime.interface import dtype_name
from bnfold.validation.cutting import expose, inlined, keep_record, signature, with_bodies
from bnfold.validation.results import Validation

Draw: TypeAlias = Literal["likely", "recorded", "none"]
_LEARNING_DOMAINS = frozenset({"ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"})
_RUNTIME_DOMAINS = ("com.microsoft", "com.ms.")  # and all that begin with them


@dataclass(frozen=True)
class Parts:
    """What is left of two models.

    Attributes:
        original: The original without the operators; it has no outputs where nothing is left.
        folded: The folded model likewise, with inputs and outputs of the same names.
        operators: The operators that were taken out.
        drawn: Those of them in whose place values are drawn.
        unseen: The outputs of the models that cannot be compared.
        problems: A sentence on every operator that is not the same in both models.
    """

    original: ir.Model
    folded: ir.Model
    operators: tuple[str, ...]
    drawn: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def note(self, error: ModelError) -> str:
        """What was not run, and why, and how much was compared all the same."""
        it, its = ("it", "its") if len(self.operators) == 1 else ("them", "their")
        found = f"{error.problem.rstrip('.')}. So {listed(self.operators)} was not run."
        found += f" What stands before {it} was compared up to {its} inputs"
        if self.drawn:
            found += f", and what stands behind {listed(self.drawn)} from values drawn in place of outputs"
        if self.unseen:
            found += f". These outputs were not compared: {listed(self.unseen)}"
        return f"{found}."


def compare_parts(
    original: ir.Model,
    folded: ir.Model,
    error: ModelError,
    compare: Callable[[ir.Model, ir.Model], Validation],
    *,
    draws: Sequence[Draw],
) -> Validation | None:
    """Compare what is left of two models without the operators that nobody can run.

    Args:
        original: The model before the fold, which ONNX Runtime does not load.
        folded: The model after it, with inputs and outputs of the same names.
        error: Why ONNX Runtime does not load the original.
        compare: Compares two models that ONNX Runtime may load.
        draws: For which outputs of the operators values may be drawn; the first that the models accept.

    Returns:
        None where there is no such operator, so that something else is the cause.

    Raises:
        ModelError: Nothing is left that could be compared.
    """
    sides = [_Side(model) for model in (original, folded)]
    if not sides[0].foreign:
        return None
    parts = _parts(sides[0], sides[1], draws[0])
    if parts.problems:
        return Validation((), problems=parts.problems, notes=(parts.note(error),))
    if not parts.original.graph.outputs:
        raise error
    keep_record(original, folded, parts.original, parts.folded)
    try:
        found = compare(parts.original, parts.folded)
    except InputError:
        if not draws[1:]:
            raise
        # recorded sizes may be stale, and those of the first input another operator's
        return compare_parts(original, folded, error, compare, draws=draws[1:])
    return replace(found, oracle=f"{parts.note(error)} {found.oracle}".strip(), not_run=parts.unseen)


def _parts(before: _Side, after: _Side, draw: Draw) -> Parts:
    pairs, problems = _paired(before.foreign, after.foreign)
    operators = tuple(_described(node) for node in before.foreign)
    parts = Parts(before.model, after.model, operators, problems=tuple(problems))
    if problems:
        return parts
    labels = [label(node) for node in before.foreign]
    names = [f"{one} ({n})" if labels.count(one) > 1 else one for n, one in enumerate(labels)]
    shapes, dtypes = infer(before.model, scopes(before.model))
    drawn: dict[str, None] = {}
    unseen: dict[str, None] = {}
    for number, ((one, other), operator) in enumerate(zip(pairs, operators, strict=True)):
        for place, value in enumerate(one.outputs):
            like = _like(value, one, shapes, dtypes) if draw == "likely" else _recorded(value)
            fresh = None
            if like is not None and draw != "none":
                fresh = ir.Value(name=f"output {place} of {names[number]}", type=like.type, shape=like.shape)
            for side, node in ((before, one), (after, other)):
                side.replace(node.outputs[place], fresh)
            if fresh is not None:
                drawn[operator] = None
        if signature(one) != signature(other):
            unseen[f"what is inside {operator}"] = None
    for side in (before, after):
        unseen |= dict.fromkeys(side.spread())
    for number, (one, other) in enumerate(pairs):
        for place, (old, new) in enumerate(zip(_reads(one), _reads(other), strict=True)):
            if old is not None and new is not None and not (before.lacks(old) or after.lacks(new)):
                name = f"input {place} of {names[number]}"
                expose(before.model.graph, old, name, dtypes.get(old))
                expose(after.model.graph, new, name, dtypes.get(old))
    for side in (before, after):
        side.finish(unseen)
    return replace(parts, drawn=tuple(drawn), unseen=tuple(unseen))


class _Side:
    """A copy of one model, out of which operators are taken."""

    def __init__(self, model: ir.Model) -> None:
        self.model = inlined(model)
        self.foreign = [node for node in self.model.graph if any(map(_is_foreign, with_bodies(node)))]
        self._dead: set[ir.Value] = set()
        self._lost = dict.fromkeys(self.foreign)

    def replace(self, value: ir.Value, fresh: ir.Value | None) -> None:
        """Put an input like `fresh` in place of what an operator computes; without one its readers go too."""
        graph = self.model.graph
        if fresh is None or value.is_graph_output():
            self._dead.add(value)
        if fresh is not None:
            given = ir.Value(name=fresh.name, type=fresh.type, shape=fresh.shape)
            readers = value.uses()
            for node, index in readers:
                node.replace_input_with(index, given)
            if readers:
                graph.inputs.append(given)

    def spread(self) -> Iterator[str]:
        """Find what depends on values that nothing computes any more; the graph's outputs among it."""
        for node in self.model.graph:
            if self._dead.intersection((*node.inputs, *captured(node))):
                self._lost[node] = None
                self._dead.update(node.outputs)
        return (value.name or "" for value in self.model.graph.outputs if value in self._dead)

    def lacks(self, value: ir.Value) -> bool:
        """Whether nothing computes a value any more."""
        return value in self._dead

    def finish(self, unseen: Collection[str]) -> None:
        """Remove what is lost, and the outputs that cannot be compared."""
        graph = self.model.graph
        kept = [value for value in graph.outputs if value.name not in unseen]
        graph.outputs.clear()
        graph.outputs.extend(kept)
        graph.remove(self._lost, safe=True)


def _is_foreign(node: ir.Node) -> bool:
    """Whether the operator is neither ONNX's nor ONNX Runtime's."""
    if node.domain in ONNX_DOMAINS:
        return not onnx.defs.has(node.op_type)
    return node.domain not in _LEARNING_DOMAINS and not node.domain.startswith(_RUNTIME_DOMAINS)


def _described(node: ir.Node) -> str:
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} ({label(node)})"


def _reads(node: ir.Node) -> list[ir.Value | None]:
    """What a node reads; of what its bodies capture, only what is computed: a fold changes constants."""
    return [*node.inputs, *dict.fromkeys(value for value in captured(node) if value.const_value is None)]


def _paired(
    before: Sequence[ir.Node], after: Sequence[ir.Node]
) -> tuple[list[tuple[ir.Node, ir.Node]], list[str]]:
    """The folded model's operator for each of the original's: by what it computes, else by its place.

    Returns:
        The pairs, and a sentence on everything that is not the same in both.
    """
    by_name = {_computes(node): node for node in after}
    if by_name.keys() == {_computes(node) for node in before}:
        after = [by_name[_computes(node)] for node in before]
    if [_form(node) for node in before] != [_form(node) for node in after]:
        old, new = (listed(tuple(map(_described, found))) or "none" for found in (before, after))
        return [], [f"Of operators that nobody here can run, the folded model has {new} instead of {old}."]
    pairs = list(zip(before, after, strict=True))
    changed = [one for one, other in pairs if signature(one) != signature(other) and _is_foreign(one)]
    return pairs, [f"{_described(one)} has other attributes in the folded model." for one in changed]


def _computes(node: ir.Node) -> tuple[str | None, ...]:
    return tuple(value.name for value in node.outputs)


def _form(node: ir.Node) -> tuple[object, ...]:
    reads = [value is not None for value in _reads(node)]
    return node.domain, node.op_type, reads, len(node.outputs)


def _recorded(value: ir.Value) -> ir.Value | None:
    """The value, if the model says what it is like and NumPy can hold it."""
    known = value.dtype is not None and value.shape is not None and dtype_name(value.dtype) in DRAWN
    return value if known else None


def _like(
    value: ir.Value,
    node: ir.Node,
    shapes: Mapping[ir.Value, Dims],
    dtypes: Mapping[ir.Value, ir.DataType],
) -> ir.Value | None:
    """What a value is recorded to be like, otherwise the node's first input."""
    first = node.inputs[0] if node.inputs else None
    if _recorded(value) or first is None or first not in shapes or first not in dtypes:
        return _recorded(value)
    return _recorded(ir.Value(name="", type=ir.TensorType(dtypes[first]), shape=ir.Shape(shapes[first])))
