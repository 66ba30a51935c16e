"""Evaluating a graph node by node; a value is dropped after its last reader."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx

from bnfold.errors import BnfoldError, InputError, reason
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle import by_rows
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import NARROW, Array, Call, Operator, Refusal, array_of, attributes_of, widen
from bnfold.oracle.prepare import SMALLEST, Readers
from bnfold.oracle.weights import Weight

See: TypeAlias = Callable[[str, Any], Any]
Ask: TypeAlias = Callable[[onnx.NodeProto, Sequence[Any], str], Sequence[Any] | None]
"""Gives the outputs of a node that cannot be evaluated, from its inputs and the reason; or None."""


class NotEvaluableError(BnfoldError):
    """A model, or a node of it, that the float64 oracle cannot evaluate."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, 'Compare in float32 instead: type "--oracle off".')


@dataclass(frozen=True)
class _Step:
    """One node, its function, what it and its subgraphs read, and what nothing reads after it."""

    call: Call
    function: Operator
    bodies: Mapping[str, Evaluator]
    reads: frozenset[str]
    drops: list[str] = field(default_factory=list)


class Evaluator:
    """One graph, or the body of a control-flow node, prepared for evaluation.

    Args:
        graph: The graph, with floats of any type; they are widened when they are read.
        opsets: Version of each domain's operator set.
        weights: Functions that read the inputs that are weights, unless such an input is fed.
        choose: Finds the function that evaluates a node.
        ask: Where to get the outputs of nodes that cannot be evaluated.

    Attributes:
        largest: Bytes of the largest value that any evaluation so far computed.

    Raises:
        NotEvaluableError: A node has no implementation in float64, and nobody can be asked.
    """

    largest = 0

    def __init__(
        self,
        graph: onnx.GraphProto,
        opsets: Mapping[str, int],
        weights: Readers | None = None,
        choose: Callable[[Call], Operator] = operator,
        ask: Ask | None = None,
    ) -> None:
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self._ask = ask
        small = {tensor.name for tensor in graph.initializer if tensor.ByteSize() <= SMALLEST}
        large = [(tensor.name, tensor) for tensor in graph.initializer if tensor.name not in small]
        large += [held for node in graph.node for held in _large_constant(node)]
        self._constants = {t.name: array_of(t) for t in graph.initializer if t.name in small}
        self._weights: dict[str, Callable[[], Array]] = {
            **{name: partial(array_of, tensor) for name, tensor in large},
            **(weights or {}),
        }
        for node in graph.node:
            # Exporters write an Identity for each place of a shared weight: its copies are not kept either.
            if node.op_type == "Identity" and node.domain in ONNX_DOMAINS and node.input[0] in self._weights:
                self._weights[node.output[0]] = self._weights[node.input[0]]
        self._steps = [_prepared(node, opsets, choose, ask) for node in graph.node]
        own = {
            *self.inputs,
            *(t.name for t in graph.initializer),
            *(name for node in graph.node for name in node.output),
        }
        self.captured = frozenset().union(self.outputs, *(step.reads for step in self._steps)) - own
        self._plan_drops()

    def _plan_drops(self) -> None:
        last = {name: step for step in self._steps for name in (*step.call.node.output, *step.reads)}
        for name, step in last.items():
            if name and name not in self.outputs:
                step.drops.append(name)

    def run(
        self, feeds: Mapping[str, Any], around: Mapping[str, Any] | None = None, see: See | None = None
    ) -> list[Any]:
        """The outputs of the graph in order.

        Args:
            feeds: Values by name, already widened.
            around: Values of the graph that this one is part of.
            see: Called with the name and value of everything that a node computes; what it returns, unless
                None, replaces the value for all readers.
        """
        steps, seen = self.steps(feeds, around), None
        while True:
            try:
                name, value = steps.send(seen)
            except StopIteration as stop:
                outputs: list[Any] = stop.value
                return outputs
            seen = see(name, value) if see and name else None

    def steps(
        self, feeds: Mapping[str, Any], around: Mapping[str, Any] | None = None
    ) -> Generator[tuple[str, Any], Any, list[Any]]:
        """Evaluate one node after the other.

        Args:
            feeds: As for `run`.
            around: As for `run`.

        Yields:
            The name and value of everything that a node computes. What is sent in return, unless None,
            replaces the value for all readers.

        Returns:
            The outputs of the graph in order.
        """
        values: dict[str, Any] = {**self._constants, **feeds}
        others = set(feeds)  # whose values are neither what the model stores nor copies of it
        for step in self._steps:
            # A weight is read again by its next reader, which is cheap next to keeping it in double, and is
            # forgotten before others look at the results: they may evaluate another model meanwhile.
            large = self._large(step, values)
            reads = step.reads - {step.call.node.input[1]} if large else step.reads
            weights = self._fetch(reads, values, around or {})
            results = _results(step, values, self._ask, large)
            for name in weights:
                del values[name]
            for name, result in results:
                self.largest = max(self.largest, getattr(result, "nbytes", 0))
                other = yield name, result
                values[name] = result if other is None else other
                if name not in self._weights:
                    continue
                if other is None and others.isdisjoint(step.call.node.input):
                    del values[name]
                else:
                    others.add(name)
            for name in step.drops:
                values.pop(name, None)
        self._fetch(self.outputs, values, around or {})
        return [values[name] for name in self.outputs]

    def _large(self, step: _Step, values: Mapping[str, Any]) -> Weight | None:
        """The weight of a node that is read some rows at a time while it is evaluated."""
        names = step.call.node.input
        if len(names) < 2 or names[1] in values or list(names).count(names[1]) > 1:
            return None
        return by_rows.large_weight(step.call, self._weights.get(names[1]))

    def _fetch(self, names: Iterable[str], values: dict[str, Any], around: Mapping[str, Any]) -> list[str]:
        """Get the values that are read here but neither fed nor computed here; those that are weights."""
        read = []
        for name in names:
            if name not in values:
                stored = self._weights.get(name)
                if stored is None and name not in around:
                    raise NotEvaluableError(f"The model reads {name}, which is not computed anywhere.")
                values[name] = around[name] if stored is None else stored()
                read += [] if stored is None else [name]
        return read


