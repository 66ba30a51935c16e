"""What a validation returns: every comparison of outputs, faults of the runtime itself, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bnfold.display.shown import Shown
from bnfold.errors import listed
from bnfold.options import Checking
from bnfold.validation.unseen import Unseen

if TYPE_CHECKING:
    from bnfold.display.plots import Bar
    from bnfold.runtime.sessions import Optimizer
    from bnfold.validation.accuracy import Accuracy
    from bnfold.validation.layers import Blame, Layer


def is_runtime(provider: str) -> bool:
    """Whether that is the title of another runtime: ONNX Runtime's short names are in lower case."""
    return provider != provider.lower()


@dataclass(frozen=True)
class Check:
    """One output of the folded model under one provider and optimizer setting, over all samples.

    Attributes:
        provider: `"cpu"` or `"cuda"`; the title of another runtime; `"float64"` where ONNX Runtime cannot
            load the original, and the float64 evaluations of both models are compared.
        optimizer: ONNX Runtime's optimizer on the folded model: `"off"` or `"default"`.
        output: The graph output's name.
        type: Its type, such as `"float32"`.
        shapes: The shapes that it had, each once.
        tolerance: Bound of `max_rel`, noise included; None where the oracle decides, and where the output
            must be equal.
        max_abs: Largest absolute difference from the original; None for strings.
        max_rel: Largest difference relative to the output's scale; None unless float.
        cosine: Smallest cosine similarity; None unless float.
        top1: Share of rows with the same largest column, 0 to 1; None unless the output looks like a
            classifier's.
        problem: Why the output does not agree, as a sentence; None when it agrees.
        noise: Largest relative difference between the original at ONNX Runtime's default on this provider and
            the original with the optimizer off, to compare `max_rel` with; None unless float.
        excused: Whether the `problem` does not count against the fold: the optimizer changes the original
            itself by more than rounding, the folded model is at most four times as far off, and it agrees
            with the optimizer off.
        error: Largest relative error of the folded model to the float64 oracle, in the run in which it is
            nearest to its bound; None without an oracle.
        original_error: The same of the original, at the same setting and in the same run.
        ratio: Root-mean-square error of the folded model by that of the original at the same setting, as the
            geometric mean over the samples; None without an oracle, and where one of them has no error.
        bound: What `error` may be; None without an oracle.
        compared: Whether there was anything to compare: not if the output was empty or NaN throughout.
        row: `"tf32"` for the additional row in which CUDA may round factors to TF32, which decides nothing;
            otherwise empty.
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
    error: float | None = None
    original_error: float | None = None
    ratio: float | None = None
    bound: float | None = None
    compared: bool = True
    row: str = ""

    @property
    def passed(self) -> bool:
        """Whether this output agrees."""
        return self.problem is None

    @property
    def has_optimizer(self) -> bool:
        """Whether ONNX Runtime ran it, whose optimizer has a setting."""
        return not is_runtime(self.provider)

    @property
    def place(self) -> str:
        """The provider with its optimizer setting, or the runtime."""
        return f"{self.provider}, optimizer {self.optimizer}" if self.has_optimizer else self.provider

    @property
    def share(self) -> float | None:
        """The error, or without an oracle the difference, by its bound; None where nothing was measured."""
        measured, bound = (self.max_rel, self.tolerance) if self.bound is None else (self.error, self.bound)
        return None if measured is None or not bound or math.isinf(bound) else measured / bound

    def record(self) -> dict[str, Any]:
        """The comparison as a row of plain values."""
        outcome = "agrees" if self.compared else "not compared"
        if not self.passed:
            outcome = "excused" if self.excused else "disagrees"
        return {
            "output": self.output,
            "provider": self.provider,
            "optimizer": self.optimizer if self.has_optimizer else None,
            "outcome": "for comparison" if self.row else outcome,
            "error": self.error,
            "original_error": self.original_error,
            "ratio": self.ratio,
            "bound": self.tolerance if self.bound is None else self.bound,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "top1": self.top1,
            "problem": self.problem,
        }

    @property
    def fails(self) -> bool:
        """Whether it counts against the folded model."""
        return not (self.passed or self.excused or self.row)


@dataclass(frozen=True)
class Fault:
    """ONNX Runtime's default optimizer, or another runtime, changes the original by more than rounding.

    Attributes:
        provider: Where it happens.
        output: The graph output that changes.
        error: The original's relative error at the default.
        off: The original's relative error with the optimizer off.
        folded: The folded model's relative error at the default.
        optimizers: ONNX Runtime's names of the optimizers that do it; empty where they could not be found.
    """

    provider: str
    output: str
    error: float
    off: float
    folded: float
    optimizers: tuple[str, ...] = ()

    @property
    def affects_folded(self) -> bool:
        """Whether the folded model is wrong for the same reason."""
        return self.folded > max(0.1 * self.error, 2 * self.off)

    @property
    def sentence(self) -> str:
        """Which optimizer changes the original, by how much, and whether the folded model is affected."""
        if is_runtime(self.provider):
            also = "also" if self.affects_folded else "not"
            return (
                f"{self.provider} computes the output {self.output!r} of the original wrongly: it is "
                f"{self.error:.2g} of its scale off, more than rounding explains, and {self.off:.2g} in ONNX "
                f"Runtime. The other model is {also} affected ({self.folded:.2g})."
            )
        who = f"its optimizer {listed(self.optimizers)}" if self.optimizers else "its default optimization"
        folded = (
            f"The other model is affected too ({self.folded:.2g}), but not with the optimizer off."
            if self.affects_folded
            else f"The other model is not affected ({self.folded:.2g})."
        )
        return (
            f"ONNX Runtime at its default computes the output {self.output!r} of the original wrongly "
            f"on {self.provider}: {who} changes it by {self.error:.2g} of its scale ({self.off:.2g} with the "
            f"optimizer off). {folded}"
        )


@dataclass(frozen=True)
class Request(Checking):
    """How a validation was requested: all that is needed to repeat it.

    Attributes:
        inputs: Where given inputs came from, with their hashes; None for random ones, and empty for arrays
            given from Python.
    """

    inputs: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """The outcome of [`bnfold.validate`][bnfold.api.validate.validate]. It is true if the models agree.

    Attributes:
        checks: One for each provider, optimizer setting and output; empty if the models cannot be compared.
        problems: Sentences on what is wrong with the model as a whole: its inputs or outputs cannot be paired
            with the original's, ONNX Runtime does not run it, or the fold is not exact.
        notes: Sentences on inputs that were left out, and on what was excused.
        providers: The requested providers.
        threads: Threads within an operator.
        samples: Number of inputs that were run.
        seed: The seed of random inputs; None for given inputs.
        tolerance: The largest bound of an output; 0 without a float output.
        oracle: A sentence on which reference decided.
        labels: What each sample is, as `"normal 1×3×64×64"`.
        layers: The values that both models compute, in order; empty without an oracle.
        proved_on: The labels of the samples on which they were compared.
        blame: The first wrong value; None where nothing is wrong, and where it is not known.
        faults: Outputs of the original that ONNX Runtime's default optimizer changes by more than rounding.
        repeatability: Largest relative difference between two runs of the original, by provider.
        placement: The nodes of the folded model that ran on another provider, by requested provider.
        is_fold: Whether the second model carries bnfold's record of its fold from the first. Only then do
            equal names inside mean equal values; otherwise the outputs decide.
        decided_in_float64: Whether the float64 evaluation of the outputs decided, since ONNX Runtime's could
            not.
        request: How the validation was requested.
        accuracy: How often both models are right on labelled data; None without labels.
        differences: Sentences on what a caller of the second model meets otherwise: names, types, open sizes,
            opset, lost metadata. They are failures if the request is strict.
        unseen: Where a fault could stand that nothing here would have shown.
        not_run: What depends on operators that could not be run, by name; nothing of it was compared.
    """

    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    samples: int = 0
    seed: int | None = None
    tolerance: float = 0.0
    oracle: str = ""
    labels: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    proved_on: tuple[str, ...] = ()
    blame: Blame | None = None
    faults: tuple[Fault, ...] = ()
    repeatability: tuple[tuple[str, float], ...] = ()
    placement: tuple[tuple[str, tuple[str, ...]], ...] = ()
    is_fold: bool = False
    decided_in_float64: bool = False
    request: Request | None = None
    accuracy: Accuracy | None = None
    differences: tuple[str, ...] = ()
    unseen: Unseen = Unseen()  # noqa: RUF009 - it is frozen
    not_run: tuple[str, ...] = ()

    axis: ClassVar[str] = "largest error or difference, in units of what is allowed"
    line: ClassVar[float | None] = 1.0

    @property
    def headline(self) -> str:
        """Whether the models compute the same, and if not, what differs first."""
        if self.undecided and not self.failures:
            return self.undecided
        if not self.passed:
            rest = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            return f"The models differ. {next(iter(self.failures), '')}{rest}"
        left = f" Not compared: {listed(self.not_compared)}." if self.not_compared else ""
        inputs = f"{self.samples} input{'' if self.samples == 1 else 's'}"
        return f"The models compute the same, on {inputs}.{left}"

    def __bool__(self) -> bool:
        return self.passed

    def records(self) -> list[dict[str, Any]]:
        """A row for each output on each provider at each setting."""
        return [check.record() for check in self.checks]

    def bars(self) -> Sequence[Bar]:
        """How near each output is to its bound."""
        from bnfold.display.plots import Bar

        shares = [(f"{check.output} ({check.place})", check.share) for check in self.checks if not check.row]
        return [Bar(label, share) for label, share in shares if share is not None]

    @property
    def not_compared(self) -> tuple[str, ...]:
        """The outputs of which no element was compared, by name."""
        compared = {check.output for check in self.checks if check.compared}
        names = dict.fromkeys((*(check.output for check in self.checks), *self.not_run))
        return tuple(name for name in names if name not in compared)

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees or is excused."""
        return bool(self.checks) and not self.failures and self.undecided is None

    @property
    def is_undecided(self) -> bool:
        """Whether no output can decide in ONNX Runtime: rounding alone makes anything of them."""
        bounds = [check.bound for check in self.checks if check.compared and not check.row]
        return bool(bounds) and all(bound == math.inf for bound in bounds)

    @property
    def undecided(self) -> str | None:
        """Why nothing can be said, as a sentence; None where something was compared."""
        if self.checks and not any(check.compared for check in self.checks):
            return (
                "Nothing could be compared: on every input, each output of the original is NaN, infinite or "
                "empty throughout. Give inputs on which it computes numbers."
            )
        if self.is_undecided and not self.decided_in_float64 and not (self.is_fold and self.layers):
            return (
                "Nothing could be decided: on every input the original amplifies roundings more than a "
                "thousand times, and its outputs could not be compared in float64. Give other inputs."
            )
        return None

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for everything that is wrong."""
        problems = " ".join(self.problems)
        blamed = (self.blame.sentence,) if self.blame and self.blame.sentence not in problems else ()
        return (
            *self.problems,
            *(self.differences if self.request and self.request.strict else ()),
            *(
                f"Output {check.output!r} ({check.place}): {check.problem}"
                for check in self.checks
                if check.fails
            ),
            *blamed,
        )

    @property
    def differs_to_callers_only(self) -> bool:
        """Whether nothing fails but `differences`."""
        return bool(self.checks and self.differences) and self.failures == self.differences
