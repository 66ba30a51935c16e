"""How one output of the folded model compares over all samples, and whether it passes.

With an oracle, both models are measured against the truth, run by run. The folded model may be `NOISE_FACTOR`
times as far from it as the original is in the same run, or in half of all runs, and `ULPS` units in the last
place more. The original's error is the larger one of ONNX Runtime with the optimizer off and at its
default, since both round the same function. A default that is more than `NOISE_CAP` times as far off
computes something else, and is not used.

Some inputs make a network amplify rounding a thousand times, and chance decides which of the two models that
affects. So before an output, or the runtime, is called wrong, the oracle measures how far one random rounding
of every weight of the *original* moves the truth on that input; that counts as an error of the original too.
Where it is more than `CHAOTIC` units in the last place, or where the original is farther off than that in
half of all runs, the outputs decide nothing, and only the proof value by value
([`bnfold.validation.layer_proof`][bnfold.validation.layer_proof]) does.

Every error is relative to the scale of its channel: channels whose scales are far apart are judged apart
([`bnfold.validation.channels`][bnfold.validation.channels]).

Without an oracle the original with the optimizer off is taken for the truth. Its own error is then unknown,
and a bound by type takes its place, widened by what the optimizer changes in the original. What rounding does
to small channels next to large ones is not known either; only `GROSS` times that bound is called wrong there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bnfold.runtime import agreement
from bnfold.runtime.agreement import Agreement
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Optimizer
from bnfold.validation.channels import Group
from bnfold.validation.deviation import Deviation, deviation, magnitude
from bnfold.validation.results import Check
from bnfold.validation.runs import Measured, Run, runs

NOISE_FACTOR = 4.0
NOISE_CAP = 10.0
RUNTIME_NOISE_CAP = 200.0
"""The same in another runtime in float32, whose algorithms may round more: Winograd's convolution amplifies
rounding about a hundredfold in MNN 3.6.1. float16 is 8192 times as coarse as float32.
"""
ULPS = 8.0
CHAOTIC = 1000.0
GROSS = 100.0


@dataclass
class OutputCheck:
    """One output of the folded model at one setting.

    Attributes:
        type_bound: The bound of its type where there is no oracle; None for an output that must be equal.
        unit: Unit roundoff of the coarsest float type that the output was computed in.
        given_tolerance: The user's tolerance.
        noise_cap: How many times as far off as elsewhere the original may be before something else than
            rounding is the reason.
        shapes: The shapes that the output had, each once.
        folded_agreement: How the folded model agrees with the original.
        original_agreement: How the original at this setting agrees with itself with the optimizer off.
        has_oracle: Whether there is an oracle.
        has_other_form: Whether it has another shape or type than in the original, in any run.
        has_other_rows: Whether the truth has another shape than the original in ONNX Runtime, in any run, so
            that it measures nothing there.
        measured: The errors of each run.
        folded_to_original: The folded model's largest relative difference from the original.
        incomparable_run: The first run that no distance can judge: other shapes, NaN, integers that differ.
    """

    type_bound: float | None
    unit: float
    given_tolerance: float | None
    noise_cap: float = NOISE_CAP
    shapes: dict[tuple[int, ...], None] = field(default_factory=dict)  # an ordered set
    folded_agreement: Agreement = field(default_factory=Agreement)
    original_agreement: Agreement = field(default_factory=Agreement)
    has_oracle: bool = False
    has_other_form: bool = False
    has_other_rows: bool = False
    measured: list[Measured] = field(default_factory=list)
    folded_to_original: float = 0.0
    incomparable_run: int | None = None
    _runs: list[Run] | None = None

    def add(self, truth: object, expected: object, own: object, other: object, actual: object) -> None:
        """Add one run.

        Args:
            truth: The oracle's value; None without an oracle.
            expected: The original's on the CPU with the optimizer off.
            own: The original's at the setting of the folded model.
            other: The original's at the other optimizer setting, on the same provider.
            actual: The folded model's.
        """
        self.shapes |= dict.fromkeys(agreement.shapes(expected))
        found = agreement.compare(expected, actual, math.inf)
        self.has_other_form |= found.problem is not None and found.max_abs is None
        if found.problem and self.incomparable_run is None:
            self.incomparable_run = len(self.measured)
        self.folded_agreement = self.folded_agreement.worst(found)
        self.original_agreement = self.original_agreement.worst(agreement.compare(expected, own, math.inf))
        has_truth = truth is not None and [*agreement.shapes(truth)] == [*agreement.shapes(expected)]
        self.has_other_rows = self.has_other_rows or (truth is not None and not has_truth)
        self.has_oracle = self.has_oracle or has_truth
        truth = truth if has_truth else expected
        off, same, turned, folded = (deviation(truth, value) for value in (expected, own, other, actual))
        run = Measured(magnitude(truth), off, same, turned, folded, has_truth=has_truth)
        self.measured.append(run)
        self.folded_to_original = max(self.folded_to_original, deviation(expected, actual).largest)
        self._runs = None

    def set_conditioning(self, number: int, conditioning: Deviation) -> None:
        """Record how far one rounding of every weight moves the truth in a run."""
        self.measured[number] = replace(self.measured[number], conditioning=conditioning)
        self._runs = None

    @property
    def runs(self) -> list[Run]:
        """The errors of each run, apart for channels whose scales are far apart."""
        if self._runs is None:
            self._runs = runs(self.measured)
        return self._runs

    @property
    def runs_to_condition(self) -> Iterator[int]:
        """The runs whose conditioning must be measured before anything in them is called wrong."""
        if self.judged_by_oracle:
            known = (run for run in self.runs if run.has_truth)
            suspect = (run for run in known if run.folded > self._bound_in(run) or self.exceeds_rounding(run))
            yield from dict.fromkeys(run.sample for run in suspect)

    @property
    def judged_by_oracle(self) -> bool:
        """Whether the distance from the oracle decides, instead of the one from the original."""
        is_measured = self.type_bound is not None or self._are_integers
        return self.has_oracle and self.given_tolerance is None and is_measured

    @property
    def _are_integers(self) -> bool:
        """Whether the output holds integers or bools, of one shape in both models."""
        is_numeric = self.folded_agreement.max_abs is not None
        return self.type_bound is None and is_numeric and not self.has_other_form

    @property
    def worst_run(self) -> Run:
        """The run in which the folded model is nearest to its bound, or exceeds it most."""
        return max(self.runs, key=self._share)

    def _share(self, run: Run) -> float:
        """How much of its bound the folded model takes up in a run."""
        bound = self._bound_in(run)
        return run.folded / bound if bound else math.inf if run.folded else 0.0

    @property
    def first_failing_run(self) -> int | None:
        """The first run in which the problem shows; None without a problem.

        The run in which it shows most may have zeros as inputs, which hide what is wrong with a weight.
        """
        if self.problem is None or self.incomparable_run is not None:
            return self.incomparable_run
        beyond = (run.sample for run in self.runs if run.folded > self._bound_in(run))
        return next(beyond, self.worst_run.sample)

    @property
    def worst_original_run(self) -> Run:
        """The run in which the original is nearest to its rounding limit, or exceeds it most."""
        return max(self.runs, key=lambda run: run.original_same_setting / self.rounding_limit(run))

    def rounding_limit(self, run: Run) -> float:
        """The error of the original that rounding still explains; above it something else is computed."""
        if self.has_oracle and run.has_truth:
            if self._is_chaotic(run):
                return math.inf
            usual = self._median_error(run.group)
            noise = max(run.original_optimizer_off, usual, run.conditioning, ULPS * self.unit)
            return self.noise_cap * noise
        limit = NOISE_CAP * self._allowance(run) * (self.type_bound or 0.0)
        return max(self.given_tolerance or 0.0, limit, ULPS * self.unit)

    def _allowance(self, run: Run) -> float:
        """By how much more small channels next to large ones may be off where the truth is not known."""
        largest = max(other.group.scale for other in self.runs)
        return min(GROSS, max(1.0, largest / run.group.scale)) if run.group.scale else 1.0

    def exceeds_rounding(self, run: Run) -> bool:
        """Whether the original at this setting computes something else in a run."""
        return run.original_same_setting > self.rounding_limit(run)

    def _bound_in(self, run: Run) -> float:
        """The largest error of the folded model that passes in one run, with an oracle."""
        if self._is_chaotic(run):
            return math.inf
        if self.has_oracle and not run.has_truth:
            return self._allowance(run) * self._bound_by_type(run.original_on_provider)
        usual = max(run.original_on_provider, self._median_error(run.group))
        noise = min(usual, self.rounding_limit(run))
        floor = 0.0 if self._are_integers else ULPS * self.unit
        return NOISE_FACTOR * max(run.original_optimizer_off, noise, run.conditioning) + floor

    def _median_error(self, group: Group) -> float:
        """The median over the runs of the original's error in some channels, with the optimizer off."""
        runs = (run for run in self.runs if run.group is group and run.has_truth == self.has_oracle)
        return statistics.median(run.original_optimizer_off for run in runs)

    def _is_chaotic(self, run: Run) -> bool:
        if not self.has_oracle:
            return False
        moved = max(run.moved, self._median_error(run.group))
        if self._are_integers:  # shares of those that differ
            return NOISE_FACTOR * moved >= 1.0
        return moved > CHAOTIC * self.unit

    @property
    def chaotic_runs(self) -> Iterator[int]:
        """The runs in which no channel can show whether the folded model is right."""
        judged = {run.sample for run in self.runs if not self._is_chaotic(run)}
        return (number for number in range(len(self.measured)) if number not in judged)

    @property
    def is_loose(self) -> bool:
        """Whether the original itself is off by more than its type explains in a run, and may hide faults.

        For integers that is any difference.
        """
        limit = self.type_bound or 0.0
        return self.has_other_rows or any(
            max(run.original_optimizer_off, run.original_on_provider, run.moved) > limit for run in self.runs
        )

    @property
    def undecided_groups(self) -> Iterator[tuple[Group, str]]:
        """The channels that decide little or nothing where others of the output do, and why, as a clause."""
        if self.type_bound is None or self.given_tolerance is not None:
            return
        silent = set(self.chaotic_runs)
        judged = [run for run in self.runs if run.sample not in silent and run.group.axis is not None]
        largest = max((run.group.scale for run in judged), default=0.0)
        for group in {id(run.group): run.group for run in judged}.values():
            if not self.has_oracle:
                if group.scale < largest:
                    yield group, f"without the oracle only {GROSS:g} times the bound of the type counts there"
            elif all(self._is_chaotic(run) for run in judged if run.group is group):
                yield group, "rounding alone moves them so far that they decide nothing in ONNX Runtime"

    @property
    def folded_bound(self) -> float:
        """The largest error of the folded model that passes."""
        if self.given_tolerance is not None:
            return self.given_tolerance
        if self.has_oracle:
            return self._bound_in(self.worst_run)
        return self._bound_by_type(max((run.original_on_provider for run in self.runs), default=0.0))

    def _bound_by_type(self, noise: float) -> float:
        """The largest error that passes where the truth is not known."""
        bound = self.type_bound or 0.0
        return max(bound, NOISE_FACTOR * min(noise, NOISE_CAP * bound))

    @property
    def folded_error(self) -> float:
        """The folded model's error: to the oracle where that decides, otherwise to the original."""
        return self.worst_run.folded if self.judged_by_oracle else self.folded_to_original

    @property
    def problem(self) -> str | None:
        """Why the output does not agree; None when it does."""
        error, bound = self.folded_error, self.folded_bound
        if self._are_integers and self.judged_by_oracle and error <= bound:
            return None  # where two scores are nearly equal, rounding decides which is larger
        if self.folded_agreement.problem or self.type_bound is None:
            return self.folded_agreement.problem
        if error <= bound:
            return self._gross_problem
        if not self.judged_by_oracle:
            return (
                f"The largest error is {self.folded_agreement.max_abs or 0.0:.3g}, which is {error:.3g} of "
                f"the output's scale; at most {bound:.3g} is accepted."
            )
        run = self.worst_run
        original = max(run.original_optimizer_off, run.original_same_setting)
        which = f"In {run.group}, it" if run.group.axis is not None else "It"
        truth = "the float64 oracle" if run.has_truth else "the original with the optimizer off"
        return (
            f"{which} is {error:.3g} of its scale away from {truth}, the original "
            f"{original:.3g}; at most {bound:.3g} is accepted."
        )

    @property
    def _gross_problem(self) -> str | None:
        """What is wrong with small channels beyond any doubt, where no oracle measures the doubt."""
        if self.has_oracle or self.given_tolerance is not None:
            return None
        bound = GROSS * (self.type_bound or 0.0)
        for run in self.runs:
            accepted = max(bound, NOISE_CAP * run.original_on_provider)
            if run.group.axis is not None and run.folded > accepted:
                return (
                    f"In {run.group}, it is {run.folded:.3g} of its scale away from the original; without "
                    f"the oracle at most {accepted:.3g} is accepted there."
                )
        return None

    @property
    def excusable(self) -> bool:
        """Whether the original itself exceeds rounding at this setting, and the folded model hardly more."""
        if self.type_bound is None:
            original, folded = self.original_agreement.max_abs or 0.0, self.folded_agreement.max_abs or 0.0
            return self.original_agreement.problem is not None and folded <= NOISE_FACTOR * original
        if self.original_agreement.problem is not None:
            return True  # NaN, or another shape: nothing could be farther off
        run = self.worst_original_run
        farthest = max(one.folded for one in self.runs)
        return self.exceeds_rounding(run) and farthest <= NOISE_FACTOR * run.original_same_setting

    def result(self, provider: str, optimizer: Optimizer, port: Port, row: str = "") -> Check:
        """The outcome as it is reported."""
        by_oracle = self.has_oracle and self.type_bound is not None
        return Check(
            provider=provider,
            optimizer=optimizer,
            output=port.name,
            type=port.type,
            shapes=tuple(self.shapes),
            tolerance=None if self.type_bound is None or self.judged_by_oracle else self.folded_bound,
            max_abs=self.folded_agreement.max_abs,
            max_rel=self.folded_agreement.max_rel,
            cosine=self.folded_agreement.cosine,
            top1=self.folded_agreement.top1,
            problem=self.problem,
            noise=self.original_agreement.max_rel,
            excused=optimizer == "default" and self.problem is not None and self.excusable,
            error=self.worst_run.folded if by_oracle else None,
            original_error=self.worst_run.original_same_setting if by_oracle else None,
            ratio=self._ratio if by_oracle else None,
            bound=self.folded_bound if by_oracle and self.given_tolerance is None else None,
            compared=self.folded_agreement.compared,
            row=row,
        )

    @property
    def _ratio(self) -> float | None:
        logs = [math.log(one.rms_ratio) for one in self.measured if one.rms_ratio]
        return math.exp(statistics.fmean(logs)) if logs else None


def confirm_excuses(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Keep only those checks excused whose output agrees with the optimizer off."""
    agreed = {(check.provider, check.output) for check in checks if check.optimizer == "off" and check.passed}
    return tuple(
        replace(check, excused=check.excused and (check.provider, check.output) in agreed) for check in checks
    )


def not_compared(checks: Sequence[Check]) -> Iterator[str]:
    """The sentences on outputs of which nothing could be compared, where something of others was."""
    compared = {check.output for check in checks if check.compared}
    for name in dict.fromkeys(check.output for check in checks if compared and check.output not in compared):
        yield (
            f"The output {name!r} was not compared: on every input it is NaN, infinite or empty throughout "
            "in the original."
        )


def excuses(checks: Sequence[Check]) -> Iterator[str]:
    """The sentences on checks that fail for a reason other than the fold."""
    for check in checks:
        if check.excused and not check.row:
            noise = check.noise or 0.0
            figure = f" by {noise:.2g} of its scale" if noise and math.isfinite(noise) else ""
            yield (
                f"ONNX Runtime's default optimizer changes the output {check.output!r} of the original itself"
                f"{figure} ({check.provider}), so that setting does not count against the other model. "
                "With the optimizer off, the other model agrees with the original."
            )
