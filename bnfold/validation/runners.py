"""Both models under one provider and optimizer setting, and how their outputs compare run by run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bnfold.engines import base, known
from bnfold.engines.base import Loaded
from bnfold.engines.known import Choice
from bnfold.errors import ModelError, ProviderError
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.oracle import Oracle
from bnfold.runtime import agreement, placement, sessions
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import Port, as_ir
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer, Written
from bnfold.validation.output_check import NOISE_CAP, RUNTIME_NOISE_CAP, OutputCheck
from bnfold.validation.pairing import Pairing
from bnfold.validation.recorded import Recorded
from bnfold.validation.results import Check
from bnfold.validation.unknown_operators import Oracles

OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")


class Setting(NamedTuple):
    """How a model is run.

    Attributes:
        provider: Such as `"cpu"` or `"cuda"`; the title of another runtime; or `FLOAT64` where ONNX Runtime
            cannot load the original.
        optimizer: ONNX Runtime's optimizer, off or at its default, where other runtimes always are.
        tf32: Whether CUDA may round float32 factors to TF32.
    """

    provider: str
    optimizer: Optimizer
    tf32: bool = False

    def of(self, model: Written, threads: int) -> Recorded:
        """A model at this setting; its session is made when it is needed."""

        def start() -> Any:
            if self.provider == FLOAT64:
                graph = as_ir(model.model)
                return Oracles(graph).of(graph)
            if self.runtime is not None:
                return base.load(self.runtime.engine, model.source, threads, self.runtime.precision)
            made = sessions.session(
                model.source,
                provider=self.provider,
                optimized=self.optimizer,
                threads=threads,
                provider_options="tf32" if self.tf32 else "bnfold",
                configure=_without_arena,
            )
            sessions.demand_arrays(made)
            return made

        return Recorded(start, _run)

    @property
    def runtime(self) -> Choice | None:
        """The runtime, where it is another one than ONNX Runtime."""
        return known.titled(self.provider)

    def coarser(self, kinds: Sequence[str | None]) -> list[str | None]:
        """The float types that bound the outputs' errors, given those that the model computes them in.

        Another runtime is asked for one precision for all, and float64 is beyond every one of them.
        """
        asked = self.runtime.precision if self.runtime else None
        return [kind and max((kind, asked or kind), key=UNITS.__getitem__) for kind in kinds]

    @property
    def noise_cap(self) -> float:
        """How much farther off the original may be here before it counts as something else than rounding."""
        fine = self.runtime is not None and self.runtime.precision == "float32"
        return RUNTIME_NOISE_CAP if fine else NOISE_CAP

    @property
    def turned(self) -> Setting:
        """The same at ONNX Runtime's other optimizer setting; other runtimes have no such setting."""
        if self.runtime is not None:
            return self
        return self._replace(optimizer="default" if self.optimizer == "off" else "off")

    def __str__(self) -> str:
        if self.runtime is not None:
            return self.provider
        return f"{self.provider}, optimizer {self.optimizer}{', TF32' if self.tf32 else ''}"


