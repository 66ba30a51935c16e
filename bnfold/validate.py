"""Whether a folded model still is the original, in ONNX Runtime.

The reference is the original as it is written: ONNX Runtime on the CPU with its optimizer off. The folded
model runs on every provider asked for, with the optimizer off and at its default, on the same inputs. How
outputs are compared stands in [`bnfold.runtime.agreement`][bnfold.runtime.agreement].

A fold rounds otherwise than the original, and so does ONNX Runtime's own optimizer. On a model that amplifies
rounding this alone can exceed any fixed bound. So the original runs at ONNX Runtime's default too, on every
provider: its error there is the noise, and the folded model may have twice as much, up to ten times the
tolerance.

A default that changes the original itself by more than that does no rounding: it computes something else. A
fold cannot mend this and is not to blame for it. There the folded model is excused, with a note, where it
agrees with the optimizer off and is no farther off than twice what the original is.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import onnx_ir as ir

from bnfold.errors import InputError, ModelError
from bnfold.files.external import tensors
from bnfold.runtime import agreement, sessions
from bnfold.runtime.agreement import TOLERANCES, Agreement
from bnfold.runtime.interface import Port, as_ir, differences, dtype_name, interface
from bnfold.runtime.samples import Samples, choose, fit, run_drawn
from bnfold.runtime.sessions import Feeds, ModelLike

Optimizer = Literal["off", "default"]
Run: TypeAlias = Callable[[Feeds], list[Any]]
OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")
NOISE_FACTOR = 2.0
NOISE_CAP = 10.0


@dataclass(frozen=True)
class Check:
    """One output of the folded model under one provider and optimizer setting, over all samples.

    Attributes:
        provider: `"cpu"` or `"cuda"`.
        optimizer: ONNX Runtime's optimizer on the folded model: `"off"` or `"default"`.
        output: The graph output's name.
        type: Its type, such as `"float32"`.
        shapes: The shapes that it had, each once.
        tolerance: Bound of the relative error, with what the noise allows; None where equality is asked.
        max_abs: Largest absolute error; None for strings.
        max_rel: Largest error relative to the output's scale; None unless float.
        cosine: Smallest cosine similarity; None unless float.
        top1: Share of rows with the same largest column, 0 to 1; None where the output is no classifier's.
        problem: Why the output does not agree, as a sentence; None when it agrees.
        noise: Largest relative error of the original itself at ONNX Runtime's default on this provider, to
            set `max_rel` against; None unless float.
        excused: Whether the `problem` is not held against the fold: the optimizer changes the original itself
            beyond rounding, the folded model is at most twice as far off, and agrees with the optimizer off.
    """

    provider: str
    optimizer: Optimizer
    output: str
    type: str
    shapes: tuple[tuple[int, ...], ...]
    tolerance: float | None
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    top1: float | None
    problem: str | None
    noise: float | None = None
    excused: bool = False

    @property
    def passed(self) -> bool:
        """Whether this output agrees."""
        return self.problem is None


@dataclass(frozen=True)
class Validation:
    """The outcome of [`bnfold.validate`][bnfold.validate.validate].

    Attributes:
        checks: One a provider, optimizer setting and output. Empty where the models cannot be compared.
        problems: Sentences on what is wrong with the model as a whole: other inputs or outputs than the
            original's, or ONNX Runtime does not run it.
        notes: Sentences on what was not tried, such as other batch sizes, and on what was excused.
        providers: The providers asked for.
        threads: Threads within an operator.
        samples: Number of inputs that were run.
        seed: The seed that they were drawn with; None for given inputs.
        tolerance: The largest tolerance of an output, before noise; 0 where there is no float output.
    """

    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    samples: int = 0
    seed: int | None = None
    tolerance: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees or is excused."""
        return bool(self.checks) and not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for everything that is wrong."""
        return (
            *self.problems,
            *(
                f"Output {check.output!r} ({check.provider}, optimizer {check.optimizer}): {check.problem}"
                for check in self.checks
                if check.problem and not check.excused
            ),
        )


def validate(
    original: ModelLike,
    folded: ModelLike,
    *,
    providers: Sequence[str] = ("cpu",),
    inputs: Feeds | None = None,
    samples: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Compare a folded model with its original.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        providers: Where the folded model runs: `"cpu"`, `"cuda"` or both.
        inputs: Arrays by input name, to be used instead of random ones.
        samples: Number of random inputs; more are drawn where dynamic dimensions need them.
        seed: Seed of the random inputs.
        tolerance: Bound of the error relative to an output's scale. None takes one that follows from the
            types: 5e-5 for float32, 1e-12 for float64, 8 units in the last place for float16 and bfloat16;
            the coarsest type among the output and the original's weights decides. A tolerance that is
            given is not widened by noise.
        threads: Threads within an operator; None takes every CPU that this process may use.
        on_progress: Called with the number of runs done and their total.

    Raises:
        InputError: The inputs given do not fit the model, or none can be drawn that it takes.
        ModelError: The original cannot be read, or ONNX Runtime does not run it.
        ProviderError: A provider is unknown, absent, or would be silently replaced.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError(f"{tolerance} is no tolerance.", "Give a number from 0 upwards, such as 5e-5.")
    before, after = as_ir(original), as_ir(folded)
    ports = interface(before)
    threads = sessions.usable_cpus() if threads is None else threads
    outcome = Validation((), differences(ports, interface(after)), (), tuple(providers), threads)
    if outcome.problems:
        return outcome
    session = sessions.session(original, optimized=False, threads=threads)
    chosen, reference = _inputs(ports.inputs, partial(sessions.run, session), inputs, samples, seed)
    natural = _bounds(before, ports.outputs)
    bounds = [bound if bound is None or tolerance is None else tolerance for bound in natural]
    runners = []
    for provider in providers:
        control = _Original(original, provider, threads)
        for optimizer in OPTIMIZERS:
            tallies = [_Tally.start(bound, tolerance) for bound in natural]
            runners.append(_Runner.start(folded, provider, optimizer, threads, control, tallies))
    for number, feeds in enumerate(chosen.feeds):
        expected = reference(feeds)
        for done, runner in enumerate(runners, start=number * len(runners) + 1):
            runner.compare(feeds, expected)
            if on_progress:
                on_progress(done, len(chosen.feeds) * len(runners))
    checks = _settled([check for runner in runners for check in runner.checks(ports.outputs)])
    return replace(
        outcome,
        checks=checks,
        problems=tuple(runner.problem for runner in runners if runner.problem),
        notes=(*chosen.notes, *(_excuse(check) for check in checks if check.excused)),
        samples=len(chosen.feeds),
        seed=seed if inputs is None else None,
        tolerance=max((bound for bound in bounds if bound is not None), default=0.0),
    )


@dataclass
class _Tally:
    """How one output has compared so far."""

    bound: float | None
    widest: float  # what noise may widen the bound to
    rounding: float  # an error of the original itself beyond this is no rounding
    shapes: dict[tuple[int, ...], None] = field(default_factory=dict)  # an ordered set
    noise: Agreement = field(default_factory=Agreement)
    outcome: Agreement = field(default_factory=Agreement)
    original_error: float = 0.0
    error: float = 0.0

    @classmethod
    def start(cls, natural: float | None, given: float | None) -> _Tally:
        """A tally of nothing yet, from the bound that follows from the types and the one that was given."""
        if natural is None:
            return cls(None, 0.0, 0.0)
        rounding = NOISE_CAP * natural
        return cls(natural, rounding, rounding) if given is None else cls(given, given, max(given, rounding))

    @property
    def tolerance(self) -> float:
        """The bound, or what the noise so far allows."""
        return max(self.bound or 0.0, min(NOISE_FACTOR * (self.noise.max_rel or 0.0), self.widest))

    def add(self, expected: object, control: object, actual: object) -> None:
        """Count in one run: the reference's value, the original's at the default, the folded model's."""
        self.shapes |= dict.fromkeys(agreement.shapes(expected))
        noise = agreement.compare(expected, control, math.inf)
        self.noise = self.noise.worst(noise)
        outcome = agreement.compare(expected, actual, self.tolerance)
        self.outcome = self.outcome.worst(outcome)
        self.original_error = max(self.original_error, _distance(noise))
        self.error = max(self.error, _distance(outcome))

    @property
    def excusable(self) -> bool:
        """Whether the original itself is off beyond rounding, and the folded model hardly more."""
        return self.original_error > self.rounding and self.error <= NOISE_FACTOR * self.original_error

    def check(self, provider: str, optimizer: Optimizer, port: Port) -> Check:
        """The tally as it is reported."""
        return Check(
            provider=provider,
            optimizer=optimizer,
            output=port.name,
            type=port.type,
            shapes=tuple(self.shapes),
            tolerance=None if self.bound is None else self.tolerance,
            max_abs=self.outcome.max_abs,
            max_rel=self.outcome.max_rel,
            cosine=self.outcome.cosine,
            top1=self.outcome.top1,
            problem=self.outcome.problem,
            noise=self.noise.max_rel,
            excused=optimizer == "default" and self.outcome.problem is not None and self.excusable,
        )


