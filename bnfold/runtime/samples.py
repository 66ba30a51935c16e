"""Inputs for a model: seeded random ones that fit what it declares, or real ones from an `.npz` file.

Random values are ordinary ones that every model should accept: floats are standard normal; 8-bit integers
use their whole range, as image bytes do; wider integers are small and not negative, as token and class
numbers are; bools are coin tosses.

A dynamic dimension is tried at more than one size. Dimension 0 is taken for the batch, dimension 1 of an
input of rank three or more for the channels, every other for a length. One symbol has one size in all inputs.
Sizes that the model rejects are passed over, and what could not be varied is said.
"""

from __future__ import annotations

import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from bnfold.errors import InputError, ModelError
from bnfold.files.contents import reason
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

Runner: TypeAlias = Callable[[Feeds], object]
Outputs = TypeVar("Outputs")

BATCHES = (1, 3)
CHANNELS = (3, 1, 4, 64)
LENGTHS = (64, 96, 224, 128, 32, 256, 28, 299, 384, 16, 8)
INTEGER_CEILINGS = (100, 2)  # a vocabulary has at least a hundred entries, a token type or a mask only two

_GIVE_INPUTS = "Give real inputs with --inputs FILE.npz."

# What a damaged archive raises, by the place of the damage: NotImplementedError is for a compression that is
# none, RuntimeError for a flag that says "encrypted".
_UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError
)  # fmt: skip

_FLOATS = frozenset({"float16", "float32", "float64"})
_BYTES = frozenset({"int8", "uint8"})
_WIDE_INTEGERS = frozenset({"int16", "int32", "int64", "uint16", "uint32", "uint64"})
_DRAWN = _FLOATS | _BYTES | _WIDE_INTEGERS | {"bool", "string"}


@dataclass(frozen=True)
class Sizing:
    """What the dynamic dimensions are, by their role, and the bound below which wide integers are drawn."""

    batch: int = BATCHES[0]
    channels: int = CHANNELS[0]
    length: int = LENGTHS[0]
    ceiling: int = INTEGER_CEILINGS[0]


@dataclass(frozen=True)
class Samples:
    """Inputs to run a model on.

    Attributes:
        feeds: One mapping of input names to arrays a sample.
        notes: One sentence for every dynamic dimension that could be tried at one size only.
    """

    feeds: tuple[Feeds, ...]
    notes: tuple[str, ...] = ()


def choose(
    ports: Sequence[Port], run: Callable[[Feeds], object], *, count: int = 3, seed: int = 0
) -> Samples:
    """Draw `count` samples that the model accepts, or more where there are more sizes to go through.

    Args:
        ports: The inputs that the model needs.
        run: Runs the model; raises ModelError where it rejects the inputs.
        count: Number of samples, at least 1.
        seed: Same seed, same samples.

    Raises:
        InputError: The model accepts no size that was tried, or has an input that cannot be drawn.
    """
    if count < 1:
        raise InputError(f"{count} samples prove nothing.", "Ask for 1 or more.")
    for port in ports:
        _demand_drawable(port)
    first = _first(ports, run, seed)
    second = _second(ports, first, run, seed)
    sizings = [first, second] if second else [first]
    number = max(count, len(sizings))
    feeds = tuple(draw(ports, sizings[i % len(sizings)], seed=(seed, i)) for i in range(number))
    return Samples(feeds, tuple(_notes(_roles(ports), sizings)))


def run_drawn(run: Callable[[Feeds], Outputs], feeds: Feeds) -> Outputs:
    """Run the model on a sample that was drawn for it, and give what `run` gives.

    Raises:
        InputError: The model rejects it, so that random inputs are none for this model.
    """
    try:
        return run(feeds)
    except ModelError as error:
        raise InputError(
            f"The model rejects a random input that was drawn for it. {error.problem}", _GIVE_INPUTS
        ) from error


