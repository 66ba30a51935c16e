"""The comparison of a folded model with its original, step by step: what `bnfold.validate` runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.inputs.given import Given, Inputs, as_samples
from bnfold.inputs.samples import Samples, choose
from bnfold.options import Checking
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.runtime.agreement import TOLERANCES, UNITS
from bnfold.runtime.interface import Interface, as_ir, differences, interface
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer, usable_cpus
from bnfold.validation import choose_reference, layer_proof, renamed_values
from bnfold.validation.choose_reference import Truth
from bnfold.validation.dtypes import coarsest
from bnfold.validation.optimizer_faults import changed_outputs, with_optimizers
from bnfold.validation.output_check import OutputCheck, confirm_excuses
from bnfold.validation.results import Blame, Check, Request, Validation
from bnfold.validation.runners import Original, Runner, Setting, nodes_elsewhere

OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")


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
    providers, tolerance = checking.providers, checking.tolerance
    threads = usable_cpus() if checking.threads is None else checking.threads
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError(f"{tolerance} is not a tolerance.", "Give a number from 0 upwards, such as 5e-5.")
    before, after = as_ir(original), as_ir(folded)
    ports = interface(before)
    record = None if inputs is None else inputs.record() if isinstance(inputs, Given) else {}
    request = Request(**asdict(replace(checking, threads=threads)), inputs=record)
    outcome = Validation((), differences(ports, interface(after)), (), providers, threads, request=request)
    if outcome.problems:
        return outcome
    pair = _Pair(original, folded, before, after, ports, threads)
    measure = Original(original, threads)
    if inputs is None:
        chosen = choose(
            ports.inputs, measure.expected, count=checking.samples, seed=checking.seed, model=before
        )
    else:
        chosen = as_samples(inputs, ports.inputs)
    reference = choose_reference.find(before, chosen.feeds, checking.oracle)
    first = chosen.feeds[reference.chosen[0]]
    runners = _runners(pair, providers, tolerance)
    placement = tuple(nodes_elsewhere(folded, providers, first, threads))
    _compare(pair, chosen, reference, runners, measure, on_progress)
    outcome = replace(
        outcome,
        checks=confirm_excuses([check for runner in runners for check in runner.checks(ports.outputs)]),
        problems=tuple(runner.problem for runner in runners if runner.problem),
        notes=(*chosen.notes, *_chaos(runners, chosen, reference)),
        samples=len(reference.chosen),
        seed=checking.seed if inputs is None else None,
        oracle=reference.sentence,
        labels=tuple(chosen.labels[number] for number in reference.chosen),
        repeatability=tuple(measure.repeatability(providers, first)),
        placement=placement,
    )
    bounds = [check.bound or check.tolerance or 0.0 for check in outcome.checks if not check.row]
    outcome = replace(outcome, tolerance=max(bounds, default=0.0))
    outcome = _with_faults(outcome, pair, chosen, reference, runners)
    if reference.oracle is not None and outcome.checks:  # what does not run may not be a model
        places = _proving(pair.before, chosen, reference, runners)
        outcome = replace(outcome, proved_on=tuple(chosen.labels[place] for place in places))
        outcome = _with_layers(outcome, pair, [chosen.feeds[place] for place in places], checking)
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


def _runners(pair: _Pair, providers: Sequence[str], tolerance: float | None) -> list[Runner]:
    """One per setting; on CUDA one more shows the effect of TF32, which is on unless it is turned off."""
    settings = [Setting(provider, optimizer) for provider in providers for optimizer in OPTIMIZERS]
    if "cuda" in providers:
        settings.append(Setting("cuda", "default", tf32=True))
    kinds = coarsest(pair.before, pair.ports.outputs)
    return [
        Runner.start(
            pair.folded,
            setting,
            [
                OutputCheck(TOLERANCES[kind] if kind else None, UNITS[kind or "float32"], tolerance)
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
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Run every sample at every setting; the oracle's run counts as one."""
    report = on_progress or (lambda *_: None)
    total, done = len(reference.chosen) * (len(runners) + 1), 0
    for number, (_, feeds, expected) in enumerate(samples.each(original.expected)):
        if number not in reference.chosen:
            continue
        true = reference.outputs(feeds, len(expected))
        report(done := done + 1, total)
        for runner in runners:
            runner.compare(feeds, true, expected, original)
            report(done := done + 1, total)
    judging = [runner for runner in runners if not runner.setting.tf32]
    checks = [check for runner in judging for check in runner.outputs]
    for place in sorted({place for check in checks for place in check.runs_to_condition}):
        moved = reference.conditioning(pair.before, samples.feeds[reference.chosen[place]], judging[0].unit)
        for runner in runners:
            for check, one in zip(runner.outputs if not runner.problem else (), moved, strict=False):
                check.set_conditioning(place, one)


