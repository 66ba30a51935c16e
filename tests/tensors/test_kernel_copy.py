"""Copying by the kernel, and the same bytes where the kernel does not."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnfold.errors import ModelError
from bnfold.tensors import kernel_copy
from bnfold.tensors.file_tensor import File

CONTENT = np.random.default_rng(0).bytes(3_000_017)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is copied by the kernel")


@pytest.fixture
def source(tmp_path: Path) -> File:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return File(path)


def copied(source: File, target: Path) -> bytes:
    """Two parts of the source between bytes of one's own."""
    with target.open("wb") as stream:
        stream.write(b"before")
        kernel_copy.copy(source, 11, 2_000_003, stream)
        assert stream.tell() == 2_000_009
        stream.write(b"between")
        kernel_copy.copy(source, 5, 70, stream)
        stream.write(b"after")
    return target.read_bytes()


EXPECTED = b"before" + CONTENT[11:2_000_014] + b"between" + CONTENT[5:75] + b"after"


def refusing(code: int) -> Callable[..., int]:
    def refuse(*_args: int, **_named: int) -> int:
        raise OSError(code, os.strerror(code))

    return refuse


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    counts: list[int] = []
    real = getattr(os, name)

    def count(*args: int, **named: int) -> int:
        counts.append(real(*args, **named))
        return counts[-1]

    monkeypatch.setattr(kernel_copy.os, name, count)
    return counts


def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(File, "read_into", lambda *_: pytest.fail("bytes passed through this process"))


@LINUX
def test_the_kernel_copies(source, tmp_path, monkeypatch) -> None:
    nothing_read(monkeypatch)
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
def test_sendfile_where_there_is_no_copy_file_range(source, tmp_path, monkeypatch, code) -> None:
    nothing_read(monkeypatch)
    monkeypatch.setattr(kernel_copy.os, "copy_file_range", refusing(code))
    sent = counted(monkeypatch, "sendfile")
    assert copied(source, tmp_path / "target") == EXPECTED
    assert sum(sent) == 2_000_073


@LINUX
def test_sendfile_where_python_lacks_copy_file_range(source, tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(kernel_copy.os, "copy_file_range")
    nothing_read(monkeypatch)
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_reading_and_writing_where_there_is_neither(source, tmp_path, monkeypatch, code) -> None:
    for name in ("copy_file_range", "sendfile"):
        monkeypatch.setattr(kernel_copy.os, name, refusing(code))
    assert copied(source, tmp_path / "target") == EXPECTED


def test_another_system(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(kernel_copy, "sys", SimpleNamespace(platform="win32"))
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
def test_pieces_and_short_copies_are_carried_on(source, tmp_path, monkeypatch) -> None:
    nothing_read(monkeypatch)
    real = os.copy_file_range

    def short(one: int, two: int, count: int, *offsets: int) -> int:
        return real(one, two, min(count, 65_537), *offsets)

    monkeypatch.setattr(kernel_copy.os, "copy_file_range", short)
    assert copied(source, tmp_path / "target") == EXPECTED
    monkeypatch.setattr(kernel_copy, "_PIECE", 1_001)
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
@pytest.mark.parametrize("end", [OSError(errno.EXDEV, "no"), 0])
def test_a_way_that_stops_in_the_middle_is_taken_over(source, tmp_path, monkeypatch, end) -> None:
    for name in ("copy_file_range", "sendfile"):
        real, turns = getattr(os, name), iter(range(100))

        def once(*args: int, real=real, turns=turns) -> int:
            if next(turns) % 2:
                if isinstance(end, OSError):
                    raise end
                return end
            return real(*args)

        monkeypatch.setattr(kernel_copy.os, name, once)
    monkeypatch.setattr(kernel_copy, "_PIECE", 500_000)
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_is_wrong_with_the_disk_is_told_as_it_is(source, tmp_path, monkeypatch, code) -> None:
    nothing_read(monkeypatch)
    monkeypatch.setattr(kernel_copy.os, "copy_file_range", refusing(code))
    with pytest.raises(OSError, match=r".") as caught:
        copied(source, tmp_path / "target")
    assert caught.value.errno == code


@pytest.mark.parametrize("kernel", [True, False])
def test_a_source_that_became_too_short(source, tmp_path, monkeypatch, kernel) -> None:
    if not kernel:
        monkeypatch.setattr(kernel_copy, "_by_kernel", lambda *_: iter(()))
    os.truncate(source.path, 1_000_000)
    with pytest.raises(ModelError, match="written to"):
        copied(source, tmp_path / "target")


def test_into_what_is_no_file(source) -> None:
    stream = io.BytesIO()
    kernel_copy.copy(source, 3, 1_500_000, stream)
    assert stream.getvalue() == CONTENT[3:1_500_003]


def test_nothing_at_all(source, tmp_path) -> None:
    with (tmp_path / "target").open("wb") as stream:
        kernel_copy.copy(source, 3, 0, stream)
    assert (tmp_path / "target").read_bytes() == b""


@LINUX
def test_a_file_system_that_takes_no_hints(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(kernel_copy.os, "posix_fadvise", refusing(errno.EINVAL))
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
def test_of_a_very_large_file_only_the_beginning_is_remembered(
    source: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may still be on its way to the disk and the first bytes are not dropped; all between is."""
    told: list[tuple[int, ...]] = []

    def note(_: int, begin: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        told.append((begin, length))

    monkeypatch.setattr(kernel_copy.os, "posix_fadvise", note)
    monkeypatch.setattr(kernel_copy, "_REMEMBERED", 1000)
    monkeypatch.setattr(kernel_copy, "_ON_ITS_WAY", 300)
    dropped = np.zeros(5000, bool)
    for begin in range(0, 5000, 100):
        told.clear()
        kernel_copy.start_writing(source.fileno(), begin, 100)
        assert told.pop(0) == (begin, 100)
        for first, length in told:
            assert first >= 1000
            assert first + length <= begin - 300
            dropped[first : first + length] = True
    assert dropped[1000:4600].all()
    assert not (dropped[:1000].any())
    assert not (dropped[4600:].any())


@LINUX
def test_dropping_what_is_on_the_disk_changes_no_byte(
    source: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_copy, "_REMEMBERED", 1 << 16)
    monkeypatch.setattr(kernel_copy, "_ON_ITS_WAY", 1 << 16)
    monkeypatch.setattr(kernel_copy, "_PIECE", 1 << 17)
    monkeypatch.setattr(kernel_copy, "_BUFFER", 1 << 16)
    assert copied(source, tmp_path / "target") == EXPECTED


@LINUX
def test_what_the_kernel_copies_is_on_its_way_to_the_disk_at_once(
    source: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(
        kernel_copy, "start_writing", lambda _, begin, length: started.append((begin, length))
    )
    assert copied(source, tmp_path / "target") == EXPECTED
    assert started == [(6, 2_000_003)]
