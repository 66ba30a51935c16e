"""What an archive by `torch.jit.save` may hold, checked before `torch.jit.load` sees it.

TorchScript is a separate language, and its interpreter runs no Python. Two of its operators write files or
map them into memory, though, others access the network, and a class's `__setstate__` runs while the file
is loaded. So the code is parsed (its syntax is Python's) and searched for them; operators and classes of
extensions are refused. Its pickles are read by the same interpreter, which knows tensors and the archive's
own classes; one that names anything else was put there for another reader, and the file is refused. That
interpreter makes room for whatever a length, a place or a shape in a pickle says: they are checked before.
"""

from __future__ import annotations

import ast
import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from bnfold.errors import ModelError, UnsafePickleError, reason
from bnfold.torch.read.safety import bounds, pickles, sketch, tensor_sizes
from bnfold.torch.read.safety.budget import ExcessiveError

_PICKLE = re.compile(r".*(\.|_)pkl")
_OWN_CLASS = re.compile(r"__torch__(\.\w+)+")
_KNOWN = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.jit\._pickle\.\w+|torch\.(device|Size)"
    r"|collections\.OrderedDict|builtins\.complex"
)
_DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, SyntaxError, RecursionError, MemoryError),
    *(ValueError, EOFError, TypeError, AttributeError, IndexError),  # also of a pickle cut short
)
_TRACED = "/traced_inputs.pkl"
_TYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
}
_NAMESPACES = {"aten", "prim", "quantized", "torchvision"}
_NEVER = {"save", "from_file", "rpc_sync", "rpc_async", "rpc_remote"}
_EXTENSION = "__torch__.torch.classes"


def check(stream: BinaryIO, path: str) -> None:
    """Refuse the archive in `stream` unless its code only computes.

    Args:
        stream: The archive, which [`entries`][bnfold.torch.read.safety.archive.entries] has passed.
        path: Its path, for the messages.

    Raises:
        ModelError: It is damaged.
        UnsafePickleError: Its code or its pickles could do more than compute, or ask for more than it holds.
    """
    size = stream.seek(0, 2)
    try:
        with zipfile.ZipFile(stream) as archive:
            found = [problem for name in archive.namelist() for problem in _problems(archive, name)]
            for name in [] if found else archive.namelist():
                if _PICKLE.fullmatch(name):
                    _check_pickle(archive, name, size)
    except ExcessiveError as error:
        raise UnsafePickleError(
            f"{path} was not opened: it asks for {reason(error)}.",
            "PyTorch does not write such files. Do not trust it.",
        ) from None
    except _DAMAGE as error:
        raise ModelError(
            f"{path} is damaged: {reason(error)}.", "Save it again with torch.jit.save."
        ) from None
    if found:
        raise UnsafePickleError(
            f"{path} was not opened: it holds {found[0]}, which no network needs.",
            "It could run code on your machine or write its files. Do not trust it.",
        )


def _check_pickle(archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Compare the tensors of a pickle with their numbers, which are in the folder that has its name."""
    drawn = sketch.read(io.BytesIO(archive.read(name)))
    if name.endswith(_TRACED):  # shapes without numbers, which torch.jit.load does not read
        return
    folder = name.removesuffix(".pkl") + "/"
    records = {entry.filename.removeprefix(folder): entry.file_size for entry in archive.infolist()}
    bounds.check_tensors(drawn.root, size, records)


def traced_with(stream: BinaryIO) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shape and type of every input of `forward` that a trace was made with; none where the file lacks them.

    Args:
        stream: An archive that [`check`][bnfold.torch.read.safety.torchscript.check] has passed.
    """
    with zipfile.ZipFile(stream) as archive:
        entry = next((one for one in archive.namelist() if one.endswith(_TRACED)), None)
        root = sketch.read(io.BytesIO(archive.read(entry))).root if entry else None
    given = _first(root).get("forward") if isinstance(_first(root), sketch.Table) else None
    inputs = _first(given).members if isinstance(_first(given), sketch.Sequence) else []
    found = [(tensor_sizes.sizes_of(one), _TYPES.get(tensor_sizes.type_of(one), "")) for one in inputs]
    return tuple(found) if all(kind and all(shape) for shape, kind in found) else ()


def _first(node: sketch.Node) -> sketch.Node:
    """What a note of its type was put on, or the node itself."""
    if isinstance(node, sketch.Call) and node.function.name == "restore_type_tag":
        return next(iter(node.arguments.members), None)
    return node


def _problems(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    if _PICKLE.fullmatch(name):
        for known in pickles.names_in(io.BytesIO(archive.read(name))):
            if known.startswith(_EXTENSION) or not (_OWN_CLASS.fullmatch(known) or _KNOWN.fullmatch(known)):
                yield f"a pickle, {name!r}, that asks for {known}"
    elif name.endswith(".py") and name.partition("/")[2].startswith("code/"):
        for node in ast.walk(ast.parse(archive.read(name))):
            yield from _calls(node)


def _calls(node: ast.AST) -> Iterator[str]:
    """The operators that a piece of code names and must not; `x.save()` is `torch.save(x)` in TorchScript."""
    if isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        operator = re.match(r"ops\.(\w+)", text)
        if node.attr in _NEVER or (operator and operator[1] not in _NAMESPACES):
            yield f"a call of {text}"
        elif text == _EXTENSION:
            yield "a class of an extension"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in _NEVER:
        yield f"the name {node.value!r}"
