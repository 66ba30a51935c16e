"""The comparison of a folded model with its original, step by step: what `bnfold.validate` runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import onnx_ir as ir

from bnfold.engines import known
from bnfold.engines.known import Choice
from bnfold.errors import InputError, ModelError
from bnfold.folding import record
from bnfold.inputs.given import Given, Inputs, as_samples
from bnfold.inputs.samples import Samples, choose
from bnfold.options import Checking
from bnfold.runtime.agreement import TOLERANCES, UNITS
from bnfold.runtime.interface import as_ir, interface
from bnfold.runtime.sessions import Feeds, ModelLike, Written, usable_cpus
from bnfold.validation import accuracy, choose_reference, gaps, inside, ranked
from bnfold.validation.accuracy import Accuracy
from bnfold.validation.choose_reference import Truth
from bnfold.validation.computed_in import other_precisions
from bnfold.validation.cover import Cover
from bnfold.validation.model_pair import ModelPair
from bnfold.validation.optimizer_faults import changed_outputs, with_optimizers
from bnfold.validation.output_check import OutputCheck, confirm_excuses, excuses, not_compared
from bnfold.validation.pairing import Pairing, model_differences
from bnfold.validation.pairing import pair as pair_ports
from bnfold.validation.parts import Draw, compare_parts
from bnfold.validation.results import Request, Validation
from bnfold.validation.runners import (
    IN_FLOAT64,
    Original,
    Runner,
    Setting,
    demand_original,
    nodes_elsewhere,
)
from bnfold.validation.watch import Watch


def compare(
    original: ModelLike,
    folded: ModelLike,
    checking: Checking,
    inputs: Inputs | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Do what [`validate`][bnfold.validation.validate.validate] is asked for.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        checking: How to compare them.
        inputs: What to run them on; None draws random inputs.
        on_progress: Called with the number of runs done and their total.
    """
    tolerance = checking.tolerance
    threads = usable_cpus() if checking.threads is None else checking.threads
    if checking.cover and inputs is not None:
        raise InputError("To cover more, random inputs are drawn, and these were given.", "Leave one out.")
    if not checking.cover_seconds > 0:
        raise InputError(f"{checking.cover_seconds} is not a time.", "Give seconds above 0.")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError(f"{tolerance} is not a tolerance.", "Give a number from 0 upwards, such as 5e-5.")
    before, after = as_ir(original), as_ir(folded)
    ports = interface(before)
    if not ports.outputs:
        raise ModelError("The original has no outputs, so there is nothing to compare.", "Give it some.")
    pairing = pair_ports(ports, interface(after), checking.match)
    outcome = _begun(checking, inputs, threads, pairing, tuple(model_differences(before, after)))
    if pairing.problems:
        return outcome
    aligned = pairing.aligned(after)
    pair = ModelPair(
        original,
        folded if aligned is after else aligned,
        before,
        aligned,
        ports,
        pairing,
        threads,
        record.is_fold_of(after, before),
    )
    try:
        measure = Original(original, threads)
    except ModelError as error:
        return _without_runtime(outcome, pair, checking, inputs, on_progress, error)
    return _compared(outcome, pair, checking, inputs, on_progress, measure)


def _without_runtime(
    outcome: Validation,
    pair: ModelPair,
    checking: Checking,
    inputs: Inputs | None,
    on_progress: Callable[[int, int], None] | None,
    error: ModelError,
) -> Validation:
    """Compare models that ONNX Runtime cannot load: what it can load of them, or all in float64."""
    given = replace(inputs, labels=None) if isinstance(inputs, Given) else inputs  # they are of the whole

    def again(original: ir.Model, folded: ir.Model) -> Validation:
        return compare(original, folded, checking, given, on_progress)

    draws: tuple[Draw, ...] = ("none",) if inputs is not None else ("likely", "recorded", "none")
    try:
        found = compare_parts(pair.before, pair.after, error, again, draws=draws)
        if found is not None:
            return replace(found, request=outcome.request, differences=outcome.differences)
        if checking.oracle == "off":
            raise error
        measure = Original(pair.original, pair.threads, IN_FLOAT64)
        found = _compared(outcome, pair, replace(checking, oracle="on"), inputs, on_progress, measure)
    except InputError as rejection:
        if inputs is not None:
            raise
        raise error from rejection  # the oracle cannot evaluate it either
    why = error.problem.rstrip(".")
    return replace(found, oracle=f"{why}. So both models were evaluated in float64 alone. {found.oracle}")


