"""How much of a model is left after it was quantised: at its outputs, and layer by layer.

The measure is the ratio of signal to [noise][bnfold.edge.noise] in decibels. With labels the accuracy is
counted too. Outputs are those of ONNX Runtime at its default, which computes with integers where it can.
Layers are looked at with the optimizer off, where every pair of the file stands for itself. Integer kernels
that saturate show as a difference of the two, and so do weights that the optimizer quantises by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from bnfold.edge.noise import Both, Noise, signal_to_noise
from bnfold.edge.quantize import Calibrated, Quantized, Scheme, named
from bnfold.edge.rows import first, rows_of, samples_of, split
from bnfold.graph.facts import Facts
from bnfold.inputs.given import Inputs
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import interface
from bnfold.runtime.sessions import Feeds, run, session
from bnfold.validation.accuracy import Accuracy, measure

TRIED = 4
"""How many layers are left in float in turn, half for what they add, half for the noise of their weight."""

POINTS = 0.5
"""Percentage points of accuracy that quantisation may cost."""

WORTH_LEAVING = 1.0
"""Decibels at the output from which on a layer is worth to be left in float."""

WORTH_SAYING = 0.1
"""Decibels that the correction of biases brought, from which on the sentence says so."""


@dataclass(frozen=True)
class Fidelity:
    """How near a quantised model is to the one in floats.

    Attributes:
        sqnr: Signal to quantisation noise of the worst output in dB, at ONNX Runtime's default.
        output: The name of that output.
        accuracy: How often both are right on labelled rows; None without labels.
        rows: The rows that were compared.
        same: The share of elements that are not floats, as classes, and are the same; None if there are none.
    """

    sqnr: float
    output: str
    accuracy: Accuracy | None
    rows: int
    same: float | None = None

    @property
    def points_lost(self) -> float | None:
        """Percentage points of top-1 accuracy below the model in floats; None without labels."""
        if self.accuracy is None:
            return None
        score = self.accuracy.scores[0]
        return 100 * (score.original - score.folded)


@dataclass(frozen=True)
class LayerNoise:
    """One quantised layer.

    Attributes:
        layer: Its name.
        operator: Its operator.
        sqnr: Signal to noise at its output, in dB, with all quantisation before it.
        added: By how many dB that is below the worst of what it reads.
        weight: Signal to noise of its weight alone, in dB.
    """

    layer: str
    operator: str
    sqnr: float
    added: float
    weight: float


@dataclass(frozen=True)
class Leave:
    """What it would bring to leave one layer in float.

    Attributes:
        layer: Its name.
        gain: By how many dB the output gets better.
    """

    layer: str
    gain: float

    @property
    def is_worth_it(self) -> bool:
        """Whether it brings as much as a sixth of a bit."""
        return self.gain >= WORTH_LEAVING


@dataclass(frozen=True)
class Study:
    """A quantised model and what became of its numbers.

    Attributes:
        quantized: The model and how it was made.
        after: How near it is to the model in floats.
        before: The same for the model as it was before equalisation; None where that was not asked for.
        layers: Every layer, in the order of the graph.
        leave: The worst few layers and what it brings to leave each in float, best first.
        as_written: Signal to noise of the worst output with the optimizer off, on the rows of `layers`.
        by_default: The same at ONNX Runtime's default.
    """

    quantized: Quantized
    after: Fidelity
    before: Fidelity | None = None
    layers: tuple[LayerNoise, ...] = ()
    leave: tuple[Leave, ...] = ()
    as_written: float = math.inf
    by_default: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether a signal is left, and accuracy falls by no more than `POINTS`, if there are labels."""
        lost = self.after.points_lost
        has_signal = self.is_exact or math.isfinite(self.after.sqnr)
        return has_signal and (lost is None or lost <= POINTS)

    @property
    def is_exact(self) -> bool:
        """Whether int8 adds no noise at all."""
        return self.after.sqnr == math.inf

    @property
    def sentence(self) -> str:
        """How near the outputs are, and what the accuracy is."""
        count = len(self.quantized.layers)
        text = f"{count} layer{'' if count == 1 else 's'} in int8, {_ratio(self.after.sqnr)}"
        if self.before is not None:
            text += f" ({_ratio(self.before.sqnr, '')} without equalisation)"
        text += f" on {self.after.rows} row{'' if self.after.rows == 1 else 's'}"
        if self.after.same is not None:
            text += f"; {self.after.same:.2%} of the classes or indices are the same"
        if self.after.accuracy is not None:
            score = self.after.accuracy.scores[0]
            text += f"; accuracy {score.folded:.2%}, in floats {score.original:.2%}"
        if self.quantized.gain >= WORTH_SAYING:
            text += f"; corrected biases brought {self.quantized.gain:.1f} dB on the calibration data"
        if worth := [one for one in self.leave if one.is_worth_it]:
            text += f"; {worth[0].layer} in float would bring {worth[0].gain:.1f} dB"
        return f"{text}."

    @property
    def is_worse_by_default(self) -> bool:
        """Whether ONNX Runtime at its default loses more than the file says.

        Integer kernels saturate on x86 without VNNI, and its optimizer quantises layers left in float.
        """
        return self.as_written - self.by_default > WORTH_LEAVING


