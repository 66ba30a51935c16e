"""Modules of the current folder are found while the block lasts."""

from __future__ import annotations

import importlib
import sys

import pytest

pytest.importorskip("torch")
from bnfold.torch.read.safety.importing import from_here


def test_the_current_folder_is_searched_and_forgotten(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "found_here.py").write_text("print('imported')\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with from_here():
        importlib.import_module("found_here")
    del sys.modules["found_here"]
    assert sys.path == before
    assert capsys.readouterr() == ("", "imported\n")


def test_what_the_code_itself_adds_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with from_here():
        sys.path.append("elsewhere")
        sys.path.remove(str(tmp_path))
    assert sys.path[-1] == "elsewhere"
