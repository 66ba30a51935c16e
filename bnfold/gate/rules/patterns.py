"""Formulas that runtimes run as one operator, and that something has broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from bnfold.gate.subject import Subject


def _broken(subject: Subject) -> Iterator[Found]:
    from bnfold.graph.nodes import label
    from bnfold.graph.scopes import ONNX_DOMAINS
    from bnfold.patterns import find

    whole = find(subject.facts).fixed
    broken: dict[str, list[str]] = {}
    for scope in subject.facts.scopes:
        for node in scope.graph:
            if node.domain not in ONNX_DOMAINS or node in whole:
                continue
            if node.op_type == "Erf":
                broken.setdefault("Gelu", []).append(label(node))
            elif node.op_type == "Sqrt" and _is_deviation(node, subject):
                broken.setdefault("LayerNormalization", []).append(label(node))
    for name, nodes in broken.items():
        yield Found(
            f"1 written-out {name} is not as runtimes recognise it",
            f"{{}} written-out {name}s are not as runtimes recognise them",
            tuple(nodes),
        )


def _is_deviation(node: ir.Node, subject: Subject) -> bool:
    """Whether a square root is that of a variance along the last axis, as LayerNorm has it."""
    added = _producer(node, "Add")
    mean = _producer(added, "ReduceMean") if added else None
    square = (_producer(mean, "Pow") or _producer(mean, "Mul")) if mean else None
    centred = _producer(square, "Sub") if square else None
    if mean is None or centred is None or _producer(centred, "ReduceMean") is None:
        return False
    rank = subject.facts.rank(mean.inputs[0])
    axes = subject.facts.integers(mean, 1, "axes")
    return axes is not None and len(axes) == 1 and axes[0] in (-1, None if rank is None else rank - 1)


def _producer(node: ir.Node | None, operator: str) -> ir.Node | None:
    """The node of one operator that computes an input of another."""
    makers = [value.producer() for value in node.inputs if value is not None] if node else []
    return next((maker for maker in makers if maker is not None and maker.op_type == operator), None)


RULES = (
    Rule(
        "M105",
        "broken-pattern",
        "a formula is not as runtimes recognise it",
        "Runtimes run a written-out Gelu or LayerNorm as one operator if it stands there number by number. A"
        " tool that moved a factor into it or out of it made the model slower, though it computes the same.",
        "Go back to the file before that tool; `bnfold fold` leaves these formulas whole.",
        _broken,
    ),
)