def _ratio(decibels: float, of_what: str = " signal to noise") -> str:
    """A ratio of signal to noise for a sentence, also where it is not a number."""
    if math.isfinite(decibels):
        return f"{decibels:.1f} dB{of_what}"
    return "no noise" if decibels == math.inf else "no signal left"


def study(
    model: ir.Model,
    calibration: Inputs,
    scheme: Scheme | None = None,
    *,
    judged_on: Inputs | None = None,
    top: int = 5,
    unequalized: ir.Model | None = None,
) -> Study:
    """Quantise a model, and measure what that costs, where, and what equalisation saved.

    Args:
        model: The model in floats. It is not modified.
        calibration: What it is calibrated on.
        scheme: How it is quantised.
        judged_on: What it is judged on, with or without labels; the calibration data where None.
        top: The `k` of top-k accuracy.
        unequalized: The same model before equalisation, to be quantised in the same way for comparison.

    Raises:
        BnfoldError: As for [`Calibrated`][bnfold.edge.quantize.Calibrated].
    """
    scheme, model = scheme or Scheme(), named(model)
    ports = interface(model).inputs
    samples = split(samples_of(calibration if judged_on is None else judged_on, ports), ports)
    few = first(samples)
    with Calibrated(model, calibration) as calibrated:
        quantized = calibrated.quantize(scheme)
        layers = _by_layer(model, quantized, few)
        as_written = signal_to_noise(model, quantized.model, few, "off")
        by_default = signal_to_noise(model, quantized.model, few, "default")
        leave = _left_in_turn(calibrated, quantized, layers, few, as_written)
    before = None
    if unequalized is not None:
        with Calibrated(unequalized, calibration) as other:
            before = fidelity(unequalized, other.quantize(scheme).model, samples, top=top)
    after = fidelity(model, quantized.model, samples, top=top)
    return Study(quantized, after, before, layers, leave, as_written, by_default)


def fidelity(model: ir.Model, quantized: ir.Model, samples: Samples, *, top: int = 5) -> Fidelity:
    """Compare the outputs of two models at ONNX Runtime's default; with labels their accuracy too.

    Raises:
        ModelError: ONNX Runtime cannot run one of them.
        InputError: There are labels, and no output is that of a classifier of these classes.
    """
    both, ports, accuracy = Both(model, quantized, "default"), interface(model).outputs, None
    if samples.classes is not None:
        accuracy = measure(both.expected, both.actual, samples, ports, top)
    else:
        both.see(samples.feeds)
    name, sqnr = both.worst(ports)
    return Fidelity(sqnr, name, accuracy, sum(rows_of(feeds) for feeds in samples.feeds), both.same)


# --- layer by layer ----------------------------------------------------------------------------------------


def _by_layer(model: ir.Model, quantized: Quantized, samples: Sequence[Feeds]) -> tuple[LayerNoise, ...]:
    """Every quantised layer in order, from one run of both models with all values in question as outputs."""
    pairs = _pairs(model, quantized.model)
    noise = _compared(model, quantized.model, pairs, samples)
    own, found = {str(node.name): node for node in model.graph}, []
    after = {node.name: node for node in quantized.model.graph}
    for name in quantized.layers:
        node, other = own[name], after[name]
        out, read = _float_name(node, other, model), node.inputs[0]
        sqnr = noise[out].decibels if out in noise else math.nan
        before = noise[str(read.name)].decibels if read is not None and read.name in noise else math.inf
        added = max(0.0, min(before, _MOST) - min(sqnr, _MOST))
        found.append(LayerNoise(name, node.op_type, sqnr, added, _weight_sqnr(node, other)))
    return tuple(found)


_MOST = 60.0
"""What is better than this many dB counts as this: no noise at all is infinitely good."""


