"""Reading ONNX files: weights stay on disk until needed, and what is wrong is reported in one clear line."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.errors import (
    BnfoldError,
    FileAccessError,
    ModelError,
    OutOfMemoryError,
    UnforeseenError,
    reason,
)
from bnfold.files import external_data
from bnfold.files.consistency import demand_consistent, demand_given
from bnfold.files.file_kind import FileKind, kind_of
from bnfold.files.other_types import put_away
from bnfold.files.protobuf_scan import RawData, WireError, field, raw_data, replaced
from bnfold.files.repair import demand_bounded, put_right
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.tensors.file_tensor import File

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
OLDEST_IR = 3
PROTOBUF_LIMIT = 2**31 - 1
_LEFT_FROM = 4096  # bytes; below, reading costs no more than remembering where
_DATA_LOCATION_EXTERNAL = b"\x70\x01"  # field 14, a number: 1
_PLAIN_TYPES = frozenset(ir.DataType) - {
    ir.DataType.UNDEFINED,
    ir.DataType.STRING,
    ir.DataType.FLOAT6E2M3,  # whose padding onnx_ir checks when it writes
    ir.DataType.FLOAT6E3M2,
}

NOTES = "bnfold.notes"
"""Where a model that was read has the sentences on what was put right in it."""

_DROPPED = {"training_info": "a graph to train it with", "configuration": "configurations of devices"}


def load_onnx(path: str | os.PathLike[str]) -> ir.Model:
    """Read the ONNX model at `path`, but for its larger tensors, which stay on disk until they are read.

    Those are [`FileTensor`][bnfold.tensors.file_tensor.FileTensor]s, in the file or in its external data.
    The files stay open meanwhile: they may be replaced or deleted, but not written to.

    Returns:
        The model, whose external tensors have been checked to lie in the model's own folder and to be there
        in full.

    Raises:
        ModelError: Not there, a folder, empty, truncated, not ONNX, without a graph, older than IR 3, or with
            external data that is missing, too short, or outside the model's folder.
    """
    kind = kind_of(path)
    file = Path(path)
    try:
        model = _in_place(file, kind)
    except (WireError, ModelError):  # protobuf has the last word on what is wrong, if anything is
        model = from_proto(_parse(file, kind), str(path))
    external_data.locate(model, file)
    return model


def files_beside(path: Path) -> set[Path]:
    """The files that hold tensors of the ONNX model at `path`; none of what cannot be read as one."""
    try:
        return external_data.data_files(load_onnx(path)) if kind_of(path) is FileKind.ONNX else set()
    except ModelError:
        return set()


def _in_place(path: Path, kind: FileKind) -> ir.Model:
    """The model at `path`, whose larger tensors have not been read.

    Protobuf reads a copy of the file in which their bytes are exchanged for references.

    Raises:
        WireError: There are none, or one would differ from what plain parsing gives.
        ModelError: As for `load_onnx`, or the file changed meanwhile.
    """
    file = File(path)
    if len(file) > PROTOBUF_LIMIT:
        raise WireError("larger than a message may be")
    found = raw_data(file, _LEFT_FROM)
    if not found:
        raise WireError("nothing to leave in the file")
    marker = secrets.token_hex(16)  # which no file can have guessed
    pieces = replaced(file, [(raw, _reference(marker, raw), 0) for raw in found])
    proto = _checked(b"".join(piece for piece in pieces if isinstance(piece, bytes)), path, kind)
    model = from_proto(proto, str(path))
    left = []

    def back(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor) or tensor.location != marker:
            return tensor
        if not _is_consistent(tensor):
            raise WireError("a tensor whose bytes do not fit its type and sizes")
        left.append(external_data.file_tensor(tensor, file, external=False))
        return left[-1]

    external_data.exchange(model, back)
    if len(left) != len(found):
        raise WireError("a tensor that is not part of the model")
    file.check()
    return model


def _reference(marker: str, raw: RawData) -> bytes:
    """The fields that mark the bytes of a tensor as external data."""
    entries = {"location": marker, "offset": str(raw.begin), "length": str(raw.stop - raw.begin)}
    pairs = (field(1, key.encode()) + field(2, value.encode()) for key, value in entries.items())
    return b"".join(field(13, pair) for pair in pairs) + _DATA_LOCATION_EXTERNAL


def _is_consistent(tensor: ir.ExternalTensor) -> bool:
    """Whether it has as many bytes as its type and sizes need, and all its texts are strings."""
    if tensor.dtype not in _PLAIN_TYPES or min(tensor.shape.numpy(), default=0) < 0:
        return False
    texts = (tensor.name, tensor.doc_string, *tensor.metadata_props, *tensor.metadata_props.values())
    return bool(tensor.length == tensor.nbytes and not any(isinstance(text, bytes) for text in texts))


def from_proto(proto: onnx.ModelProto, name: str = "The model") -> ir.Model:
    """Convert a `ModelProto`; its weights stay where they are until they are read.

    Args:
        proto: Of any origin.
        name: What messages call it.

    Raises:
        ModelError: It is inconsistent, or holds what onnx_ir does not keep: sparse initializers, training
            information and device configurations, which it would drop silently.
    """
    if any(graph.sparse_initializer for graph in _graphs(proto)):
        raise ModelError(
            f"{name} has sparse initializers, which bnfold does not read.",
            "Store them as dense initializers, or as Constant nodes.",
        )
    for field_name, what in _DROPPED.items():
        if getattr(proto, field_name, ()):
            raise ModelError(f"{name} holds {what}, which bnfold would lose.", f"Remove its {field_name}.")
    if any(function.domain in ONNX_DOMAINS for function in proto.functions):
        raise ModelError(
            f"{name} redefines operators of ONNX in its own functions.",
            "Give its functions another domain.",
        )
    demand_bounded(proto, name)
    try:
        with put_away(proto):
            model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises whatever the malformed part leads it to
        cause = _explanation(error)
        raise ModelError(
            f"{name} cannot be read as an ONNX graph: {reason(cause)}.",
            "onnx.checker.check_model says more about what is wrong with it.",
        ) from error
    demand_consistent(model, name)
    model.meta[NOTES] = put_right(model, name)
    return model


def _parse(path: Path, kind: FileKind) -> onnx.ModelProto:
    """The protobuf at `path`, known to be a model of at least IR 3 with a graph."""
    try:
        if path.stat().st_size > PROTOBUF_LIMIT:
            raise ModelError(
                f"{path} is larger than 2 GB, which no ONNX file can be.",
                "Save its weights as external data, as in onnx.save(..., save_as_external_data=True).",
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}.", "Check the disk.") from error
    return _checked(data, path, kind)


def _checked(data: bytes, path: Path, kind: FileKind) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise _not_onnx(path, kind) from None
    if not proto.ir_version and kind is not FileKind.ONNX:
        raise _not_onnx(path, kind)
    if not proto.HasField("graph"):
        raise ModelError(
            f"{path} has no graph: it is truncated, or not an ONNX model.", "Save or download it again."
        )
    if proto.ir_version < OLDEST_IR:
        raise ModelError(
            f"{path} has IR version {proto.ir_version}; bnfold reads {OLDEST_IR} and newer.",
            "Export the model again with an exporter that is newer than 2017.",
        )
    if not proto.opset_import:  # the field that follows the graph, required since IR 3
        raise ModelError(f"{path} is truncated: its opset is missing.", "Save or download it again.")
    return proto


def _not_onnx(path: Path, kind: FileKind) -> ModelError:
    if kind is FileKind.ONNX:
        return ModelError(f"{path} is truncated or damaged.", "Save or download it again.")
    fix = {
        FileKind.GIT_LFS: "Fetch the file itself with: git lfs pull",
        FileKind.ZIP: "For a PyTorch file, type: bnfold export MODEL -o OUT.onnx",
    }.get(kind, "Give an ONNX model in the binary format that onnx.save writes.")
    return ModelError(f"{path} is {kind}, not an ONNX model.", fix)


def _explanation(error: Exception) -> BaseException:
    """What onnx_ir found first, which it may have wrapped in less helpful errors."""
    chain: list[BaseException] = [error]
    while (deeper := chain[-1].__cause__ or chain[-1].__context__) and not isinstance(deeper, WireError):
        chain.append(deeper)
    return next(
        (one for one in reversed(chain) if isinstance(one, ValueError)), chain[min(1, len(chain) - 1)]
    )


@contextlib.contextmanager
def blaming(path: str | os.PathLike[str], *more: str | os.PathLike[str]) -> Iterator[None]:
    """Let only errors pass that say what to do: the border between bnfold and those who call it with files.

    Raises:
        ModelError: Something unexpected was raised, and the ONNX model at a path is not valid; says what
            ONNX's checker finds.
        FileAccessError: The system refused something.
        OutOfMemoryError: There was not enough memory.
        UnforeseenError: Anything else unexpected.
    """
    try:
        yield
    except (BnfoldError, BrokenPipeError):  # whoever reads what is written has gone
        raise
    except OSError as error:
        raise FileAccessError(path, error) from error
    except MemoryError as error:
        raise OutOfMemoryError(
            f"There is not enough memory. {error}".strip(),
            "Use a machine or a limit with more; a comparison also takes less with smaller --inputs.",
        ) from error
    except Exception as error:
        for one in (path, *more):
            _demand_valid(one, error)
        raise UnforeseenError(path, error) from error


def _demand_valid(path: str | os.PathLike[str], error: Exception) -> None:
    """Blame an error on a file if it is an ONNX model that is not valid."""
    if kind_of(path) in (FileKind.ONNX, FileKind.UNKNOWN):  # protobuf has no signature
        try:
            onnx.checker.check_model(os.fspath(path))
        except Exception as problem:  # the checker raises what its libraries do
            raise ModelError(
                f"{path} is not a valid ONNX model: {reason(problem)}.", "Save, download or export it again."
            ) from error
        demand_given(load_onnx(path), str(path))  # which the checker does not see everywhere


def guarded(function: Callable[P, ResultT], files: int = 1) -> Callable[P, ResultT]:
    """Put [`blaming`][bnfold.files.load.blaming] around a function.

    Args:
        function: What is called with files.
        files: How many of its first parameters may be a file.
    """
    signature = inspect.signature(function)
    names = list(signature.parameters)[:files]

    @functools.wraps(function)
    def border(*arguments: P.args, **options: P.kwargs) -> ResultT:
        signature.bind(*arguments, **options)  # a wrong call is not a fault of the file
        given = [*arguments[:files], *(options[name] for name in names if name in options)]
        paths = [one for one in given if isinstance(one, (str, os.PathLike))]
        if not paths:
            return function(*arguments, **options)
        with blaming(*paths):
            return function(*arguments, **options)

    return border


guarded_pair = functools.partial(guarded, files=2)
"""The same for a function whose first two parameters are files."""


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all within its nodes and those of functions."""
    yield proto.graph
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while nodes:
        for attribute in nodes.pop().attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                inner = [attribute.g, *attribute.graphs]
                yield from inner
                nodes += [node for graph in inner for node in graph.node]
