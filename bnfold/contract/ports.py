"""Other outputs and other names: the graph between them stays as it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from bnfold.contract.changed import Changed
from bnfold.errors import InputError, listed
from bnfold.graph import shape_inference
from bnfold.graph.naming import Names
from bnfold.graph.nodes import count_nodes
from bnfold.graph.scopes import scopes
from bnfold.inputs.sizes import Sizing, draw
from bnfold.runtime.interface import Port, interface
from bnfold.tensors.sizes import sizes

if TYPE_CHECKING:
    from bnfold.runtime.sessions import Feeds


def cut(model: ir.Model, outputs: Sequence[str]) -> Changed:
    """Let a model give some of its values, and remove what no other of them needs.

    Args:
        model: The model.
        outputs: Names of values that its main graph computes, in the order that they are to have.

    Raises:
        InputError: A name is not there, or is given twice.
    """
    whole = model.clone()
    values = {value.name: value for node in whole.graph for value in node.outputs if value.name}
    for place, name in enumerate(outputs):
        if name not in values:
            raise InputError(f"The model computes no {name!r}.", _instead(name, values))
        if name in outputs[:place]:
            raise InputError(f"The output {name!r} is given twice.", "Give each name once.")
    _describe(whole, [values[name] for name in outputs])
    whole.graph.outputs.clear()
    whole.graph.outputs.extend(values[name] for name in outputs)
    smaller = whole.clone()
    used = [value for value in smaller.graph.inputs if value.uses()]
    before = count_nodes(smaller)
    common_passes.RemoveUnusedNodesPass()(smaller)
    gone = [value for value in used if not value.uses() and not value.is_graph_output()]
    ports = {port.name: port for port in interface(smaller).inputs}
    dropped = tuple(ports[value.name] for value in gone if value.name in ports)
    for value in gone:
        smaller.graph.inputs.remove(value)
    removed = before - count_nodes(smaller)
    sentence = (
        f"Cut to the {'output' if len(outputs) == 1 else 'outputs'} {_names(outputs)}: {_fewer(removed)}"
    )
    if dropped:
        sentence += f", and without the inputs {_names(port.name for port in dropped)}"

    def back(feeds: Feeds) -> Feeds:
        return {**_any(dropped, interface(smaller).inputs, feeds), **feeds}

    details = {
        "outputs": list(outputs),
        "removed_nodes": removed,
        "removed_inputs": [port.name for port in dropped],
    }
    return Changed("outputs", f"{sentence}.", smaller, whole, back, details)


def renamed(model: ir.Model, names: Mapping[str, str]) -> Changed:
    """Give inputs and outputs other names.

    Args:
        model: The model.
        names: New names by the old ones.

    Raises:
        InputError: There is no such input or output, or the new name is taken.
    """
    other = model.clone()
    ports = {value.name or "": value for value in (*other.graph.inputs, *other.graph.outputs)}
    inside = {
        value.name
        for scope in scopes(model)
        if scope.graph is not model.graph
        for value in (*scope.graph.inputs, *(one for node in scope.graph for one in node.outputs))
    }
    taken = Names(model).original - (names.keys() - inside)
    for old, new in names.items():
        if old not in ports:
            raise InputError(f"The model has neither an input nor an output {old!r}.", _instead(old, ports))
        if not new or new in taken or list(names.values()).count(new) > 1:
            why = "a value has that name" if new else "a name has letters"
            raise InputError(f"{old!r} cannot be renamed to {new!r}: {why}.", "Take another name.")
    for old, new in names.items():
        value = ports[old]
        if value.const_value is not None:  # which is the given model's too, and gets the name of its value
            value.const_value = _another(value.const_value)
        value.name = new
    old_names = {new: old for old, new in names.items()}

    def back(feeds: Feeds) -> Feeds:
        return {old_names.get(name, name): array for name, array in feeds.items()}

    pairs = ", ".join(f"{old!r} to {new!r}" for old, new in names.items())
    return Changed("rename", f"Renamed {pairs}.", other, model, back, {"names": dict(names)})


def _another(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same numbers in a tensor whose name may be changed."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy(), dtype=tensor.dtype),
        dtype=tensor.dtype,
        shape=ir.Shape(sizes(tensor)),
    )


def _describe(model: ir.Model, outputs: Iterable[ir.Value]) -> None:
    """Give values that become outputs the type and shape that follow for them, where they have none."""
    unknown = [value for value in outputs if value.type is None or value.shape is None]
    if not unknown:
        return
    shapes, types = shape_inference.infer(model, list(scopes(model)))
    own = {size for port in interface(model).inputs for size in port.shape or ()}
    for value in unknown:
        if value.type is None and value in types:
            value.type = ir.TensorType(types[value])
        if value.shape is None and value in shapes:
            value.shape = ir.Shape(
                size if size in own or isinstance(size, int) else None for size in shapes[value]
            )


def _any(dropped: Sequence[Port], kept: Sequence[Port], feeds: Feeds) -> Feeds:
    """Some array for every input that is not needed, with the sizes that it shares with others."""
    known = {
        symbol: size
        for port in kept
        for symbol, size in zip(port.shape or (), feeds[port.name].shape, strict=False)
        if isinstance(symbol, str)
    }

    def size(own: int | str | None) -> int:
        return known.get(own, 1) if isinstance(own, str) else own or 1

    fixed = [Port(port.name, port.type, tuple(map(size, port.shape or ()))) for port in dropped]
    return {name: np.asarray(array) for name, array in draw(fixed, Sizing(), seed=0).items()}


def _instead(name: str, names: Iterable[str | None]) -> str:
    known = [one for one in names if one]
    if near := difflib.get_close_matches(name, known, n=3):
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {listed(known, most=8)}."


def _names(names: Iterable[str]) -> str:
    return listed([repr(name) for name in names], most=6)


def _fewer(count: int) -> str:
    return "no node fewer" if not count else f"{count} {'node' if count == 1 else 'nodes'} fewer"
