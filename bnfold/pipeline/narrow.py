"""The last step: fewer bits. It comes after the validation, whose bounds are those of float32.

Its result is judged by its own measure: units of the new precision, or decibels and accuracy. A model that is
not good enough is taken back, as in every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.pipeline.steps import Done, Trial

if TYPE_CHECKING:
    from bnfold.edge.precision import Precision
    from bnfold.edge.quantize import Scheme
    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import Feeds

_DRAWN = 2  # random samples to measure ranges on: normal and uniform; the others are extreme on purpose
_LEAST_DECIBELS = 20.0  # below it the error is more than a tenth of the signal


@dataclass(frozen=True)
class Narrowed:
    """What a report says of the last step before anything else: its proof is not that of the fold.

    Attributes:
        name: What the numbers became, as `"int8"` or `"float16"`.
        sentence: Of the step.
        decibels: Signal to noise of the worst output at ONNX Runtime's default; None for half precision.
        passed: Whether the step was kept.
    """

    name: str
    sentence: str
    decibels: float | None = None
    passed: bool = True

    @property
    def before(self) -> str:
        """How a sentence about the model before the step begins."""
        return f"Before {self.name if self.decibels is not None else f'the conversion to {self.name}'}, "

    @property
    def is_good(self) -> bool:
        """Whether it was kept, and its noise is small next to the signal."""
        return self.passed and (self.decibels is None or self.decibels >= _LEAST_DECIBELS)


def renamed(sentence: str, less: Narrowed | None) -> str:
    """A sentence about the folded model, of which the step to fewer bits made the one that was timed."""
    return sentence if less is None else sentence.replace("the folded model", f"the {less.name} model")


def narrowed(steps: Sequence[Done]) -> Narrowed | None:
    """What the step to fewer bits did; None where there was none."""
    for one in reversed(steps):
        if one.name == Quantize.name:
            return Narrowed("int8", one.sentence, _decibels(one.details), one.passed)
        if one.name == Convert.name:
            name = one.details["precision"]
            return Narrowed(f"{name} precision" if name == "mixed" else name, one.sentence, None, one.passed)
    return None


def _decibels(details: Mapping[str, Any]) -> float:
    """The ratio of a step to int8; a report in JSON has null for what is not finite."""
    ratio = details["after"]["sqnr"]
    if ratio is None:
        return math.inf if details["is_exact"] else math.nan
    return float(ratio)


@dataclass(frozen=True)
class Convert:
    """Convert to half precision; the proof is the distance from the float64 evaluation in its units.

    Attributes:
        precision: `"float16"`, `"bfloat16"` or `"mixed"`.
        keep_io: Whether inputs and outputs stay float32.
        leave: Names of nodes that stay in float32.
        name: Of the step.
    """

    precision: Precision
    keep_io: bool = True
    leave: tuple[str, ...] = ()
    name: str = "precision"

    def __call__(self, model: ir.Model, trial: Trial | None) -> tuple[ir.Model, Done]:
        """Apply it; taken back where the result is farther from the truth than its digits explain.

        Raises:
            BnfoldError: As for [`convert`][bnfold.edge.precision.convert].
        """
        from bnfold.edge.precision import convert

        samples = _samples(model, trial)
        done = convert(model, self.precision, samples, keep_io=self.keep_io, keep=self.leave)
        said = done.sentence
        if trial is None or trial.inputs is None:
            said += " Ranges are those of random data; give real data with --inputs."
        if not done.passed:
            said = f"The conversion was taken back. {said}"
        details = _record(done, without="model")
        return done.model if done.passed else model, Done(self.name, said, details, done.passed)


@dataclass(frozen=True)
class Quantize:
    """Quantise to eight bits; the proof is the accuracy, where there are labels.

    Attributes:
        scheme: How.
        calibration: What it is calibrated on.
        before: The model before equalisation, to be quantised for comparison; None if it was not equalised.
        name: Of the step.
    """

    scheme: Scheme
    calibration: Inputs
    before: ir.Model | None = None
    name: str = "int8"

    def __call__(self, model: ir.Model, trial: Trial | None) -> tuple[ir.Model, Done]:
        """Apply it; taken back where it costs more accuracy than `POINTS`.

        Raises:
            BnfoldError: As for [`study`][bnfold.edge.fidelity.study].
        """
        from bnfold.edge.fidelity import study

        judged_on = None if trial is None else trial.inputs
        found = study(
            model,
            self.calibration,
            self.scheme,
            judged_on=judged_on,
            unequalized=self.before,
            **_top(judged_on),
        )
        said = found.sentence if found.passed else f"The quantisation was taken back. {found.sentence}"
        if judged_on is None:
            said += " Judged on the calibration data; give other data with --inputs, and --labels."
        details = _record(found, "passed", "is_exact", "is_worse_by_default", without="quantized")
        details |= {"quantized": _record(found.quantized, without="model")}
        return found.quantized.model if found.passed else model, Done(self.name, said, details, found.passed)


def _record(result: Any, *properties: str, without: str) -> dict[str, Any]:
    """The fields of a result, and some of its properties, as plain values."""
    names = [field.name for field in fields(result) if field.name != without]
    return {name: _plain(getattr(result, name)) for name in (*names, *properties)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _top(inputs: Inputs | None) -> dict[str, int]:
    from bnfold.inputs.given import Given

    return {"top": inputs.top} if isinstance(inputs, Given) else {}


def _samples(model: ir.Model, trial: Trial | None) -> tuple[Feeds, ...]:
    """Some rows of the data, or random ones."""
    from bnfold.edge.rows import first, samples_of, split
    from bnfold.inputs.samples import choose
    from bnfold.runtime.interface import interface
    from bnfold.runtime.sessions import run, session

    if trial is None:
        raise InputError("A model is run to measure its ranges.", "Use `bnfold export`, which runs it.")
    ports = interface(model).inputs
    if trial.inputs is not None:
        return first(split(samples_of(trial.inputs, ports), ports))
    off = session(model, optimized="off", threads=trial.checking.threads)
    return choose(ports, partial(run, off), count=_DRAWN, seed=trial.checking.seed, model=model).feeds
