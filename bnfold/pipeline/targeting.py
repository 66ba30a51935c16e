"""An export for a target: what it asks of the contract, and what still stands in the way afterwards."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from bnfold.contract.contract import Contract
from bnfold.errors import InputError
from bnfold.options import Reading
from bnfold.pipeline.read import Source, is_torch
from bnfold.runtime.interface import Port, interface
from bnfold.targets.check import Broken, obstacles, quantized_before
from bnfold.targets.form import Form
from bnfold.targets.plan import plan
from bnfold.targets.profile import Profile
from bnfold.targets.view import View


@dataclass(frozen=True)
class Reached:
    """How far a model is on its way to a target.

    Attributes:
        profile: The target.
        obstacles: What stands in the way.
        inputs: Those of the model.
    """

    profile: Profile
    obstacles: tuple[Broken, ...]
    inputs: tuple[Port, ...] = ()

    def __bool__(self) -> bool:
        return not self.obstacles


def reading_for(
    profile: Profile | None, source: str | os.PathLike[str] | Source, reading: Reading
) -> Reading:
    """How a PyTorch file is exported for a target: at an opset that it reads, unless one was asked for.

    Raises:
        InputError: The target reads no ONNX file at all.
    """
    if profile is None:
        return reading
    form = profile.limit(Form)
    if isinstance(form, Form) and not {"onnx", "ort"} & {*form.reads}:
        raise InputError(
            f"{profile.title} reads {form.words}, and no ONNX file.",
            "Export the PyTorch model that it came from: bnfold export MODEL.pt --input-shape …"
            f" --target {profile.name} -o OUT.{form.reads[0]}",
        )
    if isinstance(source, Source) or not is_torch(source):
        return reading
    return replace(reading, opset=reading.opset or plan(profile, None).opset)


def contract_for(
    profile: Profile | None, model: ir.Model, contract: Contract, reading: Reading
) -> tuple[Contract, bool]:
    """What is changed in a model for a target, next to what was asked for, which comes first.

    Args:
        profile: The target; None changes nothing.
        model: The model as it was read.
        contract: What was asked for.
        reading: How the model was exported, where it was: the versions that were asked for there stay.

    Returns:
        The contract, and whether BatchNorms that cannot be folded become other operators.
    """
    if profile is None:
        return contract, False
    planned = plan(profile, model)
    wishes = {one.name: getattr(planned, one.name) for one in dataclasses.fields(planned)}
    no_batchnorm = wishes.pop("no_batchnorm")
    for name in ("opset", "ir_version"):
        if getattr(reading, name):
            wishes[name] = None
    if contract.shapes:  # the sizes are in the user's hands
        wishes.update(batch=None, shapes={})
    return replace(
        contract, **{name: getattr(contract, name) or wish for name, wish in wishes.items()}
    ), no_batchnorm


def reached(profile: Profile | None, model: ir.Model) -> Reached | None:
    """What stands in the way of a model; None without a target."""
    if profile is None:
        return None
    view = View(model)
    found = (*obstacles(profile, view), *quantized_before(profile, view))
    return Reached(profile, found, interface(model).inputs)


def next_commands(one: Reached, written: Path) -> tuple[str, ...]:
    """What to type next, for the file that was written."""
    return one.profile.commands(written, one.inputs)