def draw(ports: Sequence[Port], sizing: Sizing, *, seed: int | Sequence[int]) -> Feeds:
    """Draw one value for every input, with the sizes of `sizing`."""
    rng = np.random.default_rng(seed)
    roles = _roles(ports)

    def shape(port: Port) -> tuple[int, ...]:
        symbols = dict(_dynamic(port))
        return tuple(
            size if isinstance(size, int) else getattr(sizing, roles[symbols[axis]])
            for axis, size in enumerate(port.shape or ())
        )

    return {port.name: _values(rng, port.type, shape(port), sizing.ceiling) for port in ports}


def load_npz(path: str | os.PathLike[str]) -> Feeds:
    """Read arrays by input name from a file that `numpy.savez` wrote.

    Raises:
        InputError: The file is not there or is no `.npz` of plain arrays.
    """
    fix = "Write it with numpy.savez(path, input_name=array, …)."
    try:
        with Path(path).open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise InputError(f"{os.fspath(path)} holds one array without a name.", fix)
            with content:
                return {name: content[name] for name in content.files}
    except _UNREADABLE as error:
        raise InputError(
            f"{os.fspath(path)} cannot be read as an .npz file: {reason(error)}.", fix
        ) from error


def fit(arrays: Feeds, ports: Sequence[Port]) -> Feeds:
    """Check given arrays against the model's inputs, and convert them to its types where nothing is lost.

    Floats convert to any float type and integers to any type that holds their values.

    Raises:
        InputError: A name, rank, size or type does not fit; the error lists what the model expects.
    """
    expected = "The model expects " + ("; ".join(map(str, ports)) or "no inputs") + "."
    names = [port.name for port in ports]
    if sorted(arrays) != sorted(names):
        raise InputError(f"The inputs given are named {', '.join(sorted(arrays)) or 'nothing'}.", expected)
    sizes: dict[str, int] = {}
    fitted: dict[str, np.ndarray[Any, Any]] = {}
    for port in ports:
        array = np.asarray(arrays[port.name])
        if not _shape_fits(port, array.shape, sizes):
            raise InputError(
                f"The input {port.name!r} was given with the shape {list(array.shape)}.", expected
            )
        converted = _converted(array, port.type)
        if converted is None:
            raise InputError(f"The input {port.name!r} was given as {array.dtype}.", expected)
        fitted[port.name] = converted
    return fitted


# --- sizes ------------------------------------------------------------------------------------------------


def _dynamic(port: Port) -> Iterator[tuple[int, str]]:
    """Axis and symbol of every dynamic dimension; an unnamed one is named after its place."""
    for axis, size in enumerate(port.shape or ()):
        if not isinstance(size, int):
            yield axis, size or f"{port.name}.{axis}"


def _roles(ports: Sequence[Port]) -> dict[str, str]:
    """What every symbol stands for, as the name of a `Sizing` field; a symbol's first place decides."""
    roles: dict[str, str] = {}
    for port in ports:
        for axis, symbol in _dynamic(port):
            role = (
                "batch" if axis == 0 else "channels" if axis == 1 and len(port.shape or ()) > 2 else "length"
            )
            roles.setdefault(symbol, role)
    return roles


def _first(ports: Sequence[Port], run: Runner, seed: int) -> Sizing:
    """The first sizing that the model accepts."""
    roles = _roles(ports)
    wide = any(port.type in _WIDE_INTEGERS for port in ports)
    if not roles and not wide:
        return Sizing()  # nothing to choose: if the model rejects its own sizes, the real run says so
    rejection: ModelError | None = None
    for channels, length, ceiling in itertools.product(
        CHANNELS if "channels" in roles.values() else CHANNELS[:1],
        LENGTHS if "length" in roles.values() else LENGTHS[:1],
        INTEGER_CEILINGS if wide else INTEGER_CEILINGS[:1],
    ):
        sizing = Sizing(BATCHES[0], channels, length, ceiling)
        rejection = _rejection(ports, sizing, run, seed)
        if rejection is None:
            return sizing
    raise InputError(
        f"The model rejects all values that were tried for its inputs "
        f"({'; '.join(map(str, ports))}). The last time: {rejection.problem if rejection else ''}",
        _GIVE_INPUTS,
    )


