"""Tell what a file is from its first bytes, so that an error can name what the user really has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bnfold.errors import ModelError, reason

_HEAD = 4096
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive (as PyTorch writes)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a PyTorch file in the format before 1.6"),
    (b"\x89HDF", "an HDF5 file (as Keras writes)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x80", "a pickle"),
)
_TAR = (257, b"ustar")
_TEXT_CONTROLS = b"\t\n\r\f"


def describe(head: bytes) -> str:
    """Name the kind of file that starts with `head`; `""` when nothing is recognised.

    An ONNX file has no signature: it starts with field 1 (`ir_version`) of its protobuf, byte 8.
    """
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[_TAR[0] : _TAR[0] + len(_TAR[1])] == _TAR[1]:
        return "a tar archive"
    if head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return "a safetensors file (weights without a network)"
    if head.startswith(b"\x08") and head[1:2] <= b"\x40":
        return "an ONNX model"
    return "a text file" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(head)  # a character cut in two by the end of what was read
    return bool(head)


def head_of(path: str | os.PathLike[str]) -> bytes:
    """Read the first 4096 bytes of the model file at `path`.

    Raises:
        ModelError: The path is not there, not a file, not readable, or empty.
    """
    file = Path(path)
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # some never end, some never begin
            raise ModelError(f"{path} is a device or a pipe.", "Give the model's file.")
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError:
        raise ModelError(f"{path} is not there.", "Check the path; it is relative to this folder.") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder.", "Give the model file that is in it.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}.", "Check its permissions.") from error
    except ValueError:
        raise ModelError(f"{str(path)!r} is no path.", "Take the NUL character out of it.") from None
    if not head:
        raise ModelError(f"{path} is empty.", "Save or download the model again.")
    return head


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