def _without_arena(options: Any) -> None:
    """An arena keeps up to twice the memory that a run needs, and speeds it up little."""
    options.enable_cpu_mem_arena = False


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
    _settings: dict[Setting, Recorded] = field(default_factory=dict)
    _written: Written = field(init=False)

    def __post_init__(self) -> None:
        self._written = Written(self.model)
        self._at(self.reference).open()

    def expected(self, feeds: Feeds) -> list[Any]:
        """The outputs at the reference: on the CPU with the optimizer off, if ONNX Runtime loads the model.

        Raises:
            ModelError: The model rejects these inputs.
        """
        return self._at(self.reference).run(feeds)

    def record(self, setting: Setting, samples: Sequence[Feeds]) -> None:
        """Run all samples at a setting ahead, and close its session."""
        self._at(setting).record(samples)

    def settings(self, providers: Sequence[str], runtimes: Sequence[Choice] = ()) -> list[Setting]:
        """Where the folded model is compared with it; with TF32 on CUDA too, to show its effect."""
        others = [Setting(one.title, "default") for one in runtimes]
        if self.reference == IN_FLOAT64:
            return [IN_FLOAT64, *others]
        found = [Setting(provider, optimizer) for provider in providers for optimizer in OPTIMIZERS]
        return [*found, *([Setting("cuda", "default", tf32=True)] if "cuda" in providers else []), *others]

    def run(self, setting: Setting, feeds: Feeds, expected: Sequence[object]) -> Sequence[object]:
        """The outputs at a setting; `expected`, and so no noise, where the original does not run there."""
        if setting == self.reference or (self.reference == IN_FLOAT64 and setting.runtime is None):
            return expected
        outputs = self._try(setting, feeds)
        return expected if outputs is None else outputs

    def outputs(self, setting: Setting, feeds: Feeds) -> list[Any]:
        """The outputs at a setting; those at the reference where the original does not run there."""
        outputs = self._try(setting, feeds)
        return self.expected(feeds) if outputs is None else outputs

    def runs(self, setting: Setting, feeds: Feeds) -> bool:
        """Whether the original runs at a setting at all."""
        return self._try(setting, feeds) is not None

    def repeatability(self, settings: Sequence[Setting], feeds: Feeds) -> Iterator[tuple[str, float]]:
        """How far a second run of the original is from the first, by provider: no comparison can be finer.

        This is the largest relative difference, in ONNX Runtime with the optimizer off; a setting at which
        the original does not run is left out.
        """
        for setting in settings:
            first, second = self._try(setting, feeds), self._try(setting, feeds, again=True)
            if first is not None and second is not None:
                outcomes = (agreement.compare(a, b, math.inf) for a, b in zip(first, second, strict=True))
                yield setting.provider, max((outcome.max_rel or 0.0 for outcome in outcomes), default=0.0)

    def _at(self, setting: Setting) -> Recorded:
        if setting not in self._settings:
            self._settings[setting] = setting.of(self._written, self.threads)
        return self._settings[setting]

    def _try(self, setting: Setting, feeds: Feeds, *, again: bool = False) -> list[Any] | None:
        recorded = self._at(setting)
        try:
            return recorded.again(feeds) if again else recorded.run(feeds)
        except ModelError:
            return None


def _run(session: Any, feeds: Feeds) -> list[Any]:
    if isinstance(session, Loaded):
        return list(session.run(feeds))
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
        recorded: Its outputs, in the original's types.
        problem: Why it does not run.
    """

    setting: Setting
    outputs: list[OutputCheck]
    recorded: Recorded
    problem: str | None = None

    @classmethod
    def of(
        cls, folded: Written, pairing: Pairing, setting: Setting, outputs: list[OutputCheck], threads: int
    ) -> Runner:
        """The folded model at a setting, with its inputs and outputs as `pairing` matches them."""
        recorded = setting.of(folded, threads)

        def call(session: Any, feeds: Feeds) -> list[Any]:
            return pairing.restored(_run(session, pairing.for_folded(feeds)))

        return cls(setting, outputs, replace(recorded, call=call))

    def compare(
        self, feeds: Feeds, true: Sequence[object], expected: Sequence[object], original: Original
    ) -> None:
        """Run the inputs, and add each output to its check."""
        actual = self.run(feeds)
        if actual is None:
            return
        own = original.run(self.setting, feeds, expected)
        turned = self.setting.turned
        other = own if turned == self.setting else original.run(turned, feeds, expected)
        for check, *values in zip(self.outputs, true, expected, own, other, actual, strict=True):
            check.add(*values)

    def run(self, feeds: Feeds) -> list[Any] | None:
        """The outputs in the original's types; None where it does not run, which `problem` then says."""
        if self.problem:
            return None
        try:
            return self.recorded.run(feeds)
        except ModelError as error:
            verb = "load" if self.recorded.broken else "run"
            self.problem = f"The other model does not {verb} ({self.setting}). {error.problem}"
            return None

    @property
    def unit(self) -> float:
        """Unit roundoff of the coarsest type that an output was computed in."""
        return max((check.unit for check in self.outputs), default=0.0)

    def checks(self, ports: Sequence[Port]) -> Iterator[Check]:
        """The outcomes as they are reported; nothing where the model did not run to the end."""
        if not self.problem:
            row = "tf32" if self.setting.tf32 else ""
            for port, check in zip(ports, self.outputs, strict=True):
                yield check.result(self.setting.provider, self.setting.optimizer, port, row)


def demand_original(original: Original, runners: Sequence[Runner], feeds: Feeds) -> None:
    """Refuse a provider or a runtime that runs neither model: it says nothing about the folded one.

    Raises:
        ProviderError: There is one.
    """
    for runner in runners:
        provider = runner.setting.provider
        if runner.problem and provider not in ("cpu", FLOAT64) and not original.runs(runner.setting, feeds):
            if runner.setting.runtime is not None:
                _, _, why = runner.problem.partition(f"({runner.setting}). ")
                raise ProviderError(
                    f"{provider} runs neither model. {why}",
                    "Compare the models in a runtime that has what they need.",
                )
            raise ProviderError(
                f"The {provider} provider does not run the original either. {runner.problem}",
                "Compare the models on another provider.",
            )


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
