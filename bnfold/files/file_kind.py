"""What a file is, by its first bytes, so that an error can name what the user really has."""

from __future__ import annotations

import enum
import hashlib
import os
from pathlib import Path
from typing import Literal, TypeAlias

from bnfold.errors import ModelError, reason

ModelKind: TypeAlias = Literal[
    "onnx", "module", "exported program", "torchscript", "state_dict", "safetensors"
]
"""What a report calls the model that a file holds."""


class FileKind(enum.Enum):
    """What a file is; the value is what messages call it."""

    ONNX = "an ONNX model"
    ZIP = "a zip archive (as PyTorch writes)"
    EMPTY_ZIP = "an empty zip archive"
    OLD_TORCH = "a PyTorch file in the format before 1.6"
    PICKLE = "a pickle"
    SAFETENSORS = "a safetensors file (weights without a network)"
    GIT_LFS = "a Git LFS pointer, not the file itself"
    HDF5 = "an HDF5 file (as Keras writes)"
    GZIP = "a gzip archive"
    TAR = "a tar archive"
    TEXT = "a text file"
    EMPTY = "empty"
    UNKNOWN = "a file of unknown kind"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of(cls, head: bytes) -> FileKind:
        """The kind of the file that starts with `head`.

        An ONNX file has no signature: it starts with field 1 (`ir_version`) of its protobuf, byte 8.
        """
        if head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":  # the length before it can begin as a pickle does
            return cls.SAFETENSORS
        for signature, kind in _SIGNATURES:
            if head.startswith(signature):
                return kind
        if head[_TAR[0] : _TAR[0] + len(_TAR[1])] == _TAR[1]:
            return cls.TAR
        if head.startswith(b"\x08") and head[1:2] <= b"\x40":
            return cls.ONNX
        return cls.EMPTY if not head else cls.TEXT if _is_text(head) else cls.UNKNOWN


TORCH_KINDS = frozenset({FileKind.ZIP, FileKind.OLD_TORCH, FileKind.PICKLE, FileKind.SAFETENSORS})
"""What PyTorch's files are."""

_HEAD = 4096
_SIGNATURES = (
    (b"PK\x03\x04", FileKind.ZIP),
    (b"PK\x05\x06", FileKind.EMPTY_ZIP),
    (b"version https://git-lfs", FileKind.GIT_LFS),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", FileKind.OLD_TORCH),
    (b"\x89HDF", FileKind.HDF5),
    (b"\x1f\x8b", FileKind.GZIP),
    (b"\x80", FileKind.PICKLE),
)
_TAR = (257, b"ustar")
_TEXT_CONTROLS = b"\t\n\r\f"


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(head)  # a character cut in two by the end of what was read
    return True


def kind_of(path: str | os.PathLike[str]) -> FileKind:
    """What the model file at `path` is.

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
        raise ModelError(f"{str(path)!r} is not a path.", "Take the NUL character out of it.") from None
    if not head:
        raise ModelError(f"{path} is empty.", "Save or download the model again.")
    return FileKind.of(head)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
