"""Sizes that stay open: what `--dynamic` says, which axes it means, and other sizes to try them with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bnfold.errors import InputError
from bnfold.torch.export.signature import Inputs, Signature

_TEXT = re.compile(r"(?:(?:(?P<input>[A-Za-z_]\w*):)?(?P<axis>-?\d+)=)?(?P<name>[A-Za-z_]\w*)")
_FIX = (
    "Write it as batch (the first size of every input), 2=height (an axis of every input that has it) or "
    "x:2=height (of the input x)."
)

Sizes = dict[str, dict[int, str]]
"""Names of open sizes, by input and axis."""


@dataclass(frozen=True)
class OpenSize:
    """A size to leave open.

    Attributes:
        input: The input that has it; None for every input.
        axis: Which axis, counted from the end where negative.
        name: Its name in the ONNX model. Sizes of one name are one size.
    """

    input: str | None
    axis: int
    name: str


def parse_dynamic(texts: Sequence[str]) -> tuple[OpenSize, ...]:
    """Read `--dynamic`: `NAME`, `AXIS=NAME` or `INPUT:AXIS=NAME`, where `NAME` alone means axis 0.

    Raises:
        InputError: Not of that form.
    """
    found = []
    for text in texts:
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise InputError(f"{text!r} does not name a size to leave open.", _FIX)
        found.append(OpenSize(match["input"], int(match["axis"] or 0), match["name"]))
    return tuple(found)


def opened(
    module: nn.Module, inputs: Inputs, wanted: Sequence[OpenSize]
) -> tuple[dict[str, torch.Tensor], Sizes]:
    """The inputs by name, with every open size at least 2, and the open sizes.

    Raises:
        InputError: The inputs have no names, or as for [`assign`][bnfold.torch.export.open_sizes.assign].
    """
    named = Signature.of(module).bind(inputs)
    if wanted and named is None:
        raise InputError(
            "A forward with *args leaves no size open.", "Give forward a name for each of its inputs."
        )
    tensors = inputs.values() if isinstance(inputs, Mapping) else inputs
    named = named or {f"input_{i}": tensor for i, tensor in enumerate(tensors)}
    sizes = assign(wanted, named)
    return open_for_tracing(named, sizes), sizes


def assign(sizes: Sequence[OpenSize], inputs: Mapping[str, torch.Tensor]) -> Sizes:
    """Find the axes of the inputs that `sizes` mean.

    Returns:
        Every input by its name, with the open axes, counted from 0, and their names.

    Raises:
        InputError: There is no such input or axis, an axis has two names, or sizes that have one name differ.
    """
    found: Sizes = {name: {} for name in inputs}
    lengths: dict[str, int] = {}
    for size in sizes:
        for name in _meant(size, inputs):
            axis = size.axis % inputs[name].ndim
            if found[name].setdefault(axis, size.name) != size.name:
                raise InputError(
                    f"Axis {axis} of {name} is called both {found[name][axis]} and {size.name}.",
                    "Give it one name.",
                )
            length = inputs[name].shape[axis]
            if lengths.setdefault(size.name, length) != length:
                raise InputError(
                    f"{size.name} would be both {lengths[size.name]} and {length} ({name}, axis {axis}).",
                    "One name stands for one size: give two names, or shapes that agree.",
                )
    return found


def _meant(size: OpenSize, inputs: Mapping[str, torch.Tensor]) -> list[str]:
    """The inputs whose axis `size` means, of which there is at least one."""
    if size.input is not None and size.input not in inputs:
        raise InputError(
            f"The model has no input {size.input!r} to leave open.", f"It takes {', '.join(inputs)}."
        )
    candidates = list(inputs) if size.input is None else [size.input]
    having = [name for name in candidates if -inputs[name].ndim <= size.axis < inputs[name].ndim]
    if not having:
        where = f"The input {size.input}" if size.input else "No input"
        verb = "has no" if size.input else "has an"
        raise InputError(f"{where} {verb} axis {size.axis} to call {size.name}.", _FIX)
    return having


def open_for_tracing(inputs: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, torch.Tensor]:
    """Make every open size at least 2: a size of 1 would be taken for a constant."""
    return {
        name: resized(tensor, {axis: 2 for axis in sizes[name] if tensor.shape[axis] == 1})
        for name, tensor in inputs.items()
    }


def resized(tensor: torch.Tensor, lengths: Mapping[int, int]) -> torch.Tensor:
    """Repeat and cut `tensor` to these lengths along these axes."""
    for axis, length in lengths.items():
        repeats = -(-length // tensor.shape[axis])
        tensor = torch.cat([tensor] * repeats, axis).narrow(axis, 0, length).contiguous()
    return tensor


def other_sizes(
    inputs: Mapping[str, torch.Tensor], sizes: Sizes
) -> Iterator[tuple[str, list[tuple[int, dict[str, torch.Tensor]]]]]:
    """Inputs to try one after the other, for every open size: larger ones, then smaller ones.

    A network takes what its strides allow, which may not be the nearest size: the first of each list that the
    module takes is enough. 1 is the first of the smaller ones, since an export that is traced at another size
    can be wrong at that size only.

    Yields:
        The name, and the tries: the size, and the inputs that have it.
    """
    for name in sorted({name for axes in sizes.values() for name in axes.values()}):
        length = next(
            inputs[one].shape[axis]
            for one, axes in sizes.items()
            for axis, called in axes.items()
            if called == name
        )
        larger = [length + 1, 2 * length, *(length + step for step in (2, 4, 8, 16, 32, 64))]
        smaller = [1, length // 2, length - 1, *(length - step for step in (2, 4, 8, 16, 32, 64))]
        for lengths in (larger, [size for size in smaller if 0 < size < length]):
            yield name, [(size, _with(inputs, sizes, name, size)) for size in lengths]


def _with(
    inputs: Mapping[str, torch.Tensor], sizes: Sizes, name: str, length: int
) -> dict[str, torch.Tensor]:
    return {
        one: resized(tensor, {axis: length for axis, called in sizes[one].items() if called == name})
        for one, tensor in inputs.items()
    }
