"""Which classes a pickle may name, and what to say about the others.

The guard itself is PyTorch's weights-only unpickler: it looks names up in a table, never by importing them,
and calls nothing that is not in the table. This module fills the table, for one load at a time:

- torch.nn's own layer classes, which only hold tensors and numbers when they are created;
- the activation functions of torch.nn.functional that its layers keep as attributes, which only compute;
- plain data, for which `plain` has functions and classes of its own;
- classes that the caller allowed by name. A class can be called with anything that the file says, so only
  these can be allowed: subclasses of nn.Module, enumerations, dataclasses, and other classes from outside
  Python's standard library and torch's machinery. **Functions never can**. Allowing a class imports its
  module, which runs that module's code: allow what you would import.

The scan for names serves the message only; safety does not depend on what it finds.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickletools
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import torch
from torch import nn

from bnfold.errors import UnsafePickleError, reason
from bnfold.torch.read.safety import plain
from bnfold.torch.read.safety.importing import from_here
from bnfold.torch.read.safety.outline import WRAPPERS

Global = tuple[Callable[..., Any], str]

# what nn.TransformerEncoderLayer and hand-written layers keep as self.activation
_ACTIVATIONS = (
    "celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish relu relu6 "
    "selu sigmoid silu softmax softplus softsign tanh tanhshrink"
)
# torch's machinery compiles or loads code that its arguments describe
_MACHINERY = (
    *("torch._", "torch.fx", "torch.jit", "torch.export", "torch.package", "torch.utils.cpp_extension"),
)
# the only part of the standard library that is not plain data for `plain` and could be allowed
_DATA_ONLY = {"fractions.Fraction", "uuid.UUID"}
# what trainers keep beside a model, in modules of which no part runs a program or reaches a file
_KEPT_BESIDE = {
    *("__main__", "abc", "calendar", "collections", "copy", "copyreg", "dataclasses", "decimal", "enum"),
    *("fractions", "functools", "inspect", "itertools", "logging", "math", "numbers", "operator", "queue"),
    *(
        "random",
        "re",
        "string",
        "textwrap",
        "threading",
        "_thread",
        "typing",
        "warnings",
        "weakref",
        "zoneinfo",
    ),
    *("torch._C", "torch._tensor", "torch._utils", "torch._prims_common"),
}
_KEPT_BESIDE_BUILTINS = {
    *("getattr", "object", "property", "staticmethod", "classmethod", "super", "type", "print", "len", "sum"),
    *("min", "max", "abs", "round", "sorted", "reversed", "zip", "map", "filter", "enumerate", "iter", "any"),
    *("all", "Ellipsis", "NotImplemented", "frozenset", "memoryview", "<computed>"),
}
_STANDARD = sys.stdlib_module_names | {"__builtin__", "posix", "nt"}


def torch_globals() -> list[Global]:
    """torch.nn's layer classes and activation functions, each with its name in a pickle."""
    found: dict[str, Callable[..., Any]] = {}
    pending: list[type[nn.Module]] = [nn.Module]
    while pending:
        for cls in pending.pop().__subclasses__():
            pending.append(cls)
            if cls.__module__.startswith("torch.nn.modules."):
                found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    found["torch.nn.modules.module.Module"] = nn.Module
    for name in _ACTIVATIONS.split():
        function = getattr(nn.functional, name)
        found[f"{function.__module__}.{function.__qualname__}"] = function
    return [(value, name) for name, value in sorted(found.items())]


def allowed_globals(names: Iterable[str]) -> list[Global]:
    """Import the classes that the caller allows by their full names, as in `pkg.module.Class`.

    Raises:
        UnsafePickleError: One cannot be imported, is not a class, or is one that can do more than hold data.
    """
    return [(_allowed(name), name) for name in names if name not in plain.TABLE]


