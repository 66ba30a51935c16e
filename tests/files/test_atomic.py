"""Where a file may be written: in a folder that takes it, over an ordinary file or over none."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from bnfold.errors import SaveError
from bnfold.files import atomic
from bnfold.files.atomic import destination, replacing


def refused(path: Path | str) -> SaveError:
    with pytest.raises(SaveError) as caught:
        destination(path)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("path", ["-", "/dev/null", "/dev/stdout", "/dev/stderr"])
def test_a_device_or_stream_is_no_destination(path: str) -> None:
    error = refused(path)
    assert error.problem == f"{path} is not an ordinary file."
    assert "--json -" in error.fix


def test_a_pipe_is_no_destination_nor_is_a_link_to_one(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        assert "not an ordinary file" in refused(path).problem


def test_an_open_descriptor_is_no_destination() -> None:
    """A link in /proc to a pipe, whose resolved name is that of no file."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system shows no open files in /proc")
    reader, writer = os.pipe()
    try:
        assert "not an ordinary file" in refused(f"/proc/self/fd/{writer}").problem
    finally:
        os.close(reader)
        os.close(writer)


def test_a_file_and_a_link_to_a_file_that_is_not_there_yet_are_destinations(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    assert destination(link) == destination(file) == file.resolve()
    file.touch()
    assert destination(link) == file.resolve()


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (tmp_path, os.W_OK))
    assert "is read-only" in refused(tmp_path / "m.onnx").problem


def test_what_is_written_is_on_its_way_to_the_disk_before_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(atomic, "_AT_ONCE", 1000)
    monkeypatch.setattr(atomic, "start_writing", lambda _, begin, length: started.append((begin, length)))
    path = tmp_path / "file"
    content = bytes(range(250)) * 300
    with replacing(path) as stream:
        for begin in range(0, len(content), 600):
            stream.write(content[begin : begin + 600])
            stream.flush()
        assert not path.exists()
    assert path.read_bytes() == content
    assert started[0] == (0, 1200)
    assert all(begin + length == after for (begin, length), (after, _) in pairwise(started))
    assert sum(started[-1]) > len(content) - 1000


def test_a_file_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), rename(self, to))[1])
    with replacing(tmp_path / "file") as stream:
        stream.write(b"content")
    assert done == ["sync", "rename", "sync"]  # the file, its name, the folder


def test_an_interrupt_leaves_the_former_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")

    def interrupted() -> None:
        with replacing(path) as stream:
            stream.write(bytes(100_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]
