"""Both models under one provider and optimizer setting, and how their outputs compare run by run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bnfold.errors import ModelError
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from bnfold.runtime import agreement, placement, sessions
from bnfold.runtime.interface import Port, as_ir
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer
from bnfold.validation.output_check import OutputCheck
from bnfold.validation.pairing import Pairing
from bnfold.validation.results import Check
from bnfold.validation.unknown_operators import Oracles

OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")


class Setting(NamedTuple):
    """How a model is run.

    Attributes:
        provider: `"cpu"` or `"cuda"`, or `FLOAT64` where ONNX Runtime cannot load the original.
        optimizer: ONNX Runtime's optimizer, off or at its default.
        tf32: Whether CUDA may round float32 factors to TF32.
    """

    provider: str
    optimizer: Optimizer
    tf32: bool = False

    def open(self, model: ModelLike, threads: int) -> Any:
        """Make a session."""
        if self.provider == FLOAT64:
            graph = as_ir(model)
            return Oracles(graph).of(graph)
        return sessions.session(
            model,
            provider=self.provider,
            optimized=self.optimizer,
            threads=threads,
            tf32=self.tf32,
        )

    def __str__(self) -> str:
        return f"{self.provider}, optimizer {self.optimizer}{', TF32' if self.tf32 else ''}"


FLOAT64 = "float64"
"""The float64 oracle in the place of a provider."""

REFERENCE = Setting("cpu", "off")
"""The original is the reference here without an oracle, and its noise is measured from here."""

IN_FLOAT64 = Setting(FLOAT64, "off")


@dataclass
class Original:
    """The original at every setting, which shows what rounding alone does.

    It has to run at `reference`. That it does not run at another setting has nothing to do with the fold; its
    rounding there is then unknown.

    Raises:
        ModelError: ONNX Runtime does not load it.
    """

    model: ModelLike
    threads: int
    reference: Setting = REFERENCE
    _sessions: dict[Setting, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sessions[self.reference] = self.reference.open(self.model, self.threads)

    def expected(self, feeds: Feeds) -> list[Any]:
        """The outputs at the reference: on the CPU with the optimizer off, if ONNX Runtime loads the model.

        Raises:
            ModelError: The model rejects these inputs.
        """
        return _run(self._sessions[self.reference], feeds)

    def settings(self, providers: Sequence[str]) -> list[Setting]:
        """Where the folded model is compared with it; with TF32 on CUDA too, to show its effect."""
        if self.reference == IN_FLOAT64:
            return [IN_FLOAT64]
        found = [Setting(provider, optimizer) for provider in providers for optimizer in OPTIMIZERS]
        return [*found, *([Setting("cuda", "default", tf32=True)] if "cuda" in providers else [])]

    def run(self, setting: Setting, feeds: Feeds, expected: Sequence[object]) -> Sequence[object]:
        """The outputs at a setting; `expected`, and so no noise, where the original does not run there."""
        if self.reference in (setting, IN_FLOAT64):
            return expected
        outputs = self._try(setting, feeds)
        return expected if outputs is None else outputs

    def outputs(self, setting: Setting, feeds: Feeds) -> list[Any]:
        """The outputs at a setting; those at the reference where the original does not run there."""
        outputs = self._try(setting, feeds)
        return self.expected(feeds) if outputs is None else outputs

    def repeatability(self, providers: Sequence[str], feeds: Feeds) -> Iterator[tuple[str, float]]:
        """How far a second run of the original is from the first, by provider: no comparison can be finer.

        This is the largest relative difference with the optimizer off; a provider on which the original does
        not run is left out.
        """
        for provider in providers:
            first, second = (self._try(Setting(provider, "off"), feeds) for _ in range(2))
            if first is not None and second is not None:
                outcomes = (agreement.compare(a, b, math.inf) for a, b in zip(first, second, strict=True))
                yield provider, max((outcome.max_rel or 0.0 for outcome in outcomes), default=0.0)

    def _try(self, setting: Setting, feeds: Feeds) -> list[Any] | None:
        if setting not in self._sessions:
            self._sessions[setting] = None
            with contextlib.suppress(ModelError):
                self._sessions[setting] = setting.open(self.model, self.threads)
        if self._sessions[setting] is not None:
            with contextlib.suppress(ModelError):
                return _run(self._sessions[setting], feeds)
        return None


def _run(session: Any, feeds: Feeds) -> list[Any]:
    if not isinstance(session, Oracle):
        return sessions.run(session, feeds)
    try:
        return session.run(feeds)
    except NotEvaluableError as error:
        raise ModelError(error.problem, error.fix) from error


@dataclass
class Runner:
    """The folded model at one setting.

    Attributes:
        setting: How it runs.
        outputs: How each of its outputs compares so far.
        pairing: In which types it takes its inputs.
        session: None where it could not be made.
        problem: Why it does not run.
    """

    setting: Setting
    outputs: list[OutputCheck]
    pairing: Pairing
    session: Any = None
    problem: str | None = None

    @classmethod
    def start(
        cls, folded: ModelLike, pairing: Pairing, setting: Setting, outputs: list[OutputCheck], threads: int
    ) -> Runner:
        """Make the session. Where ONNX Runtime does not load the folded model, that is the outcome."""
        runner = cls(setting, outputs, pairing)
        try:
            runner.session = setting.open(folded, threads)
        except ModelError as error:
            runner._stop("load", error)
        return runner

    def compare(
        self, feeds: Feeds, true: Sequence[object], expected: Sequence[object], original: Original
    ) -> None:
        """Run the inputs, and add each output to its check."""
        actual = self.run(feeds)
        if actual is None:
            return
        own = original.run(self.setting, feeds, expected)
        turned: Optimizer = "default" if self.setting.optimizer == "off" else "off"
        other = original.run(self.setting._replace(optimizer=turned), feeds, expected)
        for check, *values in zip(self.outputs, true, expected, own, other, actual, strict=True):
            check.add(*values)

    def run(self, feeds: Feeds) -> list[Any] | None:
        """The outputs in the original's types; None where it does not run, which `problem` then says."""
        if self.problem:
            return None
        try:
            return self.pairing.restored(_run(self.session, self.pairing.for_folded(feeds)))
        except ModelError as error:
            self._stop("run", error)
            return None

    @property
    def unit(self) -> float:
        """Unit roundoff of the coarsest type that an output was computed in."""
        return max((check.unit for check in self.outputs), default=0.0)

    def _stop(self, verb: str, error: ModelError) -> None:
        self.problem = f"The other model does not {verb} ({self.setting}). {error.problem}"

    def checks(self, ports: Sequence[Port]) -> Iterator[Check]:
        """The outcomes as they are reported; nothing where the model did not run to the end."""
        if not self.problem:
            row = "tf32" if self.setting.tf32 else ""
            for port, check in zip(ports, self.outputs, strict=True):
                yield check.result(self.setting.provider, self.setting.optimizer, port, row)


def nodes_elsewhere(
    folded: ModelLike, pairing: Pairing, providers: Sequence[str], feeds: Feeds, threads: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The nodes of the folded model that run on another provider than asked for; the CPU is left out.

    A provider on which the model does not run is left out too: its `Runner` says why.

    Raises:
        ProviderError: Nodes that do the model's work run elsewhere, so that something other than the provider
            would be compared.
    """
    for provider in providers:
        if provider == "cpu":
            continue
        try:
            taken = pairing.for_folded(feeds)
            placed = placement.placements(folded, taken, provider=provider, optimized="off", threads=threads)
        except ModelError:
            continue
        placement.check(placed, provider)
        yield provider, tuple(node.name for node in placement.elsewhere(placed, provider))