def _large_constant(node: onnx.NodeProto) -> list[tuple[str, onnx.TensorProto]]:
    """The output of a `Constant` and what it holds, if that is worth reading again for each reader."""
    held = [a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"]
    return [(node.output[0], tensor) for tensor in held if tensor.ByteSize() > SMALLEST]


def _prepared(
    node: onnx.NodeProto,
    opsets: Mapping[str, int],
    choose: Callable[[Call], Operator],
    ask: Ask | None,
) -> _Step:
    domain = "" if node.domain in ONNX_DOMAINS else node.domain
    call = Call(node, opsets.get(domain, 1), attributes_of(node))
    bodies = {
        attribute.name: Evaluator(attribute.g, opsets, choose=choose, ask=ask)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    }
    reads = {name for name in node.input if name}.union(*(body.captured for body in bodies.values()))
    try:
        function = choose(call)
    except Refusal as refusal:
        if ask is None:
            raise _refused(node, str(refusal)) from refusal
        function = partial(_refuse, refusal)
    return _Step(call, function, bodies, frozenset(reads))


def _refuse(refusal: Refusal, *_: Any, **__: Any) -> Any:
    raise refusal


def _results(
    step: _Step, values: Mapping[str, Any], ask: Ask | None, large: Weight | None
) -> Iterator[tuple[str, Any]]:
    """The outputs of one node by name; the name is empty where nothing reads them.

    `large` is the weight that is not among the values.
    """
    node = step.call.node
    inputs = [
        large if large and place == 1 else values[name] if name else None
        for place, name in enumerate(node.input)
    ]
    try:
        results = _evaluated(step, inputs, values)
    except NotEvaluableError as error:
        given = ask(node, inputs, error.problem) if ask else None
        if given is None:
            raise
        results = widen(list(given))
        if len(results) < len(node.output):
            raise InputError(
                f"{len(results)} values were given for the {len(node.output)} outputs of {node.op_type}.",
                "Give one for each output; None where nothing reads it.",
            ) from error
    return zip(node.output, results, strict=False)


def _evaluated(step: _Step, inputs: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
    bodies = {name: partial(_run_body, body, values) for name, body in step.bodies.items()}
    try:
        with np.errstate(all="ignore"):  # an infinity is a result like any other
            if any(isinstance(value, Weight) for value in inputs):
                made: Any = by_rows.evaluate(step.function, step.call, inputs)
            else:
                made = step.function(step.call, *inputs, **({"bodies": bodies} if bodies else {}))
        return [_checked(result) for result in (made if isinstance(made, tuple) else (made,))]
    except BnfoldError:
        raise
    except Refusal as refusal:
        raise _refused(step.call.node, str(refusal)) from refusal
    except Exception as error:  # whatever NumPy or the reference implementation raises
        raise _refused(step.call.node, reason(error)) from error


def _run_body(body: Evaluator, values: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    return body.run(dict(zip(body.inputs, inputs, strict=True)), values)


def _checked(result: Any) -> Any:
    """A result as an array or a list of them, after checking that it was computed in double."""
    if isinstance(result, list):
        return [_checked(element) for element in result]
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if isinstance(result, np.ndarray) and result.dtype in NARROW:
        raise Refusal(f"its implementation computes in {result.dtype}")
    return result


def _refused(node: onnx.NodeProto, why: str) -> NotEvaluableError:
    name = f" ({node.name})" if node.name else ""
    return NotEvaluableError(f"The oracle cannot evaluate {node.op_type}{name}: {why}.")
