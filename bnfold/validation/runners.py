"""Both models under one provider and optimizer setting, and how their outputs compare run by run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bnfold.errors import ModelError
from bnfold.runtime import agreement, placement, sessions
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds, ModelLike
from bnfold.validation.output_check import Tally
from bnfold.validation.results import Check, Optimizer


class Setting(NamedTuple):
    """How a model is run.

    Attributes:
        provider: `"cpu"` or `"cuda"`.
        optimizer: ONNX Runtime's optimizer, off or at its default.
        tf32: Whether CUDA may round float32 factors to TF32.
    """

    provider: str
    optimizer: Optimizer
    tf32: bool = False

    def open(self, model: ModelLike, threads: int) -> Any:
        """Make a session."""
        return sessions.session(
            model,
            provider=self.provider,
            optimized=self.optimizer,
            threads=threads,
            tf32=self.tf32,
        )

    def __str__(self) -> str:
        return f"{self.provider}, optimizer {self.optimizer}{', TF32' if self.tf32 else ''}"


REFERENCE = Setting("cpu", "off")
"""What stands for the original where there is no oracle, and what its noise is measured from."""


@dataclass
class Original:
    """The original at every setting, as the measure of what rounding does.

    It has to run at `REFERENCE`. Where it does not run at another setting, that is no matter of the fold, and
    nothing is known of the rounding there.

    Raises:
        ModelError: ONNX Runtime does not load it.
    """

    model: ModelLike
    threads: int
    _sessions: dict[Setting, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sessions[REFERENCE] = REFERENCE.open(self.model, self.threads)

    def expected(self, feeds: Feeds) -> list[Any]:
        """The outputs on the CPU with the optimizer off.

        Raises:
            ModelError: The model rejects these inputs.
        """
        return sessions.run(self._sessions[REFERENCE], feeds)

    def run(self, setting: Setting, feeds: Feeds, expected: Sequence[object]) -> Sequence[object]:
        """The outputs at a setting; `expected`, that is no noise, where there are none."""
        if setting == REFERENCE:
            return expected
        outputs = self._try(setting, feeds)
        return expected if outputs is None else outputs

    def repeatability(self, providers: Sequence[str], feeds: Feeds) -> Iterator[tuple[str, float]]:
        """How far a second run is from the first, by provider: the floor of every comparison.

        The largest relative difference, optimizer off; nothing for a provider on which the original does not
        run.
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
                return sessions.run(self._sessions[setting], feeds)
        return None


@dataclass
class Runner:
    """The folded model at one setting.

    Attributes:
        setting: How it runs.
        tallies: How its outputs have compared so far.
        session: None where it could not be made.
        problem: Why it does not run.
    """

    setting: Setting
    tallies: list[Tally]
    session: Any = None
    problem: str | None = None

    @classmethod
    def start(cls, folded: ModelLike, setting: Setting, tallies: list[Tally], threads: int) -> Runner:
        """Make the session. That ONNX Runtime does not take the folded model is an outcome, no exception."""
        runner = cls(setting, tallies)
        try:
            runner.session = setting.open(folded, threads)
        except ModelError as error:
            runner._stop("load", error)
        return runner

    def compare(
        self, feeds: Feeds, true: Sequence[object], expected: Sequence[object], original: Original
    ) -> None:
        """Run the inputs, and count every output in."""
        if self.problem:
            return
        try:
            actual = sessions.run(self.session, feeds)
        except ModelError as error:
            self._stop("run", error)
            return
        own = original.run(self.setting, feeds, expected)
        turned: Optimizer = "default" if self.setting.optimizer == "off" else "off"
        other = original.run(self.setting._replace(optimizer=turned), feeds, expected)
        for tally, *values in zip(self.tallies, true, expected, own, other, actual, strict=True):
            tally.add(*values)

    @property
    def unit(self) -> float:
        """Unit roundoff of the coarsest type that an output was computed in."""
        return max((tally.unit for tally in self.tallies), default=0.0)

    def _stop(self, verb: str, error: ModelError) -> None:
        self.problem = f"The folded model does not {verb} ({self.setting}). {error.problem}"

    def checks(self, outputs: Sequence[Port]) -> Iterator[Check]:
        """The outcomes as they are reported; none where the model did not run to the end."""
        if not self.problem:
            for port, tally in zip(outputs, self.tallies, strict=True):
                yield tally.check(
                    self.setting.provider, self.setting.optimizer, port, row="tf32" * self.setting.tf32
                )


def strays(
    folded: ModelLike, providers: Sequence[str], feeds: Feeds, threads: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The nodes of the folded model that run elsewhere than asked for, by provider other than the CPU.

    Nothing is told of a provider on which the model does not run: its `Runner` says why.

    Raises:
        ProviderError: Nodes that do the model's work run elsewhere, so that the provider is not what would be
            compared.
    """
    for provider in providers:
        if provider == "cpu":
            continue
        try:
            placed = placement.placements(folded, feeds, provider=provider, optimized=False, threads=threads)
        except ModelError:
            continue
        placement.check(placed, provider)
        yield provider, tuple(node.name for node in placement.elsewhere(placed, provider))
