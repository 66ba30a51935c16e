"""How one output has compared over the samples, and what is made of it in the end.

With an oracle, both models are measured against the truth, run by run. The folded model may be `NOISE_FACTOR`
times as far from it as the original is in the same run, or in half of all runs, and `ULPS` units in the last
place more. "As the original is" means the original in ONNX Runtime with the optimizer off and at its default,
whichever is farther: both are roundings of one function. But a default that is more than `NOISE_CAP` times as
far off does not round, it computes something else, and is no measure.

Some inputs make a network amplify rounding a thousand times, and which of the two models is hit by that is
luck. So before an output, or the runtime, is called wrong, the oracle is asked how far one random rounding of
every weight of the *original* moves the truth on that very input; that counts as an error of the original
too. Where it is more than `CHAOTIC` units in the last place, or where the original is farther off than that
in half of all runs, the outputs cannot tell right from wrong, and only the proof value by value
([`bnfold.validation.layer_proof`][bnfold.validation.layer_proof]) can.

Without an oracle the original with the optimizer off stands for the truth. Its own error is then unknown, so
a bound by type takes its place, widened by what the optimizer changes in the original.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bnfold.runtime import agreement
from bnfold.runtime.agreement import Agreement
from bnfold.runtime.interface import Port
from bnfold.validation.deviation import Deviation, deviation
from bnfold.validation.results import Check, Optimizer

NOISE_FACTOR = 4.0
NOISE_CAP = 10.0
ULPS = 8.0
CHAOTIC = 1000.0


@dataclass(frozen=True)
class Run:
    """How far an output was from the truth in one run: largest relative errors.

    Attributes:
        reference: Of the original in ONNX Runtime on the CPU, optimizer off.
        own: Of the original at the setting that is judged.
        other: Of the original at the other optimizer setting.
        folded: Of the folded model.
        conditioning: How far one rounding of every weight moves the truth; 0 where that was not asked.
    """

    reference: Deviation
    own: Deviation
    other: Deviation
    folded: Deviation
    conditioning: float = 0.0


@dataclass
class Tally:
    """One output of the folded model at one setting.

    Attributes:
        natural: The bound by type that holds without an oracle; None for an output that must be equal.
        unit: Unit roundoff of the coarsest float type that the output was computed in.
        given: The user's own tolerance.
        shapes: The shapes that the output had, each once.
        outcome: The folded model against the original.
        noise: The original at the setting against itself with the optimizer off.
        has_truth: Whether there is an oracle.
        malformed: Whether the folded model's has another shape or type than the original's, in any run.
        runs: The errors, run by run.
        apart: The folded model's difference from the original, run by run.
        broken: The first run that no distance can judge: other shapes, NaN, integers that differ.
    """

    natural: float | None
    unit: float
    given: float | None
    shapes: dict[tuple[int, ...], None] = field(default_factory=dict)  # an ordered set
    outcome: Agreement = field(default_factory=Agreement)
    noise: Agreement = field(default_factory=Agreement)
    has_truth: bool = False
    malformed: bool = False
    runs: list[Run] = field(default_factory=list)
    apart: Deviation = field(default_factory=Deviation)
    broken: int | None = None

    def add(self, truth: object, expected: object, own: object, other: object, actual: object) -> None:
        """Count in one run.

        Args:
            truth: The oracle's value; None without an oracle.
            expected: The original's, optimizer off, on the CPU.
            own: The original's at the setting that is judged.
            other: The original's at the other optimizer setting, on the same provider.
            actual: The folded model's.
        """
        self.shapes |= dict.fromkeys(agreement.shapes(expected))
        outcome = agreement.compare(expected, actual, math.inf)
        self.malformed |= outcome.problem is not None and outcome.max_abs is None
        if outcome.problem and self.broken is None:
            self.broken = len(self.runs)
        self.outcome = self.outcome.worst(outcome)
        self.noise = self.noise.worst(agreement.compare(expected, own, math.inf))
        self.has_truth = self.has_truth or truth is not None
        truth = expected if truth is None else truth
        measured = [deviation(truth, value) for value in (expected, own, other, actual)]
        self.runs.append(Run(measured[0], measured[1], measured[2], measured[3]))
        self.apart += deviation(expected, actual)

    def learn(self, number: int, conditioning: float) -> None:
        """Note how far one rounding of every weight moves the truth in a run."""
        self.runs[number] = replace(self.runs[number], conditioning=conditioning)

    @property
    def doubtful(self) -> Iterator[int]:
        """The runs whose conditioning would have to be known before anything is called wrong."""
        if self.judged_by_truth:
            for number, run in enumerate(self.runs):
                if run.folded.largest > self._bound(run) or run.own.largest > self.rounding(run):
                    yield number

    @property
    def judged_by_truth(self) -> bool:
        """Whether the distance from the oracle decides, and not the one from the original."""
        return self.has_truth and self.given is None and (self.natural is not None or self._are_integers)

    @property
    def _are_integers(self) -> bool:
        """Whether the output holds integers or bools, of one shape in both models."""
        return self.natural is None and self.outcome.max_abs is not None and not self.malformed

    @property
    def worst(self) -> Run:
        """The run in which the folded model is nearest to its bound, or farthest beyond."""
        return max(self.runs, key=self._share)

    def _share(self, run: Run) -> float:
        """How much of its bound the folded model takes up in a run."""
        bound = self._bound(run)
        return run.folded.largest / bound if bound else math.inf if run.folded.largest else 0.0

    @property
    def telling(self) -> int | None:
        """The first run in which the problem shows; None where there is none.

        Not the one in which it shows most: that may be of zeros, which hide what is wrong with a weight.
        """
        if self.problem is None or self.broken is not None:
            return self.broken
        beyond = (number for number, run in enumerate(self.runs) if run.folded.largest > self._bound(run))
        return next(beyond, self.runs.index(self.worst))

    @property
    def suspect(self) -> Run:
        """The run in which the original at this setting is nearest to what rounding cannot explain."""
        return max(self.runs, key=lambda run: run.own.largest / self.rounding(run))

    def rounding(self, run: Run) -> float:
        """The error beyond which the original at a setting does not round, but computes something else."""
        if self.has_truth:
            if self._is_chaotic(run):
                return math.inf
            return NOISE_CAP * max(run.reference.largest, self._usual, run.conditioning, ULPS * self.unit)
        return max(self.given or 0.0, NOISE_CAP * (self.natural or 0.0))

    def _bound(self, run: Run) -> float:
        """The largest error that passes in one run with an oracle."""
        if self._is_chaotic(run):
            return math.inf
        noise = min(max(run.own.largest, run.other.largest, self._usual), self.rounding(run))
        floor = 0.0 if self._are_integers else ULPS * self.unit
        return NOISE_FACTOR * max(run.reference.largest, noise, run.conditioning) + floor

    @property
    def _usual(self) -> float:
        """The original's error that half of the runs stay below."""
        return statistics.median(run.reference.largest for run in self.runs)

    def _is_chaotic(self, run: Run) -> bool:
        if not self.has_truth or self._are_integers:
            return False
        return max(run.conditioning, self._usual) > CHAOTIC * self.unit

    @property
    def chaotic(self) -> Iterator[int]:
        """The runs whose outputs cannot tell right from wrong."""
        return (number for number, run in enumerate(self.runs) if self._is_chaotic(run))

    @property
    def bound(self) -> float:
        """The largest error that passes."""
        if self.given is not None:
            return self.given
        if self.has_truth:
            return self._bound(self.worst)
        noise = max((max(run.own.largest, run.other.largest) for run in self.runs), default=0.0)
        return max(self.natural or 0.0, NOISE_FACTOR * min(noise, NOISE_CAP * (self.natural or 0.0)))

    @property
    def error(self) -> float:
        """The folded model's error: to the original where the user's tolerance or no oracle decides."""
        return self.worst.folded.largest if self.judged_by_truth else self.apart.largest

    @property
    def problem(self) -> str | None:
        """Why the output does not agree; None when it does."""
        if self._are_integers and self.judged_by_truth and self.error <= self.bound:
            return None  # where two scores are as good as equal, rounding decides which is the larger
        if self.outcome.problem or self.natural is None or self.error <= self.bound:
            return self.outcome.problem
        if not self.judged_by_truth:
            return (
                f"The largest error is {self.outcome.max_abs or 0.0:.3g}, which is {self.error:.3g} of the "
                f"output's scale; at most {self.bound:.3g} is accepted."
            )
        run = self.worst
        return (
            f"It is {self.error:.3g} of its scale away from the float64 oracle, the original "
            f"{max(run.reference.largest, run.own.largest):.3g}; at most {self.bound:.3g} is accepted."
        )

    @property
    def excusable(self) -> bool:
        """Whether the original itself is off beyond rounding at this setting, and the folded hardly more."""
        if self.natural is None:
            changed, own = self.noise.max_abs or 0.0, self.outcome.max_abs or 0.0
            return self.noise.problem is not None and own <= NOISE_FACTOR * changed
        if self.noise.problem is not None:
            return True  # NaN, or another shape: nothing could be farther off
        run = self.suspect
        return (
            run.own.largest > self.rounding(run)
            and max(one.folded.largest for one in self.runs) <= NOISE_FACTOR * run.own.largest
        )

    def check(self, provider: str, optimizer: Optimizer, port: Port, row: str = "") -> Check:
        """The tally as it is reported."""
        by_truth = self.has_truth and self.natural is not None
        return Check(
            provider=provider,
            optimizer=optimizer,
            output=port.name,
            type=port.type,
            shapes=tuple(self.shapes),
            tolerance=None if self.natural is None or self.judged_by_truth else self.bound,
            max_abs=self.outcome.max_abs,
            max_rel=self.outcome.max_rel,
            cosine=self.outcome.cosine,
            top1=self.outcome.top1,
            problem=self.problem,
            noise=self.noise.max_rel,
            excused=optimizer == "default" and self.problem is not None and self.excusable,
            error=self.worst.folded.largest if by_truth else None,
            original_error=self.worst.own.largest if by_truth else None,
            ratio=self._ratio if by_truth else None,
            bound=self.bound if by_truth and self.given is None else None,
            row=row,
        )

    @property
    def _ratio(self) -> float | None:
        logs = [
            math.log(run.folded.rms / run.own.rms)
            for run in self.runs
            if run.own.rms and run.folded.rms and math.isfinite(run.own.rms + run.folded.rms)
        ]
        return math.exp(statistics.fmean(logs)) if logs else None


def settled(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks, of which only those stay excused whose output agrees with the optimizer off."""
    agreed = {(check.provider, check.output) for check in checks if check.optimizer == "off" and check.passed}
    return tuple(
        replace(check, excused=check.excused and (check.provider, check.output) in agreed) for check in checks
    )
