"""What stands in a model's way to a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.targets.obstacle import Obstacle
from bnfold.targets.profile import Note, Profile, Rule
from bnfold.targets.view import View, operator

_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "com.microsoft::QuantizeLinear"),
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "com.microsoft::DequantizeLinear"),
)


@dataclass(frozen=True)
class Broken:
    """A rule of a target, or a note that says why, and what in a model breaks it."""

    target: str
    rule: Rule | Note
    obstacle: Obstacle


def obstacles(profile: Profile, view: View) -> Iterator[Broken]:
    """Everything in a model that a target does not take, in the order of the profile's rules."""
    for rule in profile.rules:
        for obstacle in rule.limit.look(view):
            yield Broken(profile.name, rule, obstacle)


def quantized_before(profile: Profile, view: View) -> Iterator[Broken]:
    """Say of a quantised model that the toolchain would quantise it again, where it makes int8 itself.

    A toolchain may still read such a file, so this is for exports, which choose, and not for checks.
    """
    note = next((note for note in profile.notes if note.quantizes), None)
    if note is not None and any(operator(node) in _QUANTIZED for node in view.nodes):
        yield Broken(profile.name, note, Obstacle("the file is quantised already, so leave --int8 out"))
