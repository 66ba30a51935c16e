"""Names for the sizes that a program of torch.export leaves open.

A saved program has lost the names that `torch.export.Dim` gave them, and calls them `s77` by itself, which
says nothing and differs from one version of torch to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.torch.export.open_sizes import OpenSize

_OWN = re.compile(r"\bs\d+\b")


def name_sizes(model: ir.Model, wanted: Sequence[OpenSize] = ()) -> None:
    """Give every open size of the inputs its name, wherever the model speaks of it.

    Args:
        model: The export of a program; it is changed.
        wanted: The names from `--dynamic`. A size that has none is called by its first input and axis, as
            `image_axis2`.

    Raises:
        InputError: What is to have a name is not open; or one size would have two names, or two sizes one.
    """
    given: dict[str, str] = {}
    for size in wanted:
        for symbol in _meant(size, model):
            if given.setdefault(symbol, size.name) != size.name:
                raise InputError(
                    f"{given[symbol]} and {size.name} are one size of the program.", "Give it one name."
                )
    names = {**{symbol: f"{name}_axis{axis}" for name, axis, symbol in reversed([*_open(model)])}, **given}
    others = {symbol for value in _values(model) for size in value.shape or () for symbol in _symbols(size)}
    final = [*names.values(), *(others - names.keys())]
    if len(set(final)) < len(final):
        raise InputError(
            f"--dynamic {' '.join(one.name for one in wanted)} gives one name to sizes that may differ.",
            "Name each by its input and axis, as in x:2=height.",
        )
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, names) for size in value.shape])


def _open(model: ir.Model) -> Iterator[tuple[str, int, str]]:
    """Every open size of an input: the input's name, the axis, and what torch calls it."""
    for value in model.graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value and _OWN.fullmatch(size.value):
                yield str(value.name), axis, size.value


def _meant(size: OpenSize, model: ir.Model) -> list[str]:
    ranks = {str(value.name): len(value.shape or ()) for value in model.graph.inputs}
    found = [
        symbol
        for name, axis, symbol in _open(model)
        if size.input in (None, name) and axis == (size.axis if size.axis >= 0 else ranks[name] + size.axis)
    ]
    if not found:
        where = f"axis {size.axis} of {size.input or 'its inputs'}"
        raise InputError(
            f"The program has no open size at {where} to call {size.name}.",
            "Of an exported program --dynamic names what is open: open it with dynamic_shapes of"
            " torch.export.export.",
        )
    return found


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        for node in graph:
            yield from node.outputs


def _symbols(size: int | ir.SymbolicDim) -> list[str]:
    """What torch calls the sizes that one is computed from."""
    return [] if isinstance(size, int) or not size.value else _OWN.findall(size.value)


def _renamed(size: int | ir.SymbolicDim, names: dict[str, str]) -> int | ir.SymbolicDim:
    if isinstance(size, int) or not size.value:
        return size
    return ir.SymbolicDim(_OWN.sub(lambda found: names.get(found[0], found[0]), size.value))
