"""Which input and output of one model stands for which of the other, and what a caller would notice.

Two files of anybody's may name things differently, take another type, or leave other sizes open. As long as
both can be fed the same numbers they can be compared: on sizes that both accept, with numbers that both types
hold, and with the outputs in the original's types. Everything in which they differ for a caller is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.errors import InputError, ModelError, listed
from bnfold.inputs.coverage import dynamic
from bnfold.inputs.values import BYTES, NUMPY_FLOATS, WIDE_INTEGERS, converted
from bnfold.options import Match
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import Interface, Port, shape_text
from bnfold.runtime.sessions import Feeds

_INTEGERS = BYTES | WIDE_INTEGERS
_OWN_METADATA = "bnfold."


class Pair(NamedTuple):
    """An input or an output of the original, and the one that stands for it in the folded model."""

    original: Port
    folded: Port

    @property
    def retyped(self) -> bool:
        """Whether the folded model has another type there."""
        return self.original.type != self.folded.type


@dataclass(frozen=True)
class Pairing:
    """How the inputs and outputs of two models correspond.

    Attributes:
        inputs: In the original's order; empty with `problems`.
        outputs: Likewise.
        problems: A sentence for everything that keeps the models from being compared.
        notes: A sentence for everything else in which they differ.
        sizes: The sizes of open dimensions of the original that the folded model fixes, by their symbol.
    """

    inputs: tuple[Pair, ...] = ()
    outputs: tuple[Pair, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def ports(self) -> tuple[Port, ...]:
        """The original's inputs, with the sizes that both models accept."""
        return tuple(self._narrowed(pair) for pair in self.inputs)

    @property
    def drawn(self) -> tuple[Port, ...]:
        """The same with the narrower one of both types, so that both models hold every number."""
        return tuple(
            replace(self._narrowed(pair), type=_narrower(pair.original.type, pair.folded.type))
            for pair in self.inputs
        )

    def for_original(self, feeds: Feeds) -> Feeds:
        """Inputs in the types that the original takes."""
        return cast(feeds, [pair.original for pair in self.inputs])

    def for_folded(self, feeds: Feeds) -> Feeds:
        """Inputs in the types that the folded model takes, under the original's names.

        Raises:
            ModelError: A number is beyond the type.
        """
        return cast(feeds, [replace(pair.original, type=pair.folded.type) for pair in self.inputs])

    def restored(self, outputs: Sequence[Any]) -> list[Any]:
        """Outputs of the folded model in the original's types; one that these do not hold stays as it is."""
        found = []
        for pair, value in zip(self.outputs, outputs, strict=True):
            is_array = pair.retyped and isinstance(value, np.ndarray)
            other = converted(value, pair.original.type) if is_array else None
            found.append(value if other is None else other)
        return found

    def coarser(self, kinds: Sequence[str | None]) -> list[str | None]:
        """The float types that bound the outputs' errors, given those that the original computes them in.

        An input of a coarser type makes every output coarser, an output only itself.
        """
        fed = [pair.folded.type for pair in self.inputs if pair.retyped and pair.folded.type in UNITS]
        found: list[str | None] = []
        for pair, kind in zip(self.outputs, kinds, strict=True):
            own = [pair.folded.type] if pair.retyped and pair.folded.type in UNITS else []
            found.append(kind and max((kind, *fed, *own), key=UNITS.__getitem__))
        return found

    def aligned(self, folded: ir.Model) -> ir.Model:
        """The folded model with the original's names and order; the model itself where both are the same."""
        if all(pair.original.name == pair.folded.name for pair in (*self.inputs, *self.outputs)):
            names = [value.name for value in folded.graph.outputs]
            if names == [pair.original.name for pair in self.outputs]:
                return folded
        copy = folded.clone()
        _rename(copy.graph, self.inputs, self.outputs)
        return copy

    def _narrowed(self, pair: Pair) -> Port:
        known, shape = dict(self.sizes), pair.original.shape
        if shape is None:
            return replace(pair.original, shape=pair.folded.shape)
        symbols = dict(dynamic(pair.original))
        sizes = tuple(known.get(symbols.get(axis, ""), size) for axis, size in enumerate(shape))
        return replace(pair.original, shape=sizes)


