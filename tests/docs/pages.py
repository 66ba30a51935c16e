"""The blocks of a page, and the commands that its console blocks show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.workplace import ROOT

DOCS = ROOT / "docs"
NOT_RUN = ("pip", "git", "make")  # what else a page may tell people to type
TOUR = "python -m tests.docs.workplace tour"  # what makes the files that a page speaks of


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The blocks of a page in their order, each with its language."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(block: str) -> Iterator[tuple[str, str, int]]:
    """Each command of a console block, with the output and the exit code that the block shows."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    for part, after in zip(parts, [*parts[1:], ""], strict=True):
        command, _, printed = part.partition("\n")
        if command != "echo $?":
            yield command, printed, int(after.split()[-1]) if after.startswith("echo $?") else 0
