"""Tensors that stay in their file, so that a large model costs no more memory than what is read at a time."""

from __future__ import annotations

import io
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from bnfold.errors import ModelError, reason
from bnfold.tensors.block_tensor import BLOCK, BlockTensor
from bnfold.tensors.kernel_copy import copy

_seeking = threading.Lock()


class File:
    """A file that is open for reading, and known to hold what it held when it was opened.

    Its slices are bytes, its length is its size. It is closed when its last tensor is no longer in use;
    until then it may be replaced or deleted, since the open file outlasts its name.

    Args:
        path: Of an ordinary file.

    Raises:
        ModelError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = io.FileIO(path)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {reason(error)}.", "Check its permissions.") from error
        weakref.finalize(self, self._stream.close)
        self._stamp = self._now()

    def __len__(self) -> int:
        return self._stamp[0]

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self))
        buffer = bytearray(max(0, stop - start))
        self.read_into(memoryview(buffer), start)
        return bytes(buffer)

    def fileno(self) -> int:
        """The descriptor, for the kernel to copy from; its position means nothing."""
        return self._stream.fileno()

    def read_into(self, part: memoryview, offset: int) -> None:
        """Fill `part` with the bytes from `offset` on.

        Raises:
            ModelError: The file is too short by now, or the disk fails.
        """
        while len(part):
            try:
                count = _read_at(self._stream, part, offset)
            except OSError as error:
                raise ModelError(
                    f"{self.path} cannot be read: {reason(error)}.", "Check the disk."
                ) from error
            if not count:
                raise self._changed()
            part, offset = part[count:], offset + count

    def check(self) -> None:
        """Check that nothing has written to the file since it was opened.

        Raises:
            ModelError: Something has. What was read since then may be of either content.
        """
        if self._now() != self._stamp:
            raise self._changed()

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._stream.fileno())
        return state.st_size, state.st_mtime_ns

    def _changed(self) -> ModelError:
        return ModelError(
            f"{self.path} was written to while it was in use.",
            "Start again once the other program is done.",
        )


def _read_at(stream: io.FileIO, part: memoryview, offset: int) -> int:
    if sys.platform == "win32":
        with _seeking:  # a descriptor has one position there, whoever reads
            stream.seek(offset)
            return stream.readinto(part) or 0
    return os.preadv(stream.fileno(), [part], offset)


class FileTensor(BlockTensor):
    """A constant within a file, read each time it is asked for.

    Attributes:
        file: Where it is; shared with other tensors.
        offset: Of its first byte there. Its bytes are those of `raw_data`, `nbytes` in number.
        external: Whether that is another file than the model's own.

    Args:
        dtype: Any type but STRING.
        shape: The sizes.
        name: Of the tensor.
        doc_string: Of the tensor.
        metadata_props: Of the tensor.
    """

    def __init__(
        self,
        file: File,
        offset: int,
        dtype: ir.DataType,
        shape: Sequence[int] | ir.Shape,
        *,
        external: bool = False,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(dtype, shape, name=name, doc_string=doc_string, metadata_props=metadata_props)
        self.file = file
        self.offset = offset
        self.external = external

    def blocks(self) -> Iterator[memoryview]:
        """The bytes as they are in the file.

        Raises:
            ModelError: The file has changed since it was opened.
        """
        left, offset = self.nbytes, self.offset
        buffer = memoryview(bytearray(min(left, BLOCK)))
        while left:
            block = buffer[: min(left, BLOCK)]
            self.file.read_into(block, offset)
            self.file.check()
            yield block
            left, offset = left - len(block), offset + len(block)

    def tofile(self, file: BinaryIO) -> None:
        """Write the bytes, which the kernel copies where it can.

        Raises:
            ModelError: The file has changed since it was opened.
        """
        copy(self.file, self.offset, self.nbytes, file)
        self.file.check()