def _second(ports: Sequence[Port], first: Sizing, run: Runner, seed: int) -> Sizing | None:
    """A sizing as different from the first as the model accepts; None where nothing else goes."""
    roles = _roles(ports).values()
    lengths = [length for length in LENGTHS if length != first.length][:3] if "length" in roles else []
    batches = BATCHES[::-1] if "batch" in roles else BATCHES[:1]
    for batch, length in itertools.product(batches, [*lengths, first.length]):
        sizing = replace(first, batch=batch, length=length)
        if sizing != first and _rejection(ports, sizing, run, seed) is None:
            return sizing
    return None


def _rejection(ports: Sequence[Port], sizing: Sizing, run: Runner, seed: int) -> ModelError | None:
    feeds = draw(ports, sizing, seed=seed)
    for port in ports:
        if port.type in _WIDE_INTEGERS and feeds[port.name].size:
            feeds[port.name].flat[0] = (
                sizing.ceiling - 1
            )  # what other samples may hold has to be accepted too
    try:
        run(feeds)
    except ModelError as error:
        return error
    return None


def _notes(roles: Mapping[str, str], sizings: Sequence[Sizing]) -> Iterator[str]:
    for symbol, role in roles.items():
        sizes = {getattr(sizing, role) for sizing in sizings}
        if len(sizes) == 1:
            yield f"The dynamic dimension {symbol} was tried at the size {sizes.pop()} only."


# --- values -----------------------------------------------------------------------------------------------


def _demand_drawable(port: Port) -> None:
    if port.type not in _DRAWN:
        raise InputError(
            f"The input {port.name!r} is {port.type}, which NumPy cannot hand to ONNX Runtime.",
            "Use a version of the model whose inputs are plain tensors of float, integer, bool or string.",
        )
    if port.shape is None:
        raise InputError(
            f"The model does not say how many dimensions its input {port.name!r} has.",
            _GIVE_INPUTS,
        )


def _values(
    rng: np.random.Generator, kind: str, shape: tuple[int, ...], ceiling: int
) -> np.ndarray[Any, Any]:
    if kind == "string":
        return rng.choice(np.array(["a", "b", "c"], dtype=object), size=shape)
    if kind == "bool":
        return np.asarray(rng.integers(0, 2, size=shape), dtype=bool)
    dtype = np.dtype(kind)
    if kind in _FLOATS:
        return np.asarray(rng.standard_normal(shape), dtype=dtype)
    if kind in _BYTES:
        bounds = np.iinfo(dtype)
        return np.asarray(rng.integers(bounds.min, bounds.max, size=shape, endpoint=True), dtype=dtype)
    return np.asarray(rng.integers(0, ceiling, size=shape), dtype=dtype)


def _shape_fits(port: Port, given: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is one that the input declares; `sizes` collects what every symbol stands for."""
    if port.shape is None:
        return True
    if len(given) != len(port.shape):
        return False
    symbols = dict(_dynamic(port))
    for axis, (declared, size) in enumerate(zip(port.shape, given, strict=True)):
        wanted = declared if isinstance(declared, int) else sizes.setdefault(symbols[axis], size)
        if wanted != size:
            return False
    return True


def _converted(array: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any] | None:
    if kind == "string":
        return array.astype(object) if array.dtype.kind in "OSU" else None
    if kind not in _DRAWN:
        return None
    dtype = np.dtype(kind)
    if array.dtype == dtype:
        return array
    if (
        array.dtype.kind not in "iuf"
        or dtype.kind not in "iuf"
        or (array.dtype.kind == "f" and dtype.kind != "f")
    ):
        return None
    converted = array.astype(dtype)
    exact = array.dtype.kind == "f" or np.array_equal(converted, array)
    return converted if exact else None
