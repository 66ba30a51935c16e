"""Which reference decides, and for which samples: the float64 oracle where its time is reasonable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.errors import InputError
from bnfold.options import OracleMode
from bnfold.oracle.evaluator import NotEvaluableError
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Call, Operator
from bnfold.oracle.oracle import Oracle
from bnfold.runtime.sessions import Feeds
from bnfold.validation.channels import scale_of_each
from bnfold.validation.deviation import Deviation, deviation, farthest
from bnfold.validation.unknown_operators import Oracles

Move: TypeAlias = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Moves a value as some rounding would."""

# Multiply-adds in float64, all evaluations together: some ten seconds on two cores.
BUDGET = 4 * 10**10
SEEDS = (0, 1, 2)  # one random rounding can be small by chance, three hardly
PROOF_BUDGET = 5 * 10**9
_SUM_ROUNDINGS = 4.0  # units in the last place: the usual error of a sum of some hundred terms
LONGEST_PROOF = 16 * 10**10  # of one sample, where not even that fits: up to a minute
_TO_SAVE_TIME = "One evaluation takes too long."
PROOF_EVALUATIONS = 5  # of one sample: the truth, three roundings of it, and the folded model


@dataclass
class Truth:
    """The oracle for one validation; for samples that it cannot evaluate, the original in float32.

    Attributes:
        oracle: Evaluates the original; None where the original in float32 is the reference for all samples.
        chosen: Which of the samples are compared, by their number.
        samples: All inputs that the models could be compared on.
        reason: Which reference decides, and why, as sentences.
        oracles: Makes oracles for both models; None without an oracle.
        refused: Why the oracle cannot evaluate some of the samples, by their number.
        demanded: Whether a sample that it cannot evaluate is an error.
    """

    oracle: Oracle | None
    chosen: tuple[int, ...]
    samples: Sequence[Feeds]
    reason: str
    oracles: Oracles | None = None
    refused: dict[int, str] = field(default_factory=dict)
    demanded: bool = False
    _known: dict[int, list[Any]] = field(default_factory=dict)

    def outputs(self, number: int, count: int) -> list[Any]:
        """The true outputs of a sample; `count` times None where the oracle does not evaluate it.

        Raises:
            NotEvaluableError: It cannot, and that was demanded.
        """
        if self.oracle is None or number in self.refused:
            return [None] * count
        if number in self._known:
            return self._known.pop(number)
        try:
            return self.oracle.run(self.samples[number])
        except NotEvaluableError as error:
            if self.demanded:
                raise
            self.refused[number] = error.problem
            return [None] * count

    def evaluate(self, feeds: Feeds, count: int) -> list[Any]:
        """The true outputs for inputs that are not among the samples; `count` times None without an oracle.

        Raises:
            NotEvaluableError: The oracle cannot evaluate them.
        """
        return [None] * count if self.oracle is None else self.oracle.run(feeds)

    def cost(self, feeds: Feeds) -> int:
        """The multiply-adds of one evaluation in float64; 0 without an oracle.

        Raises:
            NotEvaluableError: They are not known.
        """
        return self.oracles.cost(feeds) if self.oracles else 0

    def add(self, feeds: Feeds, refused: str | None) -> None:
        """Take in another sample that is compared, with the reason if the oracle cannot evaluate it."""
        number = len(self.samples)
        self.samples, self.chosen = (*self.samples, feeds), (*self.chosen, number)
        if refused is not None:
            self.refused[number] = refused

    def evaluates_one_of(self, numbers: Iterable[int]) -> bool:
        """Whether it evaluates one of these samples; its outputs are kept until they are used."""
        for number in numbers:
            made = self.outputs(number, 0)
            if number not in self.refused:
                self._known[number] = made
                return True
        return False

    @property
    def largest(self) -> int:
        """Bytes of the largest value in the evaluations so far."""
        return self.oracle.largest if self.oracle else 0

    @property
    def decides(self) -> bool:
        """Whether the oracle is the reference of any sample."""
        return self.oracle is not None and not self.refused.keys() >= set(self.chosen)

    @property
    def sentence(self) -> str:
        """Which reference decides, and why; for which samples another one does."""
        refused = [self.refused[number] for number in self.chosen if number in self.refused]
        parts = [self.reason, self.oracles.sentence if self.oracles else ""]
        if refused and refused[0] == _TO_SAVE_TIME:
            parts.append(
                f"To save time, {len(refused)} of {len(self.chosen)} inputs were compared with the original "
                "in ONNX Runtime on the CPU with its optimizer off instead."
            )
        elif refused:
            parts.append(
                f"It cannot evaluate {len(refused)} of the inputs, which were compared with the original in "
                f"ONNX Runtime on the CPU with its optimizer off: {refused[0]}"
            )
        return " ".join(filter(None, parts))

    def provable(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """The samples on which the fold is proved value by value: the first, and more as the budget allows.

        Args:
            numbers: Samples to choose from, the most telling ones first.
        """
        assert self.oracles is not None, "only the oracle can prove"
        able = [number for number in numbers if number not in self.refused]
        room = PROOF_BUDGET
        found: list[int] = []
        for number in able:
            cost = PROOF_EVALUATIONS * self.oracles.cost(self.samples[number]) if len(able) > 1 else 0
            if found and cost > room:
                continue
            room -= cost
            found.append(number)
        return tuple(found)

    def conditioning(self, original: ir.Model, feeds: Feeds, unit: float) -> list[Deviation]:
        """How far rounding every weight and every value of the original moves each output.

        Args:
            original: The model.
            feeds: One sample.
            unit: Unit roundoff of the type that it is computed in.

        Returns:
            The largest error of every output, channel by channel; for integers the share that differs.
        """
        assert self.oracle is not None, "only the oracle can say"
        assert self.oracles is not None
        true = self.oracle.run(feeds)
        moved = [
            _moved(original, self.oracles.of(original, seed), feeds, _noise(unit, seed)) for seed in SEEDS
        ]
        return [
            farthest([deviation(value, outputs[number]) for outputs in moved])
            for number, value in enumerate(true)
        ]

    def rounded(self, original: ir.Model, feeds: Feeds, rounding: Move) -> list[Deviation]:
        """How far each output is from the truth where every value of the original is rounded.

        Args:
            original: The model.
            feeds: One sample.
            rounding: Rounds an array in float64.
        """
        assert self.oracle is not None, "only the oracle can say"
        outputs = _moved(original, self.oracle, feeds, rounding)
        return [deviation(true, value) for true, value in zip(self.oracle.run(feeds), outputs, strict=True)]


def find(
    original: ir.Model,
    samples: Sequence[Feeds],
    mode: OracleMode,
    choose: Callable[[Call], Operator] = operator,
) -> Truth:
    """Decide on the reference.

    Args:
        original: The model before the fold.
        samples: All inputs that the models could be compared on.
        mode: `"off"` uses float32, `"on"` the oracle however long it takes, `"auto"` the oracle for as many
            samples as fit into `BUDGET`.
        choose: Finds the function that evaluates a node of the original.

    Raises:
        InputError: The mode is unknown.
        NotEvaluableError: The oracle cannot evaluate the model, and the mode is `"on"`.
    """
    if mode not in ("auto", "on", "off"):
        raise InputError(f"{mode!r} is not a way to use the oracle.", "Choose from: auto, on, off.")
    if mode == "off":
        return _float32(samples, "as asked for")
    oracles = Oracles(original)
    sentence = "The reference is the original, evaluated in float64."
    if mode == "on":
        everything = tuple(range(len(samples)))
        truth = Truth(
            oracles.of(original, choose=choose), everything, samples, sentence, oracles, demanded=True
        )
    else:
        chosen, refused = _affordable(oracles, samples)
        if not chosen:
            why = "one evaluation in float64 takes too long; `--oracle on` uses it in any case"
            return _float32(samples, why)
        if len(chosen) < len(samples):
            sentence += f" To save time, {len(chosen)} of {len(samples)} inputs were compared."
        truth = Truth(oracles.of(original, choose=choose), chosen, samples, sentence, oracles, refused)
    if truth.evaluates_one_of(truth.chosen):
        return truth
    return _float32(samples, truth.refused[truth.chosen[0]].rstrip("."))


def _noise(unit: float, seed: int) -> Move:
    """Moves a value as far as a sum is moved by its roundings."""
    rng = np.random.default_rng(seed)
    # relative to a channel's largest, since the size of a sum's terms decides how it is rounded
    return lambda value: (
        value + _SUM_ROUNDINGS * unit * scale_of_each(value) * rng.uniform(-1, 1, value.shape)
    )


def _moved(original: ir.Model, oracle: Oracle, feeds: Feeds, move: Move) -> list[Any]:
    """The outputs where every value is moved once it is computed."""
    outputs = [value.name or "" for value in original.graph.outputs]
    sizes = _sizes(original)
    made: dict[str, Any] = dict(feeds)

    def see(name: str, value: object) -> object:
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and name not in sizes:
            # a whole number comes from Floor, a class or a count, and one that is not whole is another index
            value = np.where(value == np.rint(value), value, move(value))
        if name in outputs:
            made[name] = value
        return value

    oracle.walk(feeds, see)
    return [made.get(name) for name in outputs]


def _sizes(model: ir.Model) -> frozenset[str]:
    """The values that are computed from sizes and constants alone: floats among them are not rounded."""
    found: set[ir.Value] = set()
    for node in model.graph:
        read = [value for value in node.inputs if value is not None]
        others = (value for value in read if value not in found)
        if node.op_type in ("Shape", "Size") or (
            found.intersection(read)
            and all(ir.convenience.get_const_tensor(value) is not None for value in others)
        ):
            found.update(node.outputs)
    return frozenset(value.name or "" for value in found)


def _affordable(oracles: Oracles, samples: Sequence[Feeds]) -> tuple[tuple[int, ...], dict[int, str]]:
    """Which of the samples fit into the budget; none if the first, an ordinary one, does not fit at all.

    Where that one alone takes up to `LONGEST_PROOF`, the others are compared without the oracle.

    The smallest sizes alone would show little: at 1×1, a kernel meets nothing but padding around one number.

    Returns:
        The samples by their number, and why the oracle cannot evaluate some of them.
    """
    shapes = [tuple(np.shape(array) for array in feeds.values()) for feeds in samples]
    each = dict(zip(shapes, samples, strict=True))
    costs = {shape: _cost(oracles, feeds) for shape, feeds in each.items()}
    refused = {n: cost for n, shape in enumerate(shapes) if isinstance(cost := costs[shape], str)}
    known = {shape: cost for shape, cost in costs.items() if isinstance(cost, int)}
    room = BUDGET - PROOF_EVALUATIONS * min(known.values(), default=0)
    chosen: list[int] = []
    for number in range(len(samples)):
        cost = known.get(shapes[number], 0)  # what it refuses costs nothing
        if cost <= room:
            room -= cost
            chosen.append(number)
    if chosen[:1] == [0]:
        return tuple(chosen), refused
    if (1 + PROOF_EVALUATIONS) * known.get(shapes[0], LONGEST_PROOF) <= LONGEST_PROOF:
        left_out = set(range(1, len(samples))) - set(chosen)
        return tuple(range(len(samples))), {**dict.fromkeys(left_out, _TO_SAVE_TIME), **refused}
    return (), refused


def _cost(oracles: Oracles, feeds: Feeds) -> int | str:
    """The multiply-adds of one evaluation, or why there can be none."""
    try:
        return oracles.cost(feeds)
    except NotEvaluableError as error:
        return error.problem


def _float32(samples: Sequence[Feeds], why: str) -> Truth:
    return Truth(
        None,
        tuple(range(len(samples))),
        samples,
        f"The reference is the original in ONNX Runtime on the CPU with its optimizer off ({why}).",
    )