def _allowed(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    if refusal := _never(name):
        raise UnsafePickleError(f"{name} cannot be allowed: {refusal}.", "Remove that --allow.")
    if not module or not attribute.isidentifier():
        raise UnsafePickleError(f"--allow {name} is not a full class name.", "Write --allow pkg.module.Class")
    try:
        with from_here():
            found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the import runs the user's code, which can raise anything
        raise UnsafePickleError(
            f"{name} could not be imported: {reason(error)}.",
            "Run this in the folder that holds it, or install its package.",
        ) from error
    if not isinstance(found, type):
        raise UnsafePickleError(
            f"{name} is a function, not a class; calling it from a file could do anything.",
            "Remove that --allow. Only classes can be allowed.",
        )
    home = f"{found.__module__}.{found.__qualname__}"
    if refusal := _never(home):  # an alias must not bypass the rule
        raise UnsafePickleError(f"{name} is {home}, and cannot be allowed: {refusal}.", "Remove it.")
    return found


def _never(name: str) -> str:
    """Why `name` can never be allowed; `""` if a class of that name could be."""
    module = name.rpartition(".")[0]
    if module == "__main__":
        return "it was defined in a script, and cannot be found from outside it"
    if name not in _DATA_ONLY and (module.partition(".")[0] in _STANDARD or not module):
        return "no model needs it, and it can do more than hold data"
    if name.startswith(_MACHINERY):
        return "it can compile or load code"
    return ""


def names_in(stream: BinaryIO, pickles: int = 1) -> list[str]:
    """List the classes and functions that the next `pickles` in `stream` name, without running them."""
    names: dict[str, None] = {}
    try:
        for _ in range(pickles):
            names |= dict.fromkeys(_names_in_one(stream))
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError):
        pass  # the message lists what was found so far; the unpickler reports the damage
    return list(names)


def _names_in_one(stream: BinaryIO) -> Iterator[str]:
    """The names in one pickle, from the strings on its stack and in its memo."""
    strings: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield _present_name(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            yield _present_name(*strings[-2:])
        elif opcode.name == "MEMOIZE":
            memo.append(last)
        last = str(argument) if "UNICODE" in opcode.name else None
        if "GET" in opcode.name and int(argument or 0) < len(memo):
            last = memo[int(argument or 0)]
        if last is not None:
            strings.append(last)


def names_in_archive(stream: BinaryIO) -> list[str]:
    """The same for the pickle in a zip archive by `torch.save`; none when its checksum is wrong."""
    try:
        with zipfile.ZipFile(stream) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return [name for entry in pickles for name in names_in(io.BytesIO(archive.read(entry)))]
    except zipfile.BadZipFile:
        return []


def unknown(names: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """The `names` that neither torch's unpickler nor this module nor the caller allows."""
    known = set(allowed) | torch_defaults() | {name for _, name in torch_globals()} | plain.TABLE.keys()
    return [name for name in names if name not in known]


def dangerous(names: Iterable[str]) -> list[str]:
    """The unknown `names` that could not be allowed either."""
    return [name for name in names if name not in WRAPPERS and _never(name)]


def harmful(names: Iterable[str]) -> list[str]:
    """The unknown `names` that nothing beside a model needs either: what runs a program or reaches a file."""
    return [name for name in dangerous(names) if not _is_kept_beside(name)]


def _is_kept_beside(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "builtins":
        return attribute in _KEPT_BESIDE_BUILTINS or isinstance(vars(builtins).get(attribute), type)
    return any(module == one or module.startswith(f"{one}.") for one in _KEPT_BESIDE)


def _present_name(module: str, name: str) -> str:
    """Translate Python 2's names, as the unpickler does."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def refusal(
    path: str, names: Sequence[str], allowed: Iterable[str], detail: str, options: Sequence[str] = ()
) -> UnsafePickleError:
    """The error for a pickle that was not loaded, with the line to type where there is one.

    Args:
        path: The file.
        names: Every class and function that it names.
        allowed: Those among them that were allowed.
        detail: What the unpickler said, used when no name explains it.
        options: What else the file needs, word by word, to be typed in the same line.
    """
    missing = unknown(names, allowed)
    never = dangerous(missing)
    if "__main__" in {name.rpartition(".")[0] for name in never}:
        return UnsafePickleError(
            f"{path} needs {', '.join(never)}, defined in the script that saved it.",
            "Move the class into a module and save again, or use torch.export.save in that script.",
        )
    if never:
        return UnsafePickleError(
            f"{path} was not opened: it asks for {', '.join(never)}, which no model needs.",
            "It could run code on your machine. Do not trust it; ask its author for a .pt2 or .onnx file.",
        )
    if missing:
        return UnsafePickleError(
            f"{path} needs classes that are not torch.nn's: {', '.join(missing)}.",
            "If you trust them, add: " + " ".join([*(f"--allow {name}" for name in missing), *options]),
        )
    return UnsafePickleError(
        f"{path} was not opened: {detail}.",
        "Save it again with torch.save(model, path), or torch.export.save.",
    )


def torch_defaults() -> set[str]:
    """Names that torch's weights-only unpickler knows by itself, and those that this process registered."""
    from torch import _weights_only_unpickler as unpickler

    # no public list has them; what is refused does not depend on it
    return set(unpickler._get_allowed_globals()) | registered()  # noqa: SLF001


def registered() -> set[str]:
    """Names that this process registered with torch."""
    return {
        entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
        for entry in torch.serialization.get_safe_globals()
    }
