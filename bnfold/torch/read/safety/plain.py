"""Plain data that a checkpoint may hold without permission: made by bnfold, not by what the pickle names.

A pickle says how its objects are made, and a checkpoint's best score is a call into NumPy. Here each such
call is answered by a function or a class that only makes data: NumPy's numbers and arrays from bytes whose
length fits, paths without a file system, namespaces, dates, and Python's containers.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import math
import types
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.torch.read.safety.sketch import Name

FILLED = Name("bnfold.torch.read.safety.plain", "filled")
"""The name under which [`filled`][bnfold.torch.read.safety.plain.filled] stands in what bnfold writes."""

_KINDS = "biufcSUMm"  # of NumPy types that hold no Python objects and no fields
_BUILTINS = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


class DType:
    """A NumPy type as a pickle makes it: from a code, and a state that has its byte order.

    Args:
        code: As `"f4"` or `"i8"`.
        options: `align` and `copy`, which change nothing.
    """

    def __init__(self, code: str = "f8", *options: object) -> None:
        del options
        found = np.dtype(code) if isinstance(code, str) and len(code) < 16 else None
        if found is None or found.kind not in _KINDS or not found.itemsize or found.fields or found.subdtype:
            raise ValueError(f"a NumPy type {code!r}")
        self.dtype = found

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(order)


class Array(np.ndarray):
    """A NumPy array, from bytes that have exactly its length."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        dtype = _fits(kind, shape, content)
        state = (1, tuple(shape), dtype, bool(fortran), bytes(content))
        super().__setstate__(state)  # type: ignore[arg-type]  # the stubs want a NumPy bool


def _fits(kind: DType, shape: tuple[int, ...], content: bytes) -> np.dtype[Any]:
    if not isinstance(kind, DType) or not isinstance(content, (bytes, bytearray)):
        raise ValueError("a NumPy array that is not made of bytes")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a NumPy array whose shape is not made of sizes")
    if math.prod(shape) * kind.dtype.itemsize != len(content):
        raise ValueError(f"a NumPy array of shape {shape} and {len(content)} bytes")
    return kind.dtype


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> Array:
    del kind, shape, code  # always (0,) and b"b"; the state has what counts
    return Array((0,), "b")


def _scalar(kind: DType, content: bytes) -> np.generic:
    dtype = _fits(kind, (), content)
    found: np.generic = np.frombuffer(content, dtype)[0]
    return found


def _frombuffer(content: bytes, kind: DType, shape: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    dtype = _fits(kind, shape, content)
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if order == "F" else "C")


def _posix(*parts: str) -> PurePosixPath:
    return PurePosixPath(*parts)


def _windows(*parts: str) -> PureWindowsPath:
    return PureWindowsPath(*parts)


def filled(made: Any, added: Iterable[Any], entries: Iterable[tuple[Any, Any]]) -> Any:
    """Put into an object what its pickle puts into it, by `append` and `[key] = value` as pickle does."""
    for value in added:
        made.append(value)
    for key, value in entries:
        made[key] = value
    return made


def _table() -> dict[str, Any]:
    found: dict[str, Any] = {f"builtins.{kind.__name__}": kind for kind in (*_BUILTINS, range, slice)}
    for core in ("numpy._core", "numpy.core"):
        found |= {
            f"{core}.multiarray.scalar": _scalar,
            f"{core}.multiarray._reconstruct": _reconstruct,
            f"{core}.numeric._frombuffer": _frombuffer,
        }
    found |= {"numpy.dtype": DType, "numpy.ndarray": Array}
    for kind in np.sctypeDict.values():
        if np.dtype(kind).kind in _KINDS + "?":
            found[f"numpy.{kind.__name__}"] = kind
            found[f"numpy.dtypes.{type(np.dtype(kind)).__name__}"] = type(np.dtype(kind)).__name__
    for home in ("pathlib", "pathlib._local"):
        found |= dict.fromkeys((f"{home}.{name}" for name in ("Path", "PosixPath", "PurePosixPath")), _posix)
        found |= dict.fromkeys((f"{home}.{name}" for name in ("WindowsPath", "PureWindowsPath")), _windows)
    dates = (datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone)
    found |= {f"datetime.{kind.__name__}": kind for kind in dates}
    found |= {"argparse.Namespace": argparse.Namespace, "types.SimpleNamespace": types.SimpleNamespace}
    return found | {
        "collections.deque": collections.deque,
        "collections.defaultdict": collections.defaultdict,
        "functools.partial": functools.partial,  # of what the file may name by itself; nothing is called yet
    }


TABLE: dict[str, Any] = _table()
"""By the name in a pickle: what stands for it."""

GLOBALS: list[tuple[Callable[..., Any], str]] = [(value, name) for name, value in TABLE.items()]
"""The same as torch's unpickler takes it; what is only a value is a string there, which cannot be called."""

CALLED = {
    name
    for name, value in TABLE.items()
    if isinstance(value, types.FunctionType) or name == "numpy.dtype" or name.startswith("datetime.")
}
"""The names of those that a pickle calls with numbers and text; they check these themselves."""

FILLER: tuple[Callable[..., Any], str] = (filled, str(FILLED))
