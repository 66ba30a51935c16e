"""What a check does not look for, as a sentence."""

from __future__ import annotations

UNREADABLE = frozenset({"M300", "M301", "M302", "M304", "M305"})
"""Rules of files of which nothing else is asked."""


def not_looked_for(files: int) -> str:
    """That a check does not look for BatchNorms in PyTorch files; begins with a space, empty without any."""
    if not files:
        return ""
    noun = "file" if files == 1 else "files"
    return f" {files:,} PyTorch {noun}: BatchNorms not looked for; bnfold inspect does."