def _chaos(runners: Sequence[Runner], samples: Samples, reference: Truth) -> Iterator[str]:
    """A sentence on the samples for which the outputs decide nothing."""
    places = sorted({place for runner in runners for check in runner.outputs for place in check.chaotic_runs})
    if places:
        names = [samples.labels[reference.chosen[place]] for place in places]
        where = "every input" if len(places) == len(reference.chosen) else ", ".join(names)
        yield (
            f"On {where} the original itself amplifies roundings more than a thousand times. The outputs "
            "there decide nothing; the values inside the model do."
        )


def _proving(
    original: ir.Model, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> tuple[int, ...]:
    """The samples to prove the fold on, as many as time allows.

    First come those on which an output is farthest off: a fault may lie in a channel that other samples leave
    at zero. Then come those whose outputs decide nothing, then all others.
    """
    judging = [runner for runner in runners if not runner.setting.tf32]
    checks = [check for runner in judging for check in runner.outputs if check.runs]
    failing = [check.first_failing_run for check in checks if check.first_failing_run is not None]
    chaotic = sorted({place for check in checks for place in check.chaotic_runs})
    order = dict.fromkeys((*failing, *chaotic, *range(len(reference.chosen))))
    places = [reference.chosen[place] for place in order]
    feeds = [samples.feeds[place] for place in places]
    return tuple(places[number] for number in choose_reference.provable(original, feeds))


def _with_layers(
    outcome: Validation, pair: _Pair, samples: Sequence[Feeds], checking: Checking
) -> Validation:
    """Add the proof in float64 and, where something is wrong, the first wrong value."""
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
    if checking.per_layer or (failing and not blame):
        proved = layer_proof.measure(proved, pair.before, after, feeds, provider, pair.threads)
    if failing and not blame:
        blame = layer_proof.first_off(proved, provider)
    judged = wrong is not None and checking.tolerance is None
    problem = f"{_verdict(blame)} {blame.sentence}" if blame and judged else None
    return replace(
        outcome,
        layers=proved,
        blame=blame if judged or failing else None,
        problems=(*outcome.problems, problem) if problem else outcome.problems,
    )


def _verdict(blame: Blame) -> str:
    return "The fold leaves the range of a type." if blame.layer.is_exact else "The fold is not exact."


def _with_faults(
    outcome: Validation, pair: _Pair, samples: Samples, reference: Truth, runners: Sequence[Runner]
) -> Validation:
    """Add what ONNX Runtime's default optimizer changes in the original by more than rounding."""
    if reference.oracle is None:
        return outcome
    names = [port.name for port in pair.ports.outputs]
    found = []
    for runner in runners:
        setting = runner.setting
        if setting.optimizer == "default" and not setting.tf32 and not runner.problem:
            for number, fault in changed_outputs(setting.provider, names, runner.outputs):
                check = runner.outputs[number]
                feeds = samples.feeds[reference.chosen[check.runs.index(check.worst_original_run)]]
                rounding = check.rounding_limit(check.worst_original_run)
                true = reference.outputs(feeds, len(names))[number]
                found.append(
                    with_optimizers(fault, number, pair.original, feeds, true, rounding, pair.threads)
                )
    return replace(outcome, faults=tuple(found))


def _is_excused(check: Check) -> bool:
    return check.excused and not check.row


def _excuse(check: Check) -> str:
    """The sentence on a check that fails for a reason other than the fold."""
    noise = check.noise or 0.0
    figure = f" by {noise:.2g} of its scale" if noise and math.isfinite(noise) else ""
    return (
        f"ONNX Runtime's default optimizer changes the output {check.output!r} of the original itself"
        f"{figure} ({check.provider}), so that setting does not count against the folded model. "
        "With the optimizer off, the folded model agrees with the original."
    )
