"""If, Loop, Scan and SequenceMap, whose bodies are functions from their inputs to their outputs, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

Bodies: TypeAlias = Mapping[str, Callable[[list[Any]], list[Any]]]


def branch(call: Call, condition: Array, *, bodies: Bodies) -> tuple[Any, ...]:  # noqa: ARG001
    """`If`."""
    return tuple(bodies["then_branch" if bool(np.asarray(condition).item()) else "else_branch"]([]))


def loop(
    call: Call, trips: Array | None, condition: Array | None, *states: Any, bodies: Bodies
) -> tuple[Any, ...]:
    """`Loop`: at most `trips` times, while the condition holds; either may be left out.

    The body's condition ends the loop even if the node has no condition: ONNX says that it is ignored then,
    but ONNX Runtime does not ignore it. Further outputs of the body are stacked along a new first axis.
    """
    carried = list(states)
    collected: list[list[Any]] = [[] for _ in call.node.output[len(states) :]]
    goes_on = True if condition is None else bool(np.asarray(condition).item())
    limit = None if trips is None else int(np.asarray(trips).item())
    trip = 0
    while goes_on and (limit is None or trip < limit):
        condition, *results = bodies["body"]([np.asarray(trip, np.int64), np.asarray(True), *carried])
        goes_on = bool(np.asarray(condition).item())
        carried = results[: len(states)]
        for pile, result in zip(collected, results[len(states) :], strict=False):
            pile.append(result)
        trip += 1
    return (*carried, *(_stacked(pile, 0) for pile in collected))


def scan(call: Call, *inputs: Any, bodies: Bodies) -> tuple[Any, ...]:
    """`Scan`: over slices of the inputs, forwards or backwards, since opset 9 along any axis."""
    if call.opset < 9:
        return _batched_scan(call, inputs, bodies)
    scanned = call.get("num_scan_inputs")
    states, sequences = list(inputs[:-scanned]), inputs[-scanned:]
    outputs = len(call.node.output) - len(states)
    axes, backwards = (call.get(f"scan_input_{kind}", [0] * scanned) for kind in ("axes", "directions"))
    rows = [np.moveaxis(sequence, axis, 0) for sequence, axis in zip(sequences, axes, strict=True)]
    rows = [row[::-1] if reverse else row for row, reverse in zip(rows, backwards, strict=True)]
    states, collected = _steps(bodies["body"], states, rows, outputs)
    axes, backwards = (call.get(f"scan_output_{kind}", [0] * outputs) for kind in ("axes", "directions"))
    for pile, reverse in zip(collected, backwards, strict=True):
        if reverse:
            pile.reverse()
    return (*states, *(_stacked(pile, axis) for pile, axis in zip(collected, axes, strict=True)))


def _batched_scan(call: Call, inputs: Sequence[Any], bodies: Bodies) -> tuple[Any, ...]:
    """`Scan` of opset 8: axis 0 is the batch, axis 1 the sequence, and sequences may be of any length.

    After the end of a shorter sequence its outputs are 0; ONNX leaves open what they are.
    """
    scanned = call.get("num_scan_inputs")
    lengths, first, sequences = inputs[0], inputs[1:-scanned], inputs[-scanned:]
    outputs, longest = len(call.node.output) - len(first), sequences[0].shape[1]
    backwards = call.get("directions") or [0] * scanned
    results: list[tuple[Any, ...]] = []
    for number in range(len(sequences[0])):
        length = longest if lengths is None else int(lengths[number])
        rows = [sequence[number, :length] for sequence in sequences]
        rows = [row[::-1] if reverse else row for row, reverse in zip(rows, backwards, strict=True)]
        states, collected = _steps(bodies["body"], [state[number] for state in first], rows, outputs)
        stacks = [_stacked(pile, 0) for pile in collected]
        fill = [[(0, longest - length), *[(0, 0)] * (stack.ndim - 1)] for stack in stacks]
        results.append((*states, *map(np.pad, stacks, fill)))
    return tuple(np.stack(parts) for parts in zip(*results, strict=True))


def _steps(
    body: Callable[[list[Any]], list[Any]], states: list[Any], rows: Sequence[Array], outputs: int
) -> tuple[list[Any], list[list[Any]]]:
    """The last states, and what each further output of the body was at each step."""
    collected: list[list[Any]] = [[] for _ in range(outputs)]
    for place in range(len(rows[0])):
        results = body([*states, *(row[place] for row in rows)])
        states = results[: len(states)]
        for pile, result in zip(collected, results[len(states) :], strict=True):
            pile.append(result)
    return states, collected


def sequence_map(call: Call, first: list[Any], *others: Any, bodies: Bodies) -> tuple[list[Any], ...]:
    """`SequenceMap`: the body over the elements of sequences at once; tensors are the same for all."""
    collected: list[list[Any]] = [[] for _ in call.node.output]
    for place, element in enumerate(first):
        row = [other[place] if isinstance(other, list) else other for other in others]
        for pile, result in zip(collected, bodies["body"]([element, *row]), strict=True):
            pile.append(result)
    return tuple(collected)


def _stacked(pile: list[Any], axis: int) -> Array:
    if not pile:
        raise Refusal("its body never runs, so the shapes of its outputs are not known")
    return np.stack(pile, axis=axis)


OPERATORS: dict[str, Operator] = {
    "If": branch,
    "Loop": loop,
    "Scan": scan,
    "SequenceMap": sequence_map,
}
