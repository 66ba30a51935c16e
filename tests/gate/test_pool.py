"""Processes that are started from any kind of program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bnfold.gate.pool import _main_without_a_file, outcomes
from tests.gate.models import layers, save

PROGRAM = """
print("this runs once")
import bnfold

checked = bnfold.check("net.onnx", select="M101")
print([(one.path, one.code) for one in checked.findings])
import __main__

print(hasattr(__main__, "__file__"), __main__.checked is checked)
"""


@pytest.mark.parametrize("kind", ["a script", "standard input"])
def test_a_program_needs_no_guard(tmp_path: Path, kind: str) -> None:
    save(layers(), tmp_path / "net.onnx")
    if kind == "a script":
        (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, "program.py"] if kind == "a script" else [sys.executable, "-"]
    done = subprocess.run(
        program,
        input=None if kind == "a script" else PROGRAM,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.stderr
    assert done.stdout.splitlines() == ["this runs once", "[('net.onnx', 'M101')]", "True True"]
    assert done.returncode == 0


def test_main_is_as_it_was_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "something", object(), raising=False)

    def start() -> None:
        with _main_without_a_file():
            meanwhile = sys.modules["__main__"]
            assert meanwhile is not main
            assert meanwhile.something is main.something
            assert meanwhile.__spec__ is None
            assert not hasattr(meanwhile, "__file__")
            raise OSError("no process")

    with pytest.raises(OSError, match="no process"):
        start()
    assert sys.modules["__main__"] is main


def test_nothing_asked_starts_nothing() -> None:
    assert not list(outcomes(print, {}, 1, 1.0))
