"""Where a file may be written: in a folder that takes it, over an ordinary file or over none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.errors import SaveError
from bnfold.files.atomic import destination


def refused(path: Path | str) -> SaveError:
    with pytest.raises(SaveError) as caught:
        destination(path)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("path", ["-", "/dev/null", "/dev/stdout", "/dev/stderr"])
def test_a_device_or_stream_is_no_destination(path: str) -> None:
    error = refused(path)
    assert error.problem == f"{path} is no ordinary file."
    assert "--json -" in error.fix


def test_a_pipe_is_no_destination_nor_is_a_link_to_one(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        assert "no ordinary file" in refused(path).problem


def test_an_open_descriptor_is_no_destination() -> None:
    """A link in /proc to a pipe, whose resolved name is that of no file."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system shows no open files in /proc")
    reader, writer = os.pipe()
    try:
        assert "no ordinary file" in refused(f"/proc/self/fd/{writer}").problem
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