def _pairs(model: ir.Model, quantized: ir.Model) -> dict[str, str]:
    """Values of the model in floats by name, each with what its readers read in the quantised one.

    A value keeps its name there, unless it is an output, and is read through a pair; a Relu that the zero
    point makes needless is gone, and what computes its input has its name.
    """
    facts, found = Facts(model), {}
    values = {str(value.name): value for node in quantized.graph for value in node.outputs}
    values |= {str(value.name): value for value in quantized.graph.inputs}
    known = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in known:
        other = values.get(str(value.name))
        if other is not None and value.name and facts.dtype(value) == ir.DataType.FLOAT:
            found[str(value.name)] = str(_through_pair(other).name)
    return found


def _through_pair(value: ir.Value) -> ir.Value:
    """What a QuantizeLinear and its DequantizeLinear make of a value; itself where there is none."""
    for reader in value.consumers():
        if reader.op_type == "QuantizeLinear":
            for last in reader.outputs[0].consumers():
                return last.outputs[0]
    return value


def _float_name(node: ir.Node, other: ir.Node, model: ir.Model) -> str:
    """The value in floats that the output of a quantised node stands for."""
    name = str(other.outputs[0].name)
    own = str(node.outputs[0].name)
    return own if own in {str(value.name) for value in model.graph.outputs} else name


def _compared(
    model: ir.Model, quantized: ir.Model, pairs: Mapping[str, str], samples: Sequence[Feeds]
) -> dict[str, Noise]:
    given = {str(value.name) for value in model.graph.inputs}
    first = _with_outputs(model, [name for name in pairs if name not in given])
    second = _with_outputs(quantized, list(dict.fromkeys(pairs.values())))
    sessions = [session(one, optimized="off") for one in (first, second)]
    noise = {name: Noise() for name in pairs}
    for feeds in samples:
        expected, actual = (
            dict(zip((output.name for output in one.get_outputs()), run(one, feeds), strict=True))
            | dict(feeds)
            for one in sessions
        )
        for name, other in pairs.items():
            noise[name].add(expected[name], actual[other])
    return noise


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone that has values as outputs too."""
    copy = model.clone()
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    there = {str(value.name) for value in copy.graph.outputs}
    for name in names:
        if name in values and name not in there:
            values[name].type = ir.TensorType(ir.DataType.FLOAT)
            copy.graph.outputs.append(values[name])
    return copy


def _weight_sqnr(node: ir.Node, other: ir.Node) -> float:
    """Signal to noise of a weight of integers."""
    weight, read = node.inputs[1], other.inputs[1]
    maker = read.producer() if read is not None else None
    if weight is None or weight.const_value is None or maker is None:
        return math.nan
    parts = [value.const_value for value in maker.inputs if value is not None]
    if any(part is None for part in parts):
        return math.nan
    integers, scale, *zero = (part.numpy() for part in parts if part is not None)
    axis = maker.attributes["axis"].as_int() if "axis" in maker.attributes else 1
    laid = [-1 if place == axis % integers.ndim else 1 for place in range(integers.ndim)]
    step, zeros = (one.reshape(laid) if one.ndim else one for one in (scale, *(zero or [np.zeros(())])))
    noise = Noise()
    noise.add(weight.const_value.numpy(), (integers.astype(np.float32) - zeros) * step)
    return noise.decibels


def _left_in_turn(
    calibrated: Calibrated,
    quantized: Quantized,
    layers: Sequence[LayerNoise],
    samples: Sequence[Feeds],
    whole: float,
) -> tuple[Leave, ...]:
    """Leave each of the worst few layers in float, and look at the output, which else has `whole` dB.

    It is looked at as the file is written: ONNX Runtime's optimizer quantises the weight of a Conv or Gemm
    that was left in float between two pairs (WeightBiasQuantization, its pull requests 22969 and 25673).
    """
    by_added = sorted(layers, key=lambda one: -one.added)
    by_weight = sorted(layers, key=lambda one: one.weight)
    worst = list(dict.fromkeys((*by_added[: TRIED // 2], *by_weight[: TRIED // 2])))
    found = []
    for one in worst if len(layers) > 1 and math.isfinite(whole) else ():  # else there is nothing to win
        scheme = replace(quantized.scheme, leave=(*quantized.scheme.leave, one.layer))
        one_less = calibrated.quantize(scheme).model
        sqnr = signal_to_noise(calibrated.model, one_less, samples, "off")
        found.append(Leave(one.layer, sqnr - whole))
    return tuple(sorted(found, key=lambda one: -one.gain))