def _compared(
    outcome: Validation,
    pair: ModelPair,
    checking: Checking,
    inputs: Inputs | None,
    on_progress: Callable[[int, int], None] | None,
    measure: Original,
) -> Validation:
    """Run both models, and add what comes out of it."""
    ports, providers = pair.ports, tuple(checking.providers)
    chosen = _samples(pair, checking, inputs, measure)
    watch, second = Watch(pair.before), Watch(pair.after, only_branches=True)
    reference = choose_reference.find(pair.before, chosen.feeds, checking.oracle, watch.choose)
    first = chosen.feeds[reference.chosen[0]]
    runtimes = tuple(map(known.choice, checking.runtimes))
    runners = _runners(pair, measure.settings(providers, runtimes), checking.tolerance)
    placement = tuple(nodes_elsewhere(pair.folded, pair.pairing, providers, first, pair.threads))
    _compare(chosen, reference, runners, measure, watch, on_progress)
    demand_original(measure, runners, first)
    drawn = len(reference.chosen)
    chosen, searched = _covered(pair, chosen, checking, reference, runners, measure, watch)
    _condition(pair, chosen, reference, runners)
    labelled = None if chosen.classes is None else _accuracy(pair, chosen, inputs, runners, measure)
    outcome = replace(
        outcome,
        checks=confirm_excuses([check for runner in runners for check in runner.checks(ports.outputs)]),
        problems=(*outcome.problems, *(runner.problem for runner in runners if runner.problem)),
        notes=(
            *chosen.notes,
            *(one.sentence(pair.threads) for one in runtimes),
            *_chaos(runners, chosen, reference),
        ),
        samples=len(reference.chosen),
        seed=checking.seed if inputs is None else None,
        oracle=reference.sentence,
        labels=tuple(chosen.labels[number] for number in reference.chosen),
        repeatability=tuple(measure.repeatability(_repeated(providers, runtimes), first)),
        is_fold=pair.is_fold,
        placement=placement,
        accuracy=labelled,
    )
    bounds = [check.bound or check.tolerance or 0.0 for check in outcome.checks if not check.row]
    outcome = replace(outcome, tolerance=max(bounds, default=0.0))
    outcome = _with_faults(outcome, pair, chosen, reference, runners)
    outcome = other_precisions(outcome, pair.before, chosen, reference, runners)
    if reference.decides and outcome.checks:  # what does not run may not be a model
        places = inside.proving(reference, runners, drawn)
        outcome = replace(outcome, proved_on=tuple(chosen.labels[place] for place in places))
        outcome = inside.with_layers(outcome, pair, reference, places, checking, second)
    unseen = gaps.collect(
        watch,
        second,
        pair.before,
        list(zip(ports.outputs, pair.kinds, strict=True)),
        chosen,
        pair.pairing.drawn,
        reference,
        runners,
        is_proved=outcome.is_fold and bool(outcome.layers),
    )
    notes = (*outcome.notes, *excuses(outcome.checks), *not_compared(outcome.checks))
    outcome = replace(outcome, notes=notes, unseen=replace(unseen, cover=searched))
    return _by_rank(outcome, pair, checking, chosen, reference, runners, measure, on_progress)


def _by_rank(
    outcome: Validation,
    pair: ModelPair,
    checking: Checking,
    samples: Samples,
    reference: Truth,
    runners: Sequence[Runner],
    original: Original,
    on_progress: Callable[[int, int], None] | None,
) -> Validation:
    """Compare outputs that hinge on the order of scores by the scores, where that may be why they differ."""
    if any(runner.problem for runner in runners):
        return outcome
    doubtful = {
        port.name
        for runner in runners
        for port, check in zip(pair.ports.outputs, runner.outputs, strict=True)
        if not runner.setting.tf32 and (check.problem or check.is_loose)
    }
    settings = [runner.setting for runner in runners]
    models = ranked.Models(pair.before, pair.after, pair.pairing, pair.threads, original.reference, settings)
    compared = replace(
        samples, feeds=tuple(samples.feeds[number] for number in reference.chosen), labels=outcome.labels
    )

    def again(before: ir.Model, after: ir.Model, given: Samples) -> Validation:
        asked = replace(checking, match="name", cover=False)
        return compare(before, after, asked, given, on_progress)

    return ranked.settle(outcome, models, doubtful, compared, again)


def _begun(
    checking: Checking, inputs: Inputs | None, threads: int, pairing: Pairing, others: tuple[str, ...]
) -> Validation:
    """What is known before anything is run; `others` are differences besides inputs and outputs."""
    given = None if inputs is None else inputs.record() if isinstance(inputs, Given) else {}
    providers, runtimes = tuple(checking.providers), tuple(checking.runtimes)
    asked = replace(checking, providers=providers, threads=threads, runtimes=runtimes)
    request = Request(**asdict(asked), inputs=given)
    return Validation(
        (),
        pairing.problems,
        providers=(*providers, *(known.choice(one).title for one in runtimes)),
        threads=threads,
        request=request,
        differences=(*pairing.notes, *others),
    )


def _repeated(providers: Sequence[str], runtimes: Sequence[Choice]) -> list[Setting]:
    """The settings at which the original runs twice."""
    return [
        *(Setting(provider, "off") for provider in providers),
        *(Setting(one.title, "default") for one in runtimes),
    ]


