"""What a model may not exceed, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule
from bnfold.gate.targeted import Look, with_targets

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject
    from bnfold.runtime.interface import Shape


def _opset(subject: Subject) -> Iterator[Found]:
    from bnfold.contract.opsets import opset_of

    limit, opset = subject.settings.limits.opset, opset_of(subject.model)
    if limit is not None and opset > limit:
        yield Found(f"the opset is {opset}, and {limit} is the limit")


def _ir_version(subject: Subject) -> Iterator[Found]:
    limit, version = subject.settings.limits.ir_version, subject.model.ir_version
    if limit is not None and version > limit:
        yield Found(f"the IR version is {version}, and {limit} is the limit")


def _bytes(subject: Subject) -> Iterator[Found]:
    from bnfold.files.external_data import data_files

    limit = subject.settings.limits.bytes
    if limit is None:
        return
    files = {subject.path, *(data_files(subject.model) if subject.is_onnx else ())}
    size = sum(path.stat().st_size for path in files)
    if size > limit:
        yield Found(f"the model takes {size:,} bytes, and {limit:,} is the limit")


def _parameters(subject: Subject) -> Iterator[Found]:
    from bnfold.files.external_data import initializers

    limit = subject.settings.limits.parameters
    if limit is None:
        return
    tensors = [value.const_value for value in initializers(subject.model)]
    count = sum(tensor.size for tensor in tensors if tensor is not None)
    if count > limit:
        yield Found(f"the model has {count:,} parameters, and {limit:,} is the limit")


def _nodes(subject: Subject) -> Iterator[Found]:
    from bnfold.graph.nodes import count_nodes

    limit = subject.settings.limits.nodes
    if limit is not None and (count := count_nodes(subject.model)) > limit:
        yield Found(f"the model has {count:,} nodes, and {limit:,} is the limit")


def _shapes(subject: Subject) -> Iterator[Found]:
    from bnfold.gate.settings import fits
    from bnfold.runtime.interface import interface

    for port in interface(subject.model).inputs:
        demanded = [
            shape for pattern, shape in subject.settings.limits.shapes.items() if fits(port.name, pattern)
        ]
        wrong = next((shape for shape in demanded if not _agrees(port.shape, shape.split("x"))), None)
        if wrong is not None:
            has = "has no known shape" if port.shape is None else f"is {_written(port.shape)}"
            yield Found(f"an input {has}, and {wrong} is demanded", sites=(port.name,))


def _written(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "a scalar"


def _agrees(shape: Shape | None, demanded: list[str]) -> bool:
    if shape is None or len(shape) != len(demanded):
        return False
    return all(
        wanted == "*"
        or (isinstance(size, int) and wanted == str(size))
        or (not isinstance(size, int) and not wanted.isdigit())
        for size, wanted in zip(shape, demanded, strict=True)
    )


def _operators(subject: Subject) -> dict[str, None]:
    """The operators of a model as they are written in settings, in the order of the nodes."""
    from bnfold.graph.scopes import ONNX_DOMAINS

    own = {(function.domain, function.name) for function in subject.model.functions.values()}
    return dict.fromkeys(
        node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}::{node.op_type}"
        for scope in subject.facts.scopes
        for node in scope.graph
        if (node.domain, node.op_type) not in own
    )


def _domains(subject: Subject) -> Iterator[Found]:
    allowed = subject.settings.limits.domains
    if allowed is None:
        return
    foreign = tuple(
        name for name in _operators(subject) if "::" in name and name.split("::")[0] not in allowed
    )
    if foreign:
        yield Found("1 operator is of a custom domain", "{} operators are of custom domains", foreign)


def _not_listed(subject: Subject) -> Iterator[Found]:
    allowed = subject.settings.limits.operators
    others = tuple(name for name in _operators(subject) if allowed and name not in allowed)
    if others:
        yield Found("1 operator is not on the list", "{} operators are not on the list", others)


def _limit(code: str, name: str, title: str, look: Look, setting: str, *kinds: str) -> Rule:
    """A rule on a number.

    Args:
        code: As of a rule, like `name`, `title` and `look`.
        name: See there.
        title: See there.
        look: See there.
        setting: The name of the limit.
        kinds: The kinds of rules of targets that are about the same.
    """
    return Rule(
        code,
        name,
        title,
        f"The target that the model is for takes no more; the limit is `limits.{setting}` of the settings"
        f"{', or that of a target in `targets`' if kinds else ''}.",
        "Export the model again within the limit, or raise it.",
        with_targets(look, *kinds) if kinds else look,
        for_targets=bool(kinds),
    )


RULES = (
    _limit("M307", "opset-limit", "the opset is above the limit", _opset, "opset", "opset"),
    _limit(
        *("M308", "ir-version-limit", "the IR version is above the limit", _ir_version),
        *("ir-version", "ir-version"),
    ),
    Rule(
        "M309",
        "input-shape",
        "an input has another shape than demanded",
        "Some targets take no open sizes, and callers rely on those that they know. The shapes are"
        " `limits.shapes` of the settings: a number is that size, a letter an open size, `*` either. Targets"
        " in `targets` demand sizes of their own.",
        "For a target, `bnfold export MODEL --target NAME`, or `--set-batch` and `--set-shape`, fixes them."
        " Otherwise export the model again with these sizes; `--dynamic` opens those that callers vary.",
        with_targets(_shapes, "sizes"),
        for_targets=True,
    ),
    Rule(
        "M310",
        "custom-domain",
        "an operator is of a custom domain",
        "Only runtimes that were built with it can run it. The domains that are allowed are `limits.domains`"
        " of the settings; an empty list allows none.",
        "Export the model without the operator, or add its domain to the list.",
        _domains,
    ),
    Rule(
        "M311",
        "size-limit",
        "the file is larger than allowed",
        "The model with its external data is above `limits.bytes` of the settings.",
        "Look for weights that nothing uses (M306), quantise the model, or raise the limit.",
        _bytes,
        needs="weights",
    ),
    _limit("M312", "parameter-limit", "there are more parameters than allowed", _parameters, "parameters"),
    _limit("M313", "node-limit", "there are more nodes than allowed", _nodes, "nodes"),
    Rule(
        "M314",
        "operator-list",
        "an operator is not on the list",
        "The target has no such operator; those that it has are `limits.operators` of the settings, or those"
        " of a target in `targets`.",
        "Replace the layer, or add the operator to the list if the target has it.",
        with_targets(_not_listed, "operators"),
        for_targets=True,
    ),
)
