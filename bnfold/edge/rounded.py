"""A model in half precision as its types say it: every result of an operator is rounded to its own type.

ONNX Runtime's CPU provider computes most float16 operators in float32 and drops the rounding, and the
infinities, in between. Here an operator is evaluated in float64, and its result is rounded once to the type
that the graph gives it, so that what leaves the range of the type does so here too. The same with all range
in the world, and only the digits of the type, shows what the precision itself costs: the measure for the
errors of a converted model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.edge.noise import Noise
from bnfold.errors import ModelError
from bnfold.files.external_data import exchange, self_contained
from bnfold.graph.facts import Facts
from bnfold.oracle.oracle import Oracle
from bnfold.oracle.prepare import take_apart
from bnfold.runtime.interface import dtype_name, interface
from bnfold.runtime.sessions import Feeds, run, session
from bnfold.tensors.precision import FLOATS, ROUNDOFF
from bnfold.validation.deviation import deviation
from bnfold.validation.output_check import NOISE_FACTOR, ULPS

JUDGE = "every operator in float64, its result rounded to its type"


class Rounded:
    """A model, evaluated with every float rounded to its own type."""

    def __init__(self, model: ir.Model) -> None:
        self._oracle = Oracle(model)
        inlined = ir.from_proto(take_apart(model)[0])
        facts = Facts(inlined)
        self._types = {
            str(value.name): dtype.numpy()
            for node in inlined.graph
            for value in node.outputs
            if (dtype := facts.dtype(value)) in FLOATS and dtype is not None
        }

    def run(self, feeds: Feeds) -> list[Any]:
        """The outputs in order; floats as float64 that their types hold."""
        return _run(self._oracle, feeds, self._to_type)

    def _to_type(self, name: str, value: Array) -> Array:
        dtype = self._types.get(name)
        if dtype is None:  # it would be judged more kindly than it is
            raise ModelError(
                f"The type of {name!r} is not known.", "Give a model whose types can be inferred."
            )
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(value.astype(dtype).astype(np.float64))


class Unbounded:
    """A model in floats, evaluated with every number rounded to the digits of a type, whatever its size."""

    def __init__(self, model: ir.Model, dtype: ir.DataType) -> None:
        self._digits = round(-np.log2(ROUNDOFF[dtype]))
        copy = self_contained(model)
        exchange(copy, self._coarser)
        self._oracle = Oracle(copy)

    def run(self, feeds: Feeds) -> list[Any]:
        """The outputs in order, in float64."""
        return _run(self._oracle, feeds, lambda _, value: self._rounded(value))

    def _coarser(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype != ir.DataType.FLOAT:
            return tensor
        array = self._rounded(tensor.numpy().astype(np.float64)).astype(np.float32)
        return ir.Tensor(array, name=tensor.name)

    def _rounded(self, value: Array) -> Array:
        mantissa, exponent = np.frexp(value)
        return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, self._digits)), exponent - self._digits))


def _run(oracle: Oracle, feeds: Feeds, rounded: Any) -> list[Any]:
    steps, seen = oracle.steps(feeds), None
    while True:
        try:
            name, value = steps.send(seen)
        except StopIteration as stop:
            outputs: list[Any] = stop.value
            return outputs
        is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        seen = rounded(name, value) if name and is_float else None


@dataclass(frozen=True)
class OutputError:
    """One output of a converted model.

    Attributes:
        output: Its name.
        error: Its largest error on the samples, relative to the output's scale, in units of the precision.
        ideal: What the digits of the type cost alone, with all range in the world, in the same units.
        runtime: The same as `error` for ONNX Runtime's CPU provider; None where it cannot run the model.
        lost: Elements that are infinite or NaN and are finite over the reals.
    """

    output: str
    error: float
    ideal: float
    runtime: float | None
    lost: int

    @property
    def passed(self) -> bool:
        """Whether it is about as near to the truth as the digits of the type allow."""
        return not self.lost and self.error <= NOISE_FACTOR * self.ideal + ULPS


@dataclass(frozen=True)
class OtherOutput:
    """One output of a converted model that is not in floats: indices, classes, masks.

    Attributes:
        output: Its name.
        differing: How many of its elements on the samples are not those of the model in floats.
        ideal: How many differ by the digits of the type alone.
        elements: How many there are.
    """

    output: str
    differing: int
    ideal: int
    elements: int

    @property
    def passed(self) -> bool:
        """Whether about as many are the same as the digits of the type allow: one more, or one in 200."""
        return self.differing <= NOISE_FACTOR * self.ideal + max(1, self.elements // 200)


@dataclass(frozen=True)
class Judgement:
    """A converted model against the float64 evaluation of the one that it was made of.

    Attributes:
        unit: The name of the type whose unit roundoff is the unit.
        outputs: Every output that holds floats.
        judge: How the converted model was evaluated.
        not_run: Why ONNX Runtime's CPU provider did not run it; empty where it did.
        others: Every output that holds something else.
    """

    unit: str
    outputs: tuple[OutputError, ...]
    judge: str = JUDGE
    not_run: str = ""
    others: tuple[OtherOutput, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every output is near enough."""
        return all(one.passed for one in self.outputs) and all(one.passed for one in self.others)


