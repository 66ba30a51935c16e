"""Which reference decides, and for which samples: the float64 oracle where its time is reasonable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.options import OracleMode
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.multiply_adds import multiply_adds
from bnfold.oracle.oracle import Oracle
from bnfold.runtime.sessions import Feeds
from bnfold.validation.deviation import deviation

# Multiply-adds in float64, all evaluations together: some ten seconds on two cores.
BUDGET = 4 * 10**10
SEEDS = (0, 1, 2)  # one random rounding can be small by chance, three hardly
PROOF_BUDGET = 5 * 10**9
_SUM_ROUNDINGS = 4.0  # units in the last place: the usual error of a sum of some hundred terms
PROOF_EVALUATIONS = 5  # of one sample: the truth, three roundings of it, and the folded model


@dataclass(frozen=True)
class Truth:
    """The oracle for one validation.

    Attributes:
        oracle: Evaluates the original; None where the original in float32 is the reference.
        chosen: Which of the samples are compared, by their number.
        sentence: Which reference decides, and why.
    """

    oracle: Oracle | None
    chosen: tuple[int, ...]
    sentence: str

    def outputs(self, feeds: Feeds, count: int) -> list[Any]:
        """The true outputs; `count` times None without an oracle."""
        return [None] * count if self.oracle is None else self.oracle.run(feeds)

    def conditioning(self, original: ir.Model, feeds: Feeds, unit: float) -> list[float]:
        """How far rounding every weight and every value of the original moves each output.

        Args:
            original: The model.
            feeds: One sample.
            unit: Unit roundoff of the type that it is computed in.

        Returns:
            The largest error of every output relative to its scale; for integers the share that differs.
        """
        assert self.oracle is not None, "only the oracle can say"
        true = self.oracle.run(feeds)
        moved = [_disturbed(original, feeds, unit, seed) for seed in SEEDS]
        return [
            max(deviation(value, outputs[number]).largest for outputs in moved)
            for number, value in enumerate(true)
        ]


def find(original: ir.Model, samples: Sequence[Feeds], mode: OracleMode) -> Truth:
    """Decide on the reference.

    Args:
        original: The model before the fold.
        samples: All inputs that the models could be compared on.
        mode: `"off"` uses float32, `"on"` the oracle however long it takes, `"auto"` the oracle for as many
            samples as fit into `BUDGET`.

    Raises:
        InputError: The mode is unknown.
        NotEvaluableError: The oracle cannot evaluate the model, and the mode is `"on"`.
    """
    everything = tuple(range(len(samples)))
    if mode not in ("auto", "on", "off"):
        raise InputError(f"{mode!r} is not a way to use the oracle.", "Choose from: auto, on, off.")
    if mode == "off":
        return _float32(everything, "as asked for")
    refused: dict[int, str] = {}
    try:
        oracle = Oracle(original)
        if mode == "auto":
            refused = _refused(original, oracle, samples)
        able = tuple(number for number in everything if number not in refused)
        chosen = able if mode == "on" else _affordable(original, samples, able)
        if chosen:
            oracle.run(samples[chosen[0]])  # some operators refuse only certain inputs
    except NotEvaluableError as error:
        if mode == "on":
            raise
        return _float32(everything, error.problem.rstrip("."))
    if not chosen:
        return _float32(
            everything, "one evaluation in float64 takes too long; `--oracle on` uses it in any case"
        )
    sentence = "The reference is the original, evaluated in float64."
    if refused:
        sentence += f" It cannot evaluate {len(refused)} of the inputs: {next(iter(refused.values()))}"
    if len(chosen) + len(refused) < len(samples):
        sentence += f" To save time, {len(chosen)} of {len(samples)} inputs were compared."
    return Truth(oracle, chosen, sentence)


def _refused(original: ir.Model, oracle: Oracle, samples: Sequence[Feeds]) -> dict[int, str]:
    """Why the oracle cannot evaluate some samples that are smaller than the first, by their number.

    ONNX Runtime runs a model at sizes at which maps inside it become empty, and the standard does not say
    what the operators after them give.
    """
    sizes = [sum(np.size(array) for array in feeds.values()) for feeds in samples]
    found = {}
    for number, feeds in enumerate(samples):
        if sizes[number] < sizes[0]:
            try:
                if multiply_adds(original, feeds) <= BUDGET // len(samples):
                    oracle.run(feeds)
            except NotEvaluableError as error:
                found[number] = error.problem
    return found


def _disturbed(original: ir.Model, feeds: Feeds, unit: float, seed: int) -> list[Any]:
    """The outputs with every weight rounded once, and every value rounded as often as a sum is."""
    rng = np.random.default_rng(seed)
    outputs = [value.name or "" for value in original.graph.outputs]
    made: dict[str, Any] = dict(feeds)

    def see(name: str, value: object) -> object:
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            # relative to the largest, since the size of a sum's terms decides how it is rounded
            scale = np.abs(value[np.isfinite(value)]).max(initial=0.0)
            value = value + _SUM_ROUNDINGS * unit * scale * rng.uniform(-1, 1, value.shape)
        if name in outputs:
            made[name] = value
        return value

    Oracle(original, perturbed=seed).walk(feeds, see)
    return [made.get(name) for name in outputs]


def provable(original: ir.Model, samples: Sequence[Feeds]) -> tuple[int, ...]:
    """The samples on which the fold is proved value by value: the first, and more as the budget allows."""
    room, found = PROOF_BUDGET, []
    for number, feeds in enumerate(samples):
        cost = PROOF_EVALUATIONS * multiply_adds(original, feeds) if len(samples) > 1 else 0
        if number and cost > room:
            continue
        room -= cost
        found.append(number)
    return tuple(found)


def _affordable(original: ir.Model, samples: Sequence[Feeds], able: Sequence[int]) -> tuple[int, ...]:
    """Which of the samples in `able` fit into the budget; none if the first, an ordinary one, does not.

    The smallest sizes alone would show little: at 1×1, a kernel meets nothing but padding around one number.
    """
    known: dict[tuple[tuple[int, ...], ...], int] = {}
    shapes = [tuple(np.shape(array) for array in feeds.values()) for feeds in samples]
    for number in able:
        if shapes[number] not in known:
            known[shapes[number]] = multiply_adds(original, samples[number])
    room = BUDGET - PROOF_EVALUATIONS * min(known.values())
    chosen = []
    for number in able:
        cost = known[shapes[number]]
        if cost <= room:
            room -= cost
            chosen.append(number)
    return tuple(chosen) if chosen[:1] == [0] else ()


def _float32(chosen: tuple[int, ...], why: str) -> Truth:
    return Truth(
        None,
        chosen,
        f"The reference is the original in ONNX Runtime on the CPU with its optimizer off ({why}).",
    )
