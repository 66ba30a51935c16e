"""What an archive by `torch.export.save` may hold, checked before `torch.export.load` sees it.

`torch.export.load` trusts its file: where a tensor is not weights-only loadable it unpickles it fully; it
unpickles custom objects; it evaluates the text of symbolic sizes through sympy, which is Python's `eval`; it
looks operators up by any dotted name below `torch` (`torch.os.system` is one) and generates Python source
from the names of values; it loads compiled libraries. A file that a real export writes needs none of this:
this module describes such a file and refuses everything else. While it is loaded, torch's own switch
that forces weights-only unpickling is on as well.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader

from bnfold.errors import ModelError, UnsafePickleError, reason
from bnfold.torch.read.safety import archive, bounds, pickles, sketch
from bnfold.torch.read.safety.budget import ExcessiveError

_RECORD = re.compile(
    r"archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+"
    r"|extra/.*|models/[^/]+\.json|data/sample_inputs/[^/]+\.pt"
    r"|data/(weights/(weight_\d+|[^/]+_weights_config\.json)|constants/(tensor_\d+|[^/]+_constants_config\.json))",
    re.DOTALL,
)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision|onnx)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|invoke_subgraph"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.(sym_\w+|_sym_sqrt)|math\.[a-z]\w*"
    r"|_operator\.(getitem|add|mul|sub|truediv|ge|le|gt|lt|eq|ne|floordiv|mod|and_|or_|not_|pow|neg|abs|pos)"
)
_NEVER_OPERATORS = ("torch.ops.aten.from_file", "torch.ops.aten.save")
_NAME = re.compile(r"\w*")
_PATH = re.compile(r"[^'\"\\\x00-\x1f(){}]*")
_EXPRESSION = (
    ast.Expression | ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare | ast.Constant | ast.Name | ast.Call
    | ast.keyword | ast.operator | ast.unaryop | ast.boolop | ast.cmpop | ast.expr_context | ast.Subscript
)  # fmt: skip
_FUNCTION = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|floor|ceiling"
    r"|(Equality|Unequality|((Strict)?(Less|Greater)Than))|Piecewise|ExprCondPair"
    r"|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|(Ceil|Floor|Trunc|Round)ToInt|CeilDiv|[LR]Shift"
    r"|PowByNatural|Float(Pow|TrueDiv)|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat"
    r"|RoundDecimal|ToFloat|Identity"
)


class _UnexpectedError(Exception):
    """Something in the archive that no real export writes."""


def check(stream: BinaryIO, names: set[str], path: str) -> None:
    """Refuse the archive in `stream` unless all of it is what `torch.export.save` writes.

    Args:
        stream: The archive; read with the same reader that `torch.export.load` uses.
        names: Its entries, below its root folder.
        path: Its path, for the messages.

    Raises:
        ModelError: It is damaged, or from a version of torch whose format is no longer read.
        UnsafePickleError: It holds something that could run code.
    """
    fix = "It could run code on your machine. Export it again with torch.export.save, or do not trust it."
    try:
        for name in sorted(names):
            if not _RECORD.fullmatch(name):
                raise _UnexpectedError(f"an entry {name!r}")
        stream.seek(0)
        reader = PT2ArchiveReader(stream)
        for name in sorted(reader.get_file_names()):
            if name.endswith(".json") and not name.startswith("extra/"):
                document = json.loads(reader.read_bytes(name))
                _walk(document, _payload if "_config.json" in name else _graph)
            elif name.startswith("data/sample_inputs/") and (data := reader.read_bytes(name)):
                _check_samples(data, name)
    except ModelError as error:  # about an archive within
        raise UnsafePickleError(f"{path} was not opened: {reason(error)}.", fix) from None
    except ExcessiveError as error:
        raise UnsafePickleError(f"{path} was not opened: it asks for {reason(error)}.", fix) from None
    except (_UnexpectedError, pickle.UnpicklingError) as error:
        raise UnsafePickleError(f"{path} was not opened: it holds {reason(error)}.", fix) from None
    except (RuntimeError, ValueError, EOFError, AssertionError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {reason(error)}.", "Save it again.") from error


def _check_samples(data: bytes, name: str) -> None:
    """The example inputs: an archive within the archive, which `torch.export.load` unpickles."""
    archive.entries(io.BytesIO(data), name)
    asked = pickles.unknown(pickles.names_in_archive(io.BytesIO(data)), ())
    if never := pickles.dangerous(asked):
        raise _UnexpectedError(f"a pickle, {name!r}, that asks for {never[0]}")
    with zipfile.ZipFile(io.BytesIO(data)) as samples:
        for entry in [one for one in samples.namelist() if one.endswith("data.pkl")]:
            folder = entry.removesuffix("data.pkl") + "data/"
            records = {one.filename.removeprefix(folder): one.file_size for one in samples.infolist()}
            root = sketch.read(io.BytesIO(samples.read(entry))).root
            bounds.check_depth(root, sketch.children)
            bounds.check(sketch.reachable([root]), len(data), records, pickles.registered())
    torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _walk(node: Any, visit: Callable[[str, Any], None], key: str = "") -> None:
    """Visit every key and value of a JSON document."""
    visit(key, node)
    if isinstance(node, dict):
        for name, child in node.items():
            _walk(child, visit, name)
    elif isinstance(node, list):
        for child in node:
            _walk(child, visit, key)


def _payload(key: str, value: Any) -> None:
    if key == "use_pickle" and value:
        raise _UnexpectedError("a tensor stored as a pickle")
    if key == "path_name" and not _PAYLOAD.fullmatch(str(value)):
        raise _UnexpectedError(f"a tensor stored in {value!r}")
    _graph(key, value)


def _graph(key: str, value: Any) -> None:
    if not isinstance(value, str):
        return
    if key in ("target", "as_operator"):
        if not _OPERATOR.fullmatch(value) or value.startswith(_NEVER_OPERATORS):
            raise _UnexpectedError(f"a call of {value}")
    elif key in ("expr_str", "guards_code"):
        _check_expression(value)
    elif key in ("in_spec", "out_spec"):
        _walk(json.loads(value), _tree)
    elif key in ("name", "as_name") and not _NAME.fullmatch(value):
        raise _UnexpectedError(f"a value named {value!r}")
    elif key.endswith("_name") and not _PATH.fullmatch(value):
        raise _UnexpectedError(f"a parameter named {value!r}")


def _tree(key: str, value: Any) -> None:
    """The structure of inputs and outputs; contexts are nested JSON, and two kinds import modules."""
    if key in ("__enum__", "fqn") or key.startswith("default_factory"):
        raise _UnexpectedError("a container that imports a module")
    if key == "context" and isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            _walk(json.loads(value), _tree)


def _check_expression(text: str) -> None:
    """Allow arithmetic over symbols, and the functions that torch writes; sympy evaluates the rest too."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError:
        raise _UnexpectedError(f"a size {text!r} that is not an expression") from None
    for node in nodes:
        ok = isinstance(node, _EXPRESSION)
        if isinstance(node, ast.Call):
            ok = isinstance(node.func, ast.Name) and _FUNCTION.fullmatch(node.func.id) is not None
            ok = ok or (isinstance(node.func, ast.Attribute) and node.func.attr == "size")
        elif isinstance(node, ast.Attribute):
            ok = node.attr in ("size", "shape")
        elif isinstance(node, ast.Name):
            ok = "__" not in node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            ok = node.value.isidentifier() and "__" not in node.value
        if not ok:
            raise _UnexpectedError(f"a size {text!r} that is more than arithmetic")


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Make every `torch.load` in the block weights-only, even if its caller asks for the opposite."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