def pair(original: Interface, folded: Interface, match: Match = "name") -> Pairing:
    """Find the folded model's input and output for each of the original's.

    The name of a symbolic dimension may differ, and the folded model may declare a rank where the original
    does not; neither is a difference.

    Args:
        original: The original as its caller sees it.
        folded: The folded model likewise.
        match: Whether names or places decide.

    Raises:
        InputError: `match` is neither.
    """
    if match not in ("name", "order"):
        raise InputError(f"{match!r} is not a way to pair inputs and outputs.", "Choose from: name, order.")
    inputs = _matched("input", original.inputs, folded.inputs, match)
    outputs = _matched("output", original.outputs, folded.outputs, match)
    sizes, conflicts = _fixed_sizes(inputs.pairs)
    problems, notes = (*inputs.problems, *outputs.problems, *conflicts), (*inputs.notes, *outputs.notes)
    if problems:
        return Pairing(problems=problems, notes=notes)
    return Pairing(inputs.pairs, outputs.pairs, (), notes, tuple(sizes.items()))


def model_differences(original: ir.Model, folded: ir.Model) -> Iterator[str]:
    """A sentence on every other difference that matters to a user of the file: opsets and lost metadata."""
    before, after = (
        {"" if domain == "ai.onnx" else domain: version for domain, version in model.opset_imports.items()}
        for model in (original, folded)
    )
    for domain in before.keys() & after.keys():
        if before[domain] != after[domain]:
            of = f" of the domain {domain}" if domain else ""
            yield f"The opset{of} is {after[domain]} instead of {before[domain]}."
    own = {k: v for k, v in original.metadata_props.items() if not k.startswith(_OWN_METADATA)}
    if lost := [key for key in own if key not in folded.metadata_props]:
        yield f"Metadata of the original is missing: {listed(lost)}."
    if changed := [key for key, text in own.items() if folded.metadata_props.get(key, text) != text]:
        yield f"Metadata of the original has changed: {listed(changed)}."


def cast(feeds: Feeds, ports: Sequence[Port]) -> Feeds:
    """Inputs in the types of ports.

    Raises:
        ModelError: A number is beyond the type.
    """
    found = {}
    for port in ports:
        array = converted(feeds[port.name], port.type)
        if array is None:
            raise ModelError(f"The input {port.name!r} has a number that {port.type} does not hold.")
        found[port.name] = array
    return found


# --- matching ---------------------------------------------------------------------------------------------


class _Side(NamedTuple):
    """The inputs or the outputs of two models."""

    pairs: tuple[Pair, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _matched(kind: str, before: tuple[Port, ...], after: tuple[Port, ...], match: Match) -> _Side:
    old, new = [port.name for port in before], [port.name for port in after]
    if len(old) != len(new) or (match == "name" and sorted(old) != sorted(new)):
        hint = " --match order pairs them by their order." if len(old) == len(new) else ""
        return _Side(problems=(f"The {kind}s are named {_listed(new)} instead of {_listed(old)}.{hint}",))
    notes = []
    if match == "name" and old != new:
        notes.append(f"The {kind}s come in another order: {_listed(new)} instead of {_listed(old)}.")
        by_name = {port.name: port for port in after}
        after = tuple(by_name[name] for name in old)
    pairs = tuple(map(Pair, before, after))
    problems: list[str] = []
    for one in pairs:
        if one.original.name != one.folded.name:
            notes.append(f"The {kind} {one.original.name!r} is named {one.folded.name!r}.")
        for sentence, comparable in _differences(kind, one):
            (notes if comparable else problems).append(sentence)
    return _Side(pairs, tuple(problems), tuple(notes))


def _differences(kind: str, one: Pair) -> Iterator[tuple[str, bool]]:
    """Every difference of type and shape, and whether the models can be compared in spite of it."""
    old, new = one
    if one.retyped:
        sentence = f"The {kind} {old.name!r} has the type {new.type} instead of {old.type}."
        yield sentence, _comparable(old.type, new.type)
    if old.shape is None or (new.shape is not None and _sizes(old.shape) == _sizes(new.shape)):
        return
    shapes = f"{shape_text(new.shape)} instead of {shape_text(old.shape)}"
    sentence = f"The {kind} {old.name!r} has the shape {shapes}."
    if new.shape is None or kind == "output":
        yield sentence, True  # what an output's shape really is a run shows: models declare wrong ones
    elif len(old.shape) != len(new.shape):
        yield sentence, False
    else:
        sizes = zip(_sizes(old.shape), _sizes(new.shape), strict=True)
        yield sentence, all(one == other or None in (one, other) for one, other in sizes)


def _sizes(shape: Sequence[int | str | None]) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in shape]


