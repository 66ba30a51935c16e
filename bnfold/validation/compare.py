"""How a folded model is compared with its original, step by step: the inside of `bnfold.validate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from bnfold.inputs.given import Given, Inputs, as_samples
from bnfold.inputs.samples import Samples, choose
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.runtime.agreement import TOLERANCES, UNITS
from bnfold.runtime.interface import Interface, Port, as_ir, differences, interface
from bnfold.runtime.sessions import Feeds, ModelLike
from bnfold.validation import choose_reference, layer_proof, optimizer_faults, renamed_values
from bnfold.validation.choose_reference import OracleMode, Truth
from bnfold.validation.dtypes import coarsest
from bnfold.validation.output_check import Tally, settled
from bnfold.validation.results import Blame, Check, Optimizer, Request, Validation
from bnfold.validation.runners import Original, Runner, Setting, strays

OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")


def compare(
    original: ModelLike,
    folded: ModelLike,
    request: Request,
    inputs: Inputs | None,
    oracle: OracleMode,
    on_progress: Callable[[int, int], None],
) -> Validation:
    """Do what [`validate`][bnfold.validation.validate.validate] is asked for.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        request: How to compare them; what it says of `inputs` and `oracle` is for the report.
        inputs: What to run them on; None draws random inputs.
        oracle: Whether the float64 oracle decides: `"auto"`, `"on"` or `"off"`.
        on_progress: Called with the number of runs done and their total.
    """
    before, after = as_ir(original), as_ir(folded)
    ports = interface(before)
    providers, threads, tolerance = request.providers, request.threads, request.tolerance
    record = None if inputs is None else inputs.record() if isinstance(inputs, Given) else {}
    request = replace(request, inputs=record)
    outcome = Validation((), differences(ports, interface(after)), (), providers, threads, request=request)
    if outcome.problems:
        return outcome
    pair = _Pair(original, folded, before, after, ports, threads)
    measure = Original(original, threads)
    chosen = _inputs(ports.inputs, measure.expected, inputs, request.samples, request.seed)
    reference = choose_reference.find(before, chosen.feeds, oracle)
    first = chosen.feeds[reference.chosen[0]]
    runners = _runners(pair, providers, tolerance)
    placement = tuple(strays(folded, providers, first, threads))
    _compare(pair, chosen, reference, runners, measure, on_progress)
    outcome = replace(
        outcome,
        checks=settled([check for runner in runners for check in runner.checks(ports.outputs)]),
        problems=tuple(runner.problem for runner in runners if runner.problem),
        notes=(*chosen.notes, *_chaos(runners, chosen, reference)),
        samples=len(reference.chosen),
        seed=request.seed if inputs is None else None,
        oracle=reference.sentence,
        labels=tuple(chosen.labels[number] for number in reference.chosen),
        repeatability=tuple(measure.repeatability(providers, first)),
        placement=placement,
    )
    bounds = [check.bound or check.tolerance or 0.0 for check in outcome.checks if not check.row]
    outcome = replace(outcome, tolerance=max(bounds, default=0.0))
    outcome = _with_faults(outcome, pair, chosen, reference, runners)
    if reference.oracle is not None and outcome.checks:  # what does not run may be no model at all
        places = _proving(pair.before, chosen, reference, runners)
        outcome = replace(outcome, proved_on=tuple(chosen.labels[place] for place in places))
        outcome = _with_layers(
            outcome, pair, [chosen.feeds[place] for place in places], request.per_layer, tolerance
        )
    return replace(outcome, notes=(*outcome.notes, *map(_excuse, filter(_is_excused, outcome.checks))))


@dataclass(frozen=True)
class _Pair:
    """The two models, as they were given and as they were read, and what callers see of them."""

    original: ModelLike
    folded: ModelLike
    before: ir.Model
    after: ir.Model
    ports: Interface
    threads: int


def _inputs(
    ports: Sequence[Port], run: Callable[[Feeds], Any], given: Inputs | None, count: int, seed: int
) -> Samples:
    return choose(ports, run, count=count, seed=seed) if given is None else as_samples(given, ports)


def _runners(pair: _Pair, providers: Sequence[str], tolerance: float | None) -> list[Runner]:
    """One a setting; on CUDA one more shows what TF32, which is on where nobody turns it off, would do."""
    settings = [Setting(provider, optimizer) for provider in providers for optimizer in OPTIMIZERS]
    settings += [Setting("cuda", "default", tf32=True)] * ("cuda" in providers)
    kinds = coarsest(pair.before, pair.ports.outputs)
    return [
        Runner.start(
            pair.folded,
            setting,
            [
                Tally(TOLERANCES[kind] if kind else None, UNITS[kind or "float32"], tolerance)
                for kind in kinds
            ],
            pair.threads,
        )
        for setting in settings
    ]


def _compare(
    pair: _Pair,
    samples: Samples,
    reference: Truth,
    runners: Sequence[Runner],
    original: Original,
    tell: Callable[[int, int], None],
) -> None:
    """Run every sample at every setting; the oracle's run counts as one."""
    total, done = len(reference.chosen) * (len(runners) + 1), 0
    for number, (_, feeds, expected) in enumerate(samples.each(original.expected)):
        if number not in reference.chosen:
            continue
        true = reference.outputs(feeds, len(expected))
        tell(done := done + 1, total)
        for runner in runners:
            runner.compare(feeds, true, expected, original)
            tell(done := done + 1, total)
    judged = [runner for runner in runners if not runner.setting.tf32]
    doubtful = {place for runner in judged for tally in runner.tallies for place in tally.doubtful}
    for place in sorted(doubtful):
        moved = reference.conditioning(pair.before, samples.feeds[reference.chosen[place]], judged[0].unit)
        for runner in runners:
            for tally, one in zip(runner.tallies if not runner.problem else (), moved, strict=False):
                tally.learn(place, one)


