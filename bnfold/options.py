"""Bundles of options that are passed on as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoadRequest:
    """A file, and what was said about how to read it."""

    path: str
    arch: str | None
    arch_args: Mapping[str, Any] | str | None
    key: str | None
    trust: bool
    allow: Sequence[str]