def _distance(outcome: Agreement) -> float:
    """How far two outputs are apart, as one figure; infinite where they cannot be subtracted."""
    error = outcome.max_abs if outcome.max_rel is None else outcome.max_rel
    return error if error is not None else math.inf if outcome.problem else 0.0


def _settled(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks, of which only those stay excused whose output agrees with the optimizer off."""
    agreed = {(check.provider, check.output) for check in checks if check.optimizer == "off" and check.passed}
    return tuple(
        replace(check, excused=check.excused and (check.provider, check.output) in agreed) for check in checks
    )


def _excuse(check: Check) -> str:
    """The sentence on a check that is not held against the fold."""
    noise = check.noise or 0.0
    figure = f" by {noise:.2g} of its scale" if (check.tolerance or 0.0) < noise < math.inf else ""
    return (
        f"ONNX Runtime's default optimizer changes the output {check.output!r} of the original itself"
        f"{figure} ({check.provider}), so the folded model is not judged by it there. "
        "With the optimizer off, the folded model agrees with the original."
    )


class _Original:
    """The original at ONNX Runtime's default on one provider, as a measure of the noise.

    The reference has shown already that the original runs; where it does not run at the default, that is no
    matter of the fold, and no noise is known.
    """

    def __init__(self, original: ModelLike, provider: str, threads: int) -> None:
        self._session: Any = None
        with contextlib.suppress(ModelError):
            self._session = sessions.session(original, provider=provider, optimized=True, threads=threads)

    def run(self, feeds: Feeds, expected: Sequence[object]) -> Sequence[object]:
        """The outputs; `expected`, that is no noise, where there are none."""
        if self._session is not None:
            with contextlib.suppress(ModelError):
                return sessions.run(self._session, feeds)
        return expected


@dataclass
class _Runner:
    """The folded model under one provider and optimizer setting, and how its outputs have compared so far."""

    provider: str
    optimizer: Optimizer
    control: _Original
    tallies: list[_Tally]
    session: Any = None
    problem: str | None = None

    @classmethod
    def start(
        cls,
        folded: ModelLike,
        provider: str,
        optimizer: Optimizer,
        threads: int,
        control: _Original,
        tallies: list[_Tally],
    ) -> _Runner:
        """Make the session. That ONNX Runtime does not take the folded model is an outcome, no exception."""
        runner = cls(provider, optimizer, control, tallies)
        optimized = optimizer == "default"
        try:
            runner.session = sessions.session(folded, provider=provider, optimized=optimized, threads=threads)
        except ModelError as error:
            runner._stop("load", error)
        return runner

    def compare(self, feeds: Feeds, expected: Sequence[object]) -> None:
        """Run the inputs, and compare every output with the reference's."""
        if self.problem:
            return
        try:
            actual = sessions.run(self.session, feeds)
        except ModelError as error:
            self._stop("run", error)
            return
        control = self.control.run(feeds, expected)
        for tally, *values in zip(self.tallies, expected, control, actual, strict=True):
            tally.add(*values)

    def _stop(self, verb: str, error: ModelError) -> None:
        where = f"{self.provider}, optimizer {self.optimizer}"
        self.problem = f"The folded model does not {verb} ({where}). {error.problem}"

    def checks(self, outputs: Sequence[Port]) -> Iterator[Check]:
        """The outcomes as they are reported; none where the model did not run to the end."""
        if not self.problem:
            for port, tally in zip(outputs, self.tallies, strict=True):
                yield tally.check(self.provider, self.optimizer, port)


def _inputs(
    ports: Sequence[Port], reference: Run, given: Feeds | None, count: int, seed: int
) -> tuple[Samples, Run]:
    """The inputs, and how to run the original on them."""
    if given is not None:
        return Samples((fit(given, ports),)), reference
    return choose(ports, reference, count=count, seed=seed), partial(run_drawn, reference)


def _bounds(original: ir.Model, outputs: Sequence[Port]) -> list[float | None]:
    """The tolerance of every output; None for those that must be equal.

    The coarsest type among the output and the model's weights decides: float16 weights under a float32 output
    leave float16's precision.
    """
    weights = {dtype_name(tensor.dtype) for tensor in tensors(original) if len(tensor.shape) > 1}
    bounds: list[float | None] = []
    for port in outputs:
        own = [name for name in TOLERANCES if re.search(rf"\b{name}\b", port.type)]
        if not own and port.type != "unknown":
            bounds.append(None)
        else:
            bounds.append(
                max((TOLERANCES[name] for name in {*own, *weights} & TOLERANCES.keys()), default=5e-5)
            )
    return bounds
