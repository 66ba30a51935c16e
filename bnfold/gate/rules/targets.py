"""What the targets of the settings do not take, beyond what has a limit of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule
from bnfold.gate.targeted import of_targets, opening

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject

_WHERE = " The targets are `targets` of the settings or `--target`; `bnfold targets NAME` shows the source."


def _rule(code: str, name: str, title: str, why: str, advice: str, *kinds: str) -> Rule:
    return Rule(code, name, title, f"{why}{_WHERE}", advice, of_targets(*kinds), for_targets=True)


def _before_export(subject: Subject) -> Iterator[Found]:
    """Say which targets do not read a PyTorch file; files with weights alone are for none."""
    from bnfold.files.file_kind import FileKind, kind_of
    from bnfold.targets.form import Form
    from bnfold.targets.profile import load

    if subject.is_onnx or not subject.settings.targets or kind_of(subject.path) is FileKind.SAFETENSORS:
        return
    from bnfold.torch.read.safety import archive

    is_program = False
    if kind_of(subject.path) is FileKind.ZIP:
        with subject.path.open("rb") as stream:
            is_program = archive.is_program(archive.entries(stream, str(subject.path)))
    held, what = ("pt2", "a program of torch.export") if is_program else ("", "a PyTorch file")
    for profile in map(load, subject.settings.targets):
        limit = profile.limit(Form)
        form = limit if isinstance(limit, Form) else Form(("onnx",))
        if held not in form.reads:
            yield Found(
                f"{opening(profile.name)}the file is {what}, and the target reads {form.words}, which"
                f" `bnfold export MODEL --target {profile.name}` writes"
            )


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
        "`bnfold export MODEL --target NAME` writes what it reads. For a target that reads programs of"
        " torch.export, MODEL is the PyTorch model that the ONNX file came from.",
        "form",
    ),
    Rule(
        "M320",
        "target-before-export",
        "a PyTorch file was not looked at for a target",
        f"Its toolchain does not start from a PyTorch file; limits are those of what is exported.{_WHERE}",
        "`bnfold export MODEL --target NAME` writes what it reads; check that.",
        _before_export,
        severity="note",
        needs="weights",
        for_targets=True,
    ),
)
