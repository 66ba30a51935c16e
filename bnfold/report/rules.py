"""Reasons and the rules of `bnfold check` by code, for `bnfold explain` and the pages that it makes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from bnfold.errors import InputError
from bnfold.gate import rules as gate
from bnfold.reasons import QUANTISED_FIRST, RULES, Rule
from bnfold.report.reason_examples import explained

_INTRODUCTION = """A fold is made only where it is an identity over the reals, proved from shapes and
constants. Everything else stays, with one of these codes. 1xx is about the BatchNorm itself, 2xx about the
operator that its affine meets, 3xx about the topology, 4xx about the numbers, 5xx about
a PyTorch module that is folded in place of a graph. Codes are never reused. The sentences are examples: a
report has the names and numbers of your model in their place.

The remedies are those for a BatchNorm. Where it is written as Mul, Div, Add and Sub, they speak of a scale
and a shift, or of the normalisation of the input if that is what it is. Where an operator of quantised models
is in the way (QuantizeLinear, DequantizeLinear, QLinearConv, …), the remedy is the same for all codes:
"{quantised}"

This page is made by `bnfold explain --markdown`."""
_RULES = """`bnfold check` asks these questions about every model ([in continuous integration](ci.md)). 1xx is
about the structure, 2xx about the numbers, 3xx about the file, 4xx about its agreement with other files.
Codes are never reused. {left_out} are asked only if they are selected; those on
limits and sources only if the settings have them. [*] marks what `--fix` mends.

This page is made by `bnfold explain --rules --markdown`."""


def all_rules() -> list[Rule]:
    """List every rule, in the order of the codes."""
    return [RULES[code] for code in sorted(RULES)]


def check_rules() -> list[Rule]:
    """List the rules of `bnfold check`, in the order of the codes."""
    return [
        Rule(one.code, f"{one.title}{' [*]' if one.fixable else ''}", one.why, one.advice)
        for one in gate.RULES.values()
    ]


def find_rules(code: str) -> list[Rule]:
    """Find what has a code, or all whose codes begin so, in upper or lower case.

    Raises:
        InputError: There is none; the fix names the nearest ones.
    """
    known = (*all_rules(), *check_rules())
    if not any(one.code == code.upper() for one in known):
        family = [one for one in known if one.code.startswith(code.upper())]
        if family:
            return family
    return [find_rule(code)]


def find_rule(code: str) -> Rule:
    """Find a reason, or a rule of `bnfold check`, by its code in upper or lower case.

    Raises:
        InputError: The code does not exist; the fix names the nearest ones.
    """
    known = RULES | {rule.code: rule for rule in check_rules()}
    if rule := known.get(code.upper()):
        return rule
    near = _nearest(code.upper(), known)
    fix = f"Did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"{code} is not the code of a reason or a rule.",
        f"{fix}bnfold explain lists the reasons, bnfold explain --rules the rules.",
    )


def _nearest(code: str, codes: Mapping[str, Rule]) -> list[str]:
    """Name up to three similar codes; equally similar ones in their own order, unlike difflib's search."""
    likeness = {known: difflib.SequenceMatcher(None, code, known).ratio() for known in codes}
    near = [known for known, ratio in likeness.items() if ratio >= 0.5]
    return sorted(near, key=lambda known: -likeness[known])[:3]


def page(rules: Iterable[Rule]) -> str:
    """Write reasons as a page of Markdown; `docs/reasons.md` is this for all of them."""
    return _page("Why a BatchNorm stays", _INTRODUCTION.replace("{quantised}", QUANTISED_FIRST), rules)


def check_page(rules: Iterable[Rule]) -> str:
    """Write rules of `bnfold check` as a page of Markdown; `docs/rules.md` is this for all of them."""
    left_out = ", ".join(one.code for one in gate.RULES.values() if not one.default)
    return _page("What bnfold check asks", _RULES.replace("{left_out}", left_out), rules)


def _page(heading: str, introduction: str, rules: Iterable[Rule]) -> str:
    parts = [f"# {heading}", introduction]
    for rule in rules:
        sentence = explained(rule)
        parts += [
            f"## {rule.code}: {rule.title}",
            sentence[0].upper() + sentence[1:],
            f"**Remedy.** {rule.remedy}",
            *(f"**Remedy for {what}.** {remedy}" for what, remedy in rule.others.items()),
        ]
    return "\n\n".join(parts) + "\n"