def _comparable(one: str, other: str) -> bool:
    """Whether two types hold the same kind of numbers, and NumPy has both."""
    if "unknown" in (one, other):
        return True
    if "int8" in (one, other) and "u" in (one[0], other[0]):
        return False  # where one ends, the other begins
    return {one, other} <= NUMPY_FLOATS or {one, other} <= _INTEGERS


def _narrower(one: str, other: str) -> str:
    if one in UNITS and other in UNITS:
        return max(one, other, key=UNITS.__getitem__)
    if {one, other} <= _INTEGERS:
        return min(one, other, key=lambda name: np.iinfo(name).max)
    return one


def _fixed_sizes(inputs: Sequence[Pair]) -> tuple[dict[str, int], list[str]]:
    """The sizes that the folded model fixes, by the original's symbol, and where no size fits."""
    sizes: dict[str, int] = {}
    conflicts = []
    for old, new in inputs:
        for axis, symbol in dynamic(old):
            size = new.shape[axis] if new.shape is not None and axis < len(new.shape) else None
            if isinstance(size, int) and sizes.setdefault(symbol, size) != size:
                conflicts.append(
                    f"No inputs suit both models: the second fixes {symbol} of the original at "
                    f"{sizes[symbol]} and at {size}."
                )
    return sizes, conflicts


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


# --- renaming ---------------------------------------------------------------------------------------------


def _rename(graph: ir.Graph, inputs: Sequence[Pair], outputs: Sequence[Pair]) -> None:
    """Give inputs and outputs the original's names, and outputs its order."""
    fed = {value.name: value for value in graph.inputs}
    given = {value.name: value for value in graph.outputs}
    takes = [(fed[one.folded.name], one.original.name) for one in inputs]
    gives: list[tuple[ir.Value, str]] = []
    for one in outputs:
        taken = [value for value, _ in (*takes, *gives)]
        gives.append((_apart(graph, given[one.folded.name], taken), one.original.name))
    wanted = {name for _, name in (*takes, *gives)}
    for value in _values(graph):
        if value.name in wanted:  # it may be another value, or be named otherwise in a moment
            value.name = f"{value.name} in the folded model"
    for value, name in (*takes, *gives):
        value.name = name
    graph.outputs.clear()
    graph.outputs.extend(value for value, _ in gives)


def _apart(graph: ir.Graph, output: ir.Value, taken: Sequence[ir.Value]) -> ir.Value:
    """An output that can have a name of its own: a copy of one that is something else as well."""
    if output.producer() is not None and output not in taken:
        return output
    node = ir.node("Identity", [output])
    node.outputs[0].type, node.outputs[0].shape = output.type, output.shape
    graph.append(node)
    return node.outputs[0]


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph and of the graphs in it."""
    for one in (graph, *graph.subgraphs()):
        yield from (*one.inputs, *list(one.initializers.values()))
        for node in one:
            yield from node.outputs
