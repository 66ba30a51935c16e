"""What a terminal shows, and sites to show in it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

from bnfold.reasons import Rule
from bnfold.result import FoldResult, Site

RULE = Rule("BN999", "a title", "It stops at {node}.", "Move [it].")
GONE = Site("net.bn1", "node_1", "BatchNormalization", "", "folded", ("conv_0",))
STAYS = Site("net.bn2", "node_5", "BatchNormalization", "body", "kept", (), RULE(node="node[4]"))


def result(*sites: Site) -> FoldResult[Any]:
    """A fold with these sites."""
    return FoldResult(None, sites, 9, 8)  # type: ignore[type-var]


def shown(renderable: RenderableType, width: int = 200) -> str:
    """What is printed, line by line."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def words(renderable: RenderableType) -> str:
    """What is printed, wherever its lines end."""
    return " ".join(shown(renderable).split())
