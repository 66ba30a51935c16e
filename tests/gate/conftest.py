"""A check that asks its rules in this process, which saves the time that others take to start."""

from __future__ import annotations

import pytest

from bnfold.gate import fix, run
from tests.gate.models import answering, here


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that rules were asked about, in turn."""
    names: list[str] = []
    monkeypatch.setattr(run, "_answers", answering(names))
    monkeypatch.setattr(fix, "outcomes", here)
    return names