def _samples(pair: ModelPair, checking: Checking, inputs: Inputs | None, original: Original) -> Samples:
    """Inputs that both models accept, in the original's types."""
    pairing = pair.pairing
    if inputs is not None:
        return as_samples(inputs, pairing.ports)

    def run(feeds: Feeds) -> list[Any]:
        return original.expected(pairing.for_original(feeds))

    drawn = choose(pairing.drawn, run, count=checking.samples, seed=checking.seed, model=pair.before)
    return replace(drawn, feeds=tuple(map(pairing.for_original, drawn.feeds)))


def _accuracy(
    pair: ModelPair, samples: Samples, inputs: Inputs | None, runners: Sequence[Runner], original: Original
) -> Accuracy | None:
    """How often both models are right, at the default optimizer on the first provider."""
    runner = next((runner for runner in runners if runner.setting.optimizer == "default"), runners[0])
    measured = accuracy.measure(
        lambda feeds: original.outputs(runner.setting, feeds),
        runner.run,
        samples,
        pair.ports.outputs,
        inputs.top if isinstance(inputs, Given) else 1,
    )
    return measured and replace(measured, provider=runner.setting.provider)


def _runners(pair: ModelPair, settings: Sequence[Setting], tolerance: float | None) -> list[Runner]:
    """The folded model at every setting."""
    written = Written(pair.folded)
    return [
        Runner.of(
            written,
            pair.pairing,
            setting,
            [
                OutputCheck(
                    TOLERANCES[kind] if kind else None,
                    UNITS[kind or "float32"],
                    tolerance,
                    setting.noise_cap,
                )
                for kind in setting.coarser(pair.kinds)
            ],
            pair.threads,
        )
        for setting in settings
    ]


def _compare(
    samples: Samples,
    reference: Truth,
    runners: Sequence[Runner],
    original: Original,
    watch: Watch,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Run every sample at every setting, then in float64, which counts as one run."""
    report = on_progress or (lambda *_: None)
    total, done = len(reference.chosen) * (len(runners) + 1), 0

    def step() -> None:
        nonlocal done
        report(done := done + 1, total)

    feeds_of = [samples.feeds[number] for number in reference.chosen]
    for runner in runners:  # one session after the other
        original.record(runner.setting, feeds_of)
        runner.recorded.record(feeds_of, step)
    for number, (_, feeds, expected) in enumerate(samples.each(original.expected)):
        if number in reference.chosen:
            true = reference.outputs(number, len(expected))
            watch.compared(feeds, expected)
            for runner in runners:
                runner.compare(feeds, true, expected, original)
            step()


def _covered(
    pair: ModelPair,
    samples: Samples,
    checking: Checking,
    reference: Truth,
    runners: Sequence[Runner],
    original: Original,
    watch: Watch,
) -> tuple[Samples, str]:
    """The samples with those that were drawn to see more, and a sentence on these; they are compared too."""
    if not checking.cover or samples.further is None:
        return samples, ""
    cover = Cover(
        samples.further, watch, reference, original, pair.pairing.for_original, checking.cover_seconds
    )
    return cover.extend(samples, runners), cover.sentence


def _condition(pair: ModelPair, samples: Samples, reference: Truth, runners: Sequence[Runner]) -> None:
    """Measure what rounding does where a check needs to know it."""
    for unit in sorted({runner.unit for runner in runners}):
        alike = [runner for runner in runners if runner.unit == unit]
        checks = [check for runner in alike if not runner.setting.tf32 for check in runner.outputs]
        for place in sorted({place for check in checks for place in check.runs_to_condition}):
            moved = reference.conditioning(pair.before, samples.feeds[reference.chosen[place]], unit)
            for runner in alike:
                for check, one in zip(runner.outputs if not runner.problem else (), moved, strict=False):
                    check.set_conditioning(place, one)


def _chaos(runners: Sequence[Runner], samples: Samples, reference: Truth) -> Iterator[str]:
    """A sentence on the samples for which the outputs decide nothing."""
    places = sorted({place for runner in runners for check in runner.outputs for place in check.chaotic_runs})
    if places:
        names = [samples.labels[reference.chosen[place]] for place in places]
        where = "every input" if len(places) == len(reference.chosen) else ", ".join(names)
        yield (
            f"On {where} the original itself amplifies roundings more than a thousand times. What ONNX "
            "Runtime computes there decides nothing; the float64 evaluation does."
        )


def _with_faults(
    outcome: Validation, pair: ModelPair, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> Validation:
    """Add what ONNX Runtime's default optimizer, or another runtime, computes wrongly in the original."""
    if not reference.decides:
        return outcome
    names = [port.name for port in pair.ports.outputs]
    found = []
    for runner in runners:
        setting = runner.setting
        if setting.optimizer == "default" and not setting.tf32 and not runner.problem:
            for number, fault in changed_outputs(setting.provider, names, runner.outputs):
                check = runner.outputs[number]
                place = reference.chosen[check.worst_original_run.sample]
                feeds = samples.feeds[place]
                true = reference.outputs(place, len(names))[number]
                if setting.runtime is None:
                    fault = with_optimizers(fault, check, number, pair.original, feeds, true, pair.threads)
                found.append(fault)
    return replace(outcome, faults=tuple(found))
