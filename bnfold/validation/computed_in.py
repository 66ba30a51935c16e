"""Whether another runtime computes in the precision that it was asked for, by the errors that it makes.

A runtime that says that it computes in another precision is refused when it loads a model. What it says is
not all: some say nothing, and a kernel may not do what the model was set to. So the errors of the *original*
in that runtime are compared with what rounding in each precision makes of the truth. That is measured by the
oracle: it rounds every value inside the original to that type. The coarsest precision whose errors the
runtime reaches is the one that it computes in; bfloat16 in OpenVINO came to 0.65 to 1.7 times that estimate
on eight networks. Errors far beyond the coarsest one are not a matter of precision.

What a runtime reaches in float32 depends on its algorithms too: see
[`RUNTIME_NOISE_CAP`][bnfold.validation.output_check.RUNTIME_NOISE_CAP].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.engines.base import Precision
from bnfold.engines.known import Choice
from bnfold.inputs.samples import Samples
from bnfold.runtime.agreement import UNITS
from bnfold.validation.choose_reference import Truth
from bnfold.validation.deviation import Deviation
from bnfold.validation.output_check import NOISE_CAP, RUNTIME_NOISE_CAP, ULPS, OutputCheck
from bnfold.validation.results import Validation
from bnfold.validation.runners import Runner
from bnfold.validation.runs import Run, error_in

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""From the finest to the coarsest."""

_APART = 3.0  # by what factor an error may fall short of the estimate


@dataclass(frozen=True)
class Finding:
    """The precision that an output's errors belong to.

    Attributes:
        runtime: The runtime, and what it was asked for.
        output: Number of the output.
        error: Largest relative error of the original in the runtime.
        explained: The error that rounding in each precision makes.
    """

    runtime: Choice
    output: int
    error: float
    explained: Mapping[Precision, float]

    @property
    def computed(self) -> Precision | None:
        """The precision that the runtime computes in; None where not even the coarsest explains the error."""
        if self.error > NOISE_CAP * max(self.explained.values()):
            return None
        coarse_first = sorted(self.explained, key=UNITS.__getitem__, reverse=True)
        reached = (one for one in coarse_first if self.error >= self.explained[one] / _APART)
        return next(reached, PRECISIONS[0])

    @property
    def is_coarser(self) -> bool:
        """Whether that is a coarser one than asked for."""
        return self.computed is not None and UNITS[self.computed] > UNITS[self.runtime.precision]

    @property
    def is_finer(self) -> bool:
        """Whether that is a finer one."""
        return self.computed is not None and UNITS[self.computed] < UNITS[self.runtime.precision]

    def sentence(self, name: str) -> str:
        """Which precision the runtime computes in, and by which figures."""
        engine, asked = self.runtime.engine, self.runtime.precision
        figures = ", ".join(f"{explained:.2g} in {one}" for one, explained in self.explained.items())
        able = self.computed in engine.precisions and self.is_coarser
        hint = f" --runtime {engine.name}:{self.computed} judges it by that." if able else ""
        manner = "coarsely" if self.is_coarser else "finely"
        return (
            f"{engine.title} computes as {manner} as {self.computed} here, and was asked for {asked}: the "
            f"output {name!r} of the original is {self.error:.2g} of its scale off, where rounding every "
            f"value makes {figures}.{hint}"
        )


def other_precisions(
    outcome: Validation, original: ir.Model, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> Validation:
    """Add a sentence on every runtime that computes in another precision than it was asked for.

    A coarser one is a problem: what was asked for was not judged. A finer one is worth a note.
    """
    if not reference.decides:
        return outcome
    names = [value.name or "" for value in original.graph.outputs]
    problems, notes, faults = list(outcome.problems), list(outcome.notes), list(outcome.faults)
    for runner in runners:
        found = list(findings(runner, original, samples, reference))
        if coarse := next((one for one in found if one.is_coarser), None):
            problems.append(coarse.sentence(names[coarse.output]))
            faults = [fault for fault in faults if fault.provider != coarse.runtime.title]
        elif found and all(one.is_finer for one in found):
            notes.append(found[0].sentence(names[found[0].output]))
    return replace(outcome, problems=tuple(problems), notes=tuple(notes), faults=tuple(faults))


def findings(runner: Runner, original: ir.Model, samples: Samples, reference: Truth) -> Iterator[Finding]:
    """What the errors of the original's float outputs say, where they can be doubted.

    Those of a runtime that was asked for float32, and is as near to the truth as that allows, cannot.
    """
    runtime = runner.setting.runtime
    if runtime is None or runner.problem:
        return
    known: dict[int, Mapping[Precision, list[Deviation]]] = {}
    for number, check in enumerate(runner.outputs):
        run = _telling_run(check, runtime)
        if run is None:
            continue
        feeds = samples.feeds[reference.chosen[run.sample]]
        if run.sample not in known:
            known[run.sample] = {
                one: reference.rounded(original, feeds, partial(_rounded, one)) for one in PRECISIONS
            }
        extent = check.measured[run.sample].truth
        explained = {
            one: error_in(run.group, extent, moved[number]) for one, moved in known[run.sample].items()
        }
        yield Finding(runtime, number, run.original_same_setting, explained)


def _rounded(precision: Precision, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest numbers of a type; those beyond its range become its largest."""
    dtype = np.dtype(ml_dtypes.bfloat16 if precision == "bfloat16" else precision)
    largest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    rounded: npt.NDArray[np.float64] = np.clip(value, -largest, largest).astype(dtype).astype(np.float64)
    return rounded


def _telling_run(check: OutputCheck, runtime: Choice) -> Run | None:
    """The run whose errors say most; None where they are as they should be, or the truth is not known."""
    if check.type_bound is None or not check.judged_by_oracle:
        return None
    known = [run for run in check.runs if run.has_truth]
    run = max(known, key=lambda one: _times_too_far(one, check.unit), default=None)
    # what a network amplifies does not matter here: the estimates are amplified as well
    is_fine = run is not None and _times_too_far(run, check.unit) <= RUNTIME_NOISE_CAP
    return None if runtime.precision == "float32" and is_fine else run


def _times_too_far(run: Run, unit: float) -> float:
    """How many times as far off as ONNX Runtime a runtime is, or as some roundings explain."""
    return run.original_same_setting / max(run.original_optimizer_off, ULPS * unit)
