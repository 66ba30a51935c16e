"""What the float64 evaluation says of the values inside two models, where both have a value of that name."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from bnfold.engines import known
from bnfold.errors import ModelError
from bnfold.options import Checking
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops import operator
from bnfold.oracle.oracle import Oracle
from bnfold.runtime.agreement import UNITS
from bnfold.validation import layer_proof
from bnfold.validation.choose_reference import Truth
from bnfold.validation.dtypes import coarsest
from bnfold.validation.layers import Blame
from bnfold.validation.model_pair import ModelPair
from bnfold.validation.results import Validation
from bnfold.validation.runners import FLOAT64, Runner
from bnfold.validation.watch import Watch

_OTHERS = 4.0
"""By how much more an output may be off where others wrote the weights: they may round them several times."""
_LARGE = 2**26  # bytes of a value in float64; beyond it, five evaluations side by side take gigabytes


def proving(reference: Truth, runners: Sequence[Runner], drawn: int) -> tuple[int, ...]:
    """The samples to prove the fold on, as many as time allows.

    First come those on which an output is farthest off: a fault may lie in a channel that other samples leave
    at zero. Then come those whose outputs decide nothing, then the first, those that were drawn to see more,
    and all others.
    """
    judging = [runner for runner in runners if not runner.setting.tf32]
    checks = [check for runner in judging for check in runner.outputs if check.runs]
    failing = [check.first_failing_run for check in checks if check.first_failing_run is not None]
    chaotic = sorted({place for check in checks for place in check.chaotic_runs})
    every = range(len(reference.chosen))
    order = dict.fromkeys((*failing, *chaotic, 0, *every[drawn:], *every))
    return reference.provable([reference.chosen[place] for place in order])


def with_layers(
    outcome: Validation,
    pair: ModelPair,
    reference: Truth,
    places: Sequence[int],
    checking: Checking,
    second: Watch,
) -> Validation:
    """Add the comparison in float64 and, where something is wrong, the first wrong value."""
    assert reference.oracles is not None, "only the oracle can prove"
    oracles = reference.oracles

    def oracle(model: ir.Model, perturbed: int | None = None) -> Oracle:
        return oracles.of(model, perturbed, second.choose if model is pair.after else operator)

    samples = [reference.samples[place] for place in places]
    kinds = [kind for kind in coarsest(pair.before, pair.ports.outputs) if kind]
    unit = max((UNITS[kind] for kind in kinds), default=0.0)
    try:
        proved = layer_proof.worst(
            [
                layer_proof.prove(
                    pair.before,
                    pair.after,
                    feeds,
                    unit,
                    pinned=pair.is_fold,
                    apart=reference.largest > _LARGE,
                    oracle=oracle,
                )
                for feeds in samples
            ]
        )
    except NotEvaluableError as error:
        sentence = f"The values inside the models were not compared in float64. {error.problem}"
        return replace(outcome, notes=(*outcome.notes, sentence))
    wrong = next((layer for layer in proved if not layer.agrees), None)
    failing = next((check for check in outcome.checks if check.fails), None)
    provider = failing.provider if failing else outcome.providers[0]
    wanted = checking.per_layer or (failing and pair.is_fold and not wrong)
    if wanted and all(check.provider != FLOAT64 for check in outcome.checks):
        where = provider, pair.threads
        # another runtime may not give the values inside
        with contextlib.suppress(*((ModelError,) if known.titled(provider) else ())):
            proved = layer_proof.measure(proved, pair.before, pair.after, samples[0], *where, oracle)
    outcome = replace(outcome, layers=proved)
    if not pair.is_fold:
        return _by_outputs(outcome, pair, failing is not None)
    blame = Blame(wrong) if wrong else layer_proof.first_off(proved, provider) if failing else None
    judged = wrong is not None and checking.tolerance is None
    problem = f"{_verdict(blame)} {blame.sentence}" if blame and judged else None
    return replace(
        outcome,
        blame=blame if judged or failing else None,
        problems=(*outcome.problems, problem) if problem else outcome.problems,
    )


def _by_outputs(outcome: Validation, pair: ModelPair, fails: bool) -> Validation:
    """What the float64 evaluation says where an equal name inside need not mean an equal value.

    Its outputs decide too, since ONNX Runtime's may round too much to decide anything, unless the second
    model's weights are of a coarser type. Other values show where a failing output goes wrong, and are worth
    a note otherwise.
    """
    beyond = next((layer for layer in outcome.layers if layer.beyond_range), None)
    if beyond is not None:
        blame = Blame(beyond, is_fold=False)
        return replace(outcome, blame=blame, problems=(*outcome.problems, blame.sentence))
    wrong = [layer for layer in outcome.layers if not layer.is_exact]
    outputs = {port.name for port, kind in zip(pair.ports.outputs, pair.kinds, strict=True) if kind}
    if fails:
        return replace(outcome, blame=Blame(wrong[0], is_fold=False) if wrong else None)
    decides = pair.kinds == coarsest(pair.before, pair.ports.outputs)
    if decides and outcome.request and outcome.request.tolerance is None:
        far = (layer for layer in wrong if layer.fold_error > _OTHERS * layer.bound)
        bad = next((layer for layer in far if layer.name in outputs), None)
        if bad is not None:
            blame = Blame(bad, is_fold=False)
            return replace(outcome, blame=blame, problems=(*outcome.problems, blame.sentence))
        outcome = replace(outcome, decided_in_float64=outputs <= {layer.name for layer in outcome.layers})
    if not wrong:
        return outcome
    note = (
        f"{len(wrong)} of {len(outcome.layers)} values that have the same name in both models are not the "
        f"same in float64, first {wrong[0].name!r}, by {wrong[0].fold_error:.2g} of its scale. The second "
        "model does not carry bnfold's record of a fold of the first, so names inside it say nothing, and "
        "the outputs decide."
    )
    return replace(outcome, notes=(*outcome.notes, note))


def _verdict(blame: Blame) -> str:
    return "The fold leaves the range of a type." if blame.layer.is_exact else "The fold is not exact."
