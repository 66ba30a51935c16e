"""Checks and mendings that are killed, that share a cache, that find no room on the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnfold.files import atomic
from bnfold.gate.configuration import Configuration
from bnfold.gate.fix import fix
from bnfold.gate.run import check
from bnfold.gate.settings import Settings
from tests.gate.models import layers, save

ROOT = Path(__file__).parents[2]


def test_killed_at_any_moment_no_wrong_answer_and_no_half_written_model_is_left(tmp_path: Path) -> None:
    """Type python -m tests.gate.killing FOLDER 100 100 for more than a sample."""
    program = [sys.executable, "-m", "tests.gate.killing", str(tmp_path), "12", "6"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 checks, ")
    assert "\n6 mendings, " in done.stdout


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_on_a_full_disk_a_model_is_as_it_was_and_the_next_one_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    for name in ("first.onnx", "second.onnx"):
        save(layers(), tmp_path / name)
    before = (tmp_path / "first.onnx").read_bytes()
    real = atomic._Output.write

    def write(self: atomic._Output, data: bytes) -> int:
        if "first" in str(self.name):
            raise OSError(error, os.strerror(error))
        return real(self, data)

    monkeypatch.setattr(atomic._Output, "write", write)
    mended = fix(check(str(tmp_path), Configuration(Settings(), tmp_path)))
    assert mended.files == ("second.onnx",)
    assert os.strerror(error) in dict(mended.failures)["first.onnx"]
    assert (tmp_path / "first.onnx").read_bytes() == before
    assert (tmp_path / "second.onnx").read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"first.onnx", "second.onnx"}


@pytest.mark.usefixtures("in_process")
def test_in_a_folder_that_is_read_only_models_are_checked_and_not_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(layers(), tmp_path / "net.onnx")
    before = path.read_bytes()
    real = os.open

    def refusing(name: str, flags: int, *more: int, **others: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(tmp_path) in str(name):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        return real(name, flags, *more, **others)

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(Path, "mkdir", lambda self, **_: refusing(str(self), os.O_CREAT))
    configuration = Configuration(Settings(), tmp_path)
    checked = check(str(tmp_path), configuration, cache=tmp_path / "cache")
    assert [one.code for one in checked.findings] == ["M101"]
    assert "read-only" in dict(fix(checked).failures)["net.onnx"]
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["net.onnx"]
