"""A limit in words, for reports of all kinds."""

from __future__ import annotations

from functools import singledispatch

from bnfold.targets.attributes import Attribute
from bnfold.targets.batchnorm import BatchNorm
from bnfold.targets.constants import PlainConstants
from bnfold.targets.form import Form
from bnfold.targets.inputs import Constant, Outputs, Rank
from bnfold.targets.operators import Operators
from bnfold.targets.profile import Limit
from bnfold.targets.sizes import Sizes
from bnfold.targets.types import Types
from bnfold.targets.versions import IrVersion, Opset, Versions


@singledispatch
def in_words(limit: Limit) -> str:
    """A limit as a phrase without a full stop; of lists of operators their number."""
    raise TypeError(f"{type(limit).__name__} is not a kind of limit")


@in_words.register
def _(limit: Form) -> str:
    return limit.words


@in_words.register(Opset)
@in_words.register(IrVersion)
def _(limit: Versions) -> str:
    if limit.min is None:
        return f"up to {limit.max}"
    return f"{limit.min} or newer" if limit.max is None else f"{limit.min} to {limit.max}"


@in_words.register
def _(limit: Sizes) -> str:
    said = "all fixed" if limit.open == "none" else "all fixed but the batch"
    return said if limit.batch is None else f"{said}, with a batch of {limit.batch}"


@in_words.register
def _(limit: Operators) -> str:
    if limit.allowed:
        said = f"these {len(limit.allowed)} alone"
    else:
        said = f"those of ONNX{f' but these {len(limit.refused)}' if limit.refused else ''}"
    return f"{said}, and those of {', '.join(limit.domains)}" if limit.domains else said


@in_words.register
def _(limit: Attribute) -> str:
    return f"{_each(limit.operators)}: {limit.name} is {limit.wanted}"


@in_words.register
def _(limit: Constant) -> str:
    return f"{_each(limit.operators)}: the {limit.name} is constant"


@in_words.register
def _(limit: PlainConstants) -> str:
    del limit  # there is one such limit
    return "Constant: a tensor"


@in_words.register
def _(limit: Outputs) -> str:
    return f"{_each(limit.operators)}: {limit.max} output{'' if limit.max == 1 else 's'} in use"


@in_words.register
def _(limit: Rank) -> str:
    of = f" of input {limit.input}" if limit.input else ""
    return f"{_each(limit.operators)}: {limit.wanted} dimensions{of}"


@in_words.register
def _(limit: Types) -> str:
    return f"{'inputs' if limit.of == 'inputs' else 'all that is computed'}: {', '.join(limit.allowed)}"


@in_words.register
def _(limit: BatchNorm) -> str:
    places = [f"right after {' or '.join(limit.after)}"] if limit.after else []
    if limit.rank is not None:
        places.append(f"alone over {limit.rank} dimensions")
    return f"taken {', or '.join(places)}" if places else "not taken"


def _each(operators: tuple[str, ...]) -> str:
    return ", ".join(operators) or "every operator"
