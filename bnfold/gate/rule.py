"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from bnfold.gate.finding import Found, Severity

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject

Needs: TypeAlias = Literal["graph", "weights", "file", "source", "earlier"]


@dataclass(frozen=True)
class Rule:
    """A question that is asked about every model.

    Attributes:
        code: Stable identifier, `M` and three digits: 1xx is the structure, 2xx the numbers, 3xx the file,
            4xx the agreement with other files.
        name: A few words with hyphens, for formats that have a place for a name.
        title: What was found, in a few words.
        why: Why it matters, as sentences.
        advice: What to do about it, as sentences.
        look: Answers it for one model.
        needs: What a model must have for the question to make sense: a `"graph"` (PyTorch's files have none),
            `"weights"`, only a `"file"`, a `"source"` that it was made from, or an `"earlier"` version.
        severity: How bad it is.
        default: Whether it is asked where nothing else is selected. Others are asked by name alone.
        always: Whether it is asked whatever is selected, unless it is ignored: in a file that cannot be read
            no other rule finds anything, and that must not look as if all were well.
        fixable: Whether `bnfold check --fix` mends it.
        for_targets: Whether it is asked wherever targets are named, unless it is ignored.
    """

    code: str
    name: str
    title: str
    why: str
    advice: str
    look: Callable[[Subject], Iterator[Found]] = field(hash=False)
    needs: Needs = "graph"
    severity: Severity = "warning"
    default: bool = True
    always: bool = False
    fixable: bool = False
    for_targets: bool = False