def _chaos(runners: Sequence[Runner], samples: Samples, reference: Truth) -> Iterator[str]:
    """A sentence on the samples whose outputs could not be judged."""
    places = sorted({place for runner in runners for tally in runner.tallies for place in tally.chaotic})
    if places:
        names = [samples.labels[reference.chosen[place]] for place in places]
        where = "every input" if len(places) == len(reference.chosen) else ", ".join(names)
        yield (
            f"On {where} the original itself amplifies roundings more than a thousand times. The outputs "
            "there decide nothing; the values on the way do."
        )


def _proving(
    original: ir.Model, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> tuple[int, ...]:
    """The samples to prove the fold on: those that show what is wrong with an output come first.

    A channel that is dead for one input may be all that a fault is in. Then come those whose outputs decide
    nothing, and all the others, as far as time allows.
    """
    tallies = [t for runner in runners if not runner.setting.tf32 for t in runner.tallies if t.runs]
    telling = [tally.telling for tally in tallies if tally.telling is not None]
    chaotic = sorted({place for tally in tallies for place in tally.chaotic})
    order = dict.fromkeys((*telling, *chaotic, *range(len(reference.chosen))))
    places = [reference.chosen[place] for place in order]
    feeds = [samples.feeds[place] for place in places]
    return tuple(places[number] for number in choose_reference.provable(original, feeds))


def _with_layers(
    outcome: Validation, pair: _Pair, samples: Sequence[Feeds], per_layer: bool, tolerance: float | None
) -> Validation:
    """Add the proof in float64 and, where something is wrong, the first value that is."""
    feeds = samples[0]
    kinds = [kind for kind in coarsest(pair.before, pair.ports.outputs) if kind]
    try:
        unit = max((UNITS[kind] for kind in kinds), default=0.0)
        proved, after = renamed_values.proved(pair.before, pair.after, feeds, unit)
        others = [layer_proof.prove(pair.before, after, more, unit) for more in samples[1:]]
        proved = layer_proof.worst([proved, *others])
    except NotEvaluableError as error:
        sentence = f"The fold was not proved value by value. {error.problem}"
        if all(check.bound == math.inf for check in outcome.checks if not check.row):
            return replace(outcome, problems=(*outcome.problems, sentence))  # then nothing was proved at all
        return replace(outcome, notes=(*outcome.notes, sentence))
    wrong = next((layer for layer in proved if not layer.agrees), None)
    blame = Blame(wrong) if wrong else None
    failing = next((check for check in outcome.checks if check.fails), None)
    provider = failing.provider if failing else outcome.providers[0]
    if per_layer or (failing and not blame):
        proved = layer_proof.measure(proved, pair.before, after, feeds, provider, pair.threads)
    if failing and not blame:
        blame = layer_proof.first_off(proved, provider)
    judged = wrong is not None and tolerance is None
    problem = f"The fold is not exact. {blame.sentence}" if blame and judged else None
    return replace(
        outcome,
        layers=proved,
        blame=blame if judged or failing else None,
        problems=(*outcome.problems, problem) if problem else outcome.problems,
    )


def _with_faults(
    outcome: Validation, pair: _Pair, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> Validation:
    """Add what ONNX Runtime's default optimizer does to the original beyond rounding."""
    if reference.oracle is None:
        return outcome
    outputs = [port.name for port in pair.ports.outputs]
    found = []
    for runner in runners:
        setting = runner.setting
        if setting.optimizer == "default" and not setting.tf32 and not runner.problem:
            for number, fault in optimizer_faults.suspects(setting.provider, outputs, runner.tallies):
                tally = runner.tallies[number]
                feeds = samples.feeds[reference.chosen[tally.runs.index(tally.suspect)]]
                rounding = tally.rounding(tally.suspect)
                true = reference.outputs(feeds, len(outputs))[number]
                found.append(
                    optimizer_faults.named(fault, number, pair.original, feeds, true, rounding, pair.threads)
                )
    return replace(outcome, faults=tuple(found))


def _is_excused(check: Check) -> bool:
    return check.excused and not check.row


def _excuse(check: Check) -> str:
    """The sentence on a check that is not held against the fold."""
    noise = check.noise or 0.0
    figure = f" by {noise:.2g} of its scale" if noise and math.isfinite(noise) else ""
    return (
        f"ONNX Runtime's default optimizer changes the output {check.output!r} of the original itself"
        f"{figure} ({check.provider}), so the folded model is not judged by it there. "
        "With the optimizer off, the folded model agrees with the original."
    )