def judge(model: ir.Model, converted: ir.Model, dtype: ir.DataType, samples: Sequence[Feeds]) -> Judgement:
    """Compare a converted model with the truth.

    Args:
        model: The model in floats.
        converted: What was made of it; it takes inputs of the same names.
        dtype: The type that it was converted to.
        samples: Inputs of the model in floats.

    Raises:
        NotEvaluableError: An operator is not known in float64.
        ModelError: The type of a value cannot be inferred.
    """
    truth, exact, ideal = Oracle(model), Rounded(converted), Unbounded(model, dtype)
    ports, not_run, ran = interface(model).outputs, "", None
    types = {str(value.name): value.dtype for value in converted.graph.inputs}
    try:
        ran = session(converted, optimized="default")
    except ModelError as error:
        not_run = error.problem
    unit, worst = ROUNDOFF[dtype], [[0.0, 0.0, 0.0] for _ in ports]
    lost, compared = [0] * len(ports), [False] * len(ports)
    noise = [(Noise(), Noise()) for _ in ports]
    for feeds in samples:
        typed = {name: _as_type(array, types.get(name)) for name, array in feeds.items()}
        half = exact.run(typed)
        runs = [half, ideal.run(feeds), None if ran is None else run(ran, typed)]
        for at, wanted in enumerate(truth.run(feeds)):
            if not isinstance(wanted, np.ndarray) or wanted.dtype.kind != "f":
                for one, outputs in zip(noise[at], runs[:2], strict=True):
                    one.add(wanted, outputs[at] if outputs is not None else None)
                continue
            compared[at] = True
            for place, outputs in enumerate(runs):
                if outputs is not None:
                    found = np.asarray(outputs[at]).astype(np.float64)
                    worst[at][place] = max(worst[at][place], deviation(wanted, found).largest / unit)
            lost[at] += int(np.sum(np.isfinite(wanted) & ~np.isfinite(np.asarray(half[at], np.float64))))
    errors = tuple(
        OutputError(port.name, one[0], one[1], None if ran is None else one[2], gone)
        for port, one, gone, seen in zip(ports, worst, lost, compared, strict=True)
        if seen
    )
    others = tuple(
        OtherOutput(port.name, half.differing, ideal.differing, half.others)
        for port, (half, ideal) in zip(ports, noise, strict=True)
        if half.others
    )
    return Judgement(dtype_name(dtype), errors, not_run=not_run, others=others)


def _as_type(array: npt.NDArray[Any], dtype: ir.DataType | None) -> npt.NDArray[Any]:
    return array.astype(dtype.numpy()) if dtype in FLOATS and array.dtype.kind == "f" and dtype else array
