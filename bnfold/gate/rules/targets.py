"""What the targets of the settings do not take, beyond what has a limit of its own."""

from __future__ import annotations

from bnfold.gate.rule import Rule
from bnfold.gate.targeted import of_targets

_WHERE = " The targets are `targets` of the settings or `--target`; `bnfold targets NAME` shows the source."


def _rule(code: str, name: str, title: str, why: str, advice: str, *kinds: str) -> Rule:
    return Rule(code, name, title, f"{why}{_WHERE}", advice, of_targets(*kinds), for_targets=True)


RULES = (
    _rule(
        "M315",
        "operator-use",
        "an operator is used in a way that a target does not take",
        "The target has the operator, but not with this value of an attribute, not with this input computed,"
        " or without this output.",
        "Replace the layer, or export it in another way; the message says what is taken.",
        "attribute",
        "constant",
        "plain-constants",
        "outputs",
    ),
    _rule(
        "M316",
        "rank-limit",
        "an operator reads more or fewer dimensions than a target takes",
        "The target has the operator over other numbers of dimensions.",
        "Put a Reshape or an Unsqueeze before the layer, or write it over the dimensions that are taken.",
        "rank",
    ),
    _rule(
        "M317",
        "type-limit",
        "a type is not among those of a target",
        "The target does not compute in it, or does not take it at its inputs.",
        "Export the model again in a type that is taken.",
        "type",
    ),
    _rule(
        "M318",
        "target-batchnorm",
        "a BatchNorm stays, and a target has none",
        "The target has no such operator, and its toolchain does not fold this one.",
        "`bnfold export --target NAME` folds what can be folded and writes the rest as other operators.",
        "batchnorm",
    ),
    _rule(
        "M319",
        "target-format",
        "a target reads another kind of file",
        "Its toolchain starts from something else than ONNX.",
        "`bnfold export MODEL --target NAME` writes what it reads.",
        "form",
    ),
)
