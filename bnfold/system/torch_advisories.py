"""Published weaknesses of torch in reading a file from someone else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Advisory:
    """A published weakness of torch that a model file can use.

    Attributes:
        cve: Its number.
        below: The first release without it, or the first that is not listed as affected.
        state: `"warning"` where bnfold's own checks prevent it.
        what: What a file can do.
    """

    cve: str
    below: tuple[int, ...]
    state: Literal["warning", "problem"]
    what: str


ADVISORIES = (
    # GHSA-53q9-r3pm-6pq6
    Advisory("CVE-2025-32434", (2, 6, 0), "problem", "a file runs code in torch.load(weights_only=True)"),
    # GHSA-63cw-57p8-fm3p
    Advisory(
        "CVE-2026-24747", (2, 10, 0), "problem", "a file corrupts memory in torch.load(weights_only=True)"
    ),
    # PYSEC-2026-139 ends at 2.10.0 and does not name a release that fixes it. In 2.13 torch.export.load still
    # falls back on unpickling; bnfold/torch/read/safety/pt2.py checks a .pt2 before torch, in any version.
    Advisory(
        "CVE-2026-4538",
        (2, 11, 0),
        "warning",
        "a .pt2 runs code in torch.export.load; bnfold checks it before",
    ),
)


def weaknesses(version: str) -> list[Advisory]:
    """The advisories that a version of torch falls under."""
    return [advisory for advisory in ADVISORIES if release(version) < advisory.below]


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, to be compared: `2.13.0+cpu` is (2, 13, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
