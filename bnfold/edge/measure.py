"""What one step for a whole tensor costs, estimated from the weights alone.

With one step `Δ = max |w| / 127` for a whole weight, each of its numbers is off by `Δ² / 12` in the mean
square, and with one step for all channels of an activation so is each of these. What a layer computes is then
off by

    weights:      Δ_w² / 12 · Σ_i taps · E[x_i²]          activations:      Δ_x² / 12 · Σ_i Σ_taps w²

in the mean square. Both are a square of a largest number times a sum, where a scale of a channel makes a term
of the one larger and of the other smaller. Without data `E[x²]` follows from the weights before:

    E[y_o²] = b_o² + Σ_i E[x_i²] Σ_t Σ_u w_oit w_oiu ρ^|t − u|      taps t, u at a distance of |t − u| values

with 1 for what no layer computes. Values next to each other are alike, and filters that look for edges take
their difference: were the taps taken as independent, the estimate would be many times too large after a few
layers. ρ = 0.95 is the usual model of an image (Jain, "Fundamentals of Digital Image Processing", 1989). The
errors of weights are as smooth as the signal and pass the layers after it by the same formula, up to what
they end in; those of rounded activations are white. (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", 2018, has steps and ranges; that noise of `Δ² / 12`
adds up in squares is Bennett, "Spectra of Quantized Signals", 1948.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.edge.channels import Channels, Layer
from bnfold.edge.classes import Ids
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integers
from bnfold.tensors.parts import parts

_DEVIATIONS = 4.0  # from a channel's mean to the largest of the values that a calibration sees
_FINER = (
    127 / 255
) ** 2  # most activations come from a Relu and have no sign, so their step is half as large
_NEIGHBOURS = 0.95  # the correlation of values next to each other in an image
_DEAD = 2.0**-32  # a channel of less power, relative to the largest beside it, is not counted more
_TINY = np.finfo(np.float64).tiny
_NEAR = 24  # powers of two within which a weight stays normal in float32 when it is scaled on one side


@dataclass(frozen=True)
class Measured:
    """The weight of a layer by channels, every array of the shape (groups, outputs, inputs) of a group.

    Attributes:
        layer: The layer.
        largest: The largest absolute weight.
        lowest: The exponent of the smallest weight that is not zero, as `frexp` gives it.
        energy: The sum of the squares over the taps: what white noise is multiplied by in the mean square.
        power: The same for a signal whose neighbouring values are correlated.
        taps: How many taps there are.
        outputs: The class of each output channel, shape `(groups, outputs)`.
        inputs: The class of each input channel, shape `(groups, inputs)`; None where those are not scaled.
    """

    layer: Layer
    largest: Array
    lowest: npt.NDArray[np.int16]
    energy: Array
    power: Array
    taps: int
    outputs: Ids
    inputs: Ids | None

    @classmethod
    def of(cls, layer: Layer, channels: Channels) -> Measured:
        """Read the weight of a layer, a part at a time."""
        tensor = channels.facts.weight(layer.node, 1)
        shape = tuple(int(size) for size in tensor.shape.numpy())
        taps = tuple(range(2 - len(shape), 0))
        largest, energy = np.zeros(shape[:2], tensor.dtype.numpy()), np.zeros(shape[:2])
        correlations = _correlations(layer, shape[2:])
        power = np.zeros(shape[:2]) if correlations else energy
        lowest = np.full(shape[:2], _NONE, np.int16)
        for where, part in parts(tensor, whole=len(taps)):
            place = where[:2]
            size = np.abs(part)
            largest[place] = size.max(axis=taps, initial=0)
            smallest = np.where(size > 0, size, np.inf).min(axis=taps, initial=np.inf)
            lowest[place] = np.where(np.isfinite(smallest), np.frexp(smallest)[1], _NONE)
            energy[place] = np.square(size, dtype=np.float64).sum(axis=taps)
            if correlations:
                power[place] = _quadratic(part, correlations)
        groups, roots = layer.groups, channels.classes.root
        return cls(
            layer,
            _by_groups(largest, layer),
            _by_groups(lowest, layer),
            _by_groups(energy, layer),
            _by_groups(power, layer),
            int(np.prod(shape[2:])),
            roots(layer.outputs).reshape(groups, -1),
            None if layer.inputs is None else roots(layer.inputs).reshape(groups, -1),
        )

    def out_scale(self, steps: Ids) -> Array:
        """What each output channel is multiplied by, shape `(groups, outputs, 1)`."""
        return np.asarray(np.exp2(steps[self.outputs].astype(float))[:, :, None])

    def in_scale(self, steps: Ids) -> Array:
        """What the weights of each input channel are multiplied by, shape `(groups, 1, inputs)`."""
        if self.inputs is None:
            return np.ones((self.layer.groups, 1, self.largest.shape[2]))
        return np.asarray(np.exp2(-steps[self.inputs].astype(float))[:, None, :])

    def by_output(self, steps: Ids) -> Array:
        """The largest weight of each output channel, shape `(groups, outputs)`."""
        if not self.largest.shape[2]:
            return np.zeros(self.outputs.shape)
        narrow = self.in_scale(steps).astype(self._holding(steps))
        return np.asarray((self.largest * narrow).max(axis=2) * self.out_scale(steps)[:, :, 0])

    def by_input(self, steps: Ids) -> Array:
        """The largest weight of each input channel, shape `(groups, inputs)`."""
        narrow = self.out_scale(steps).astype(self._holding(steps))
        found = (self.largest * narrow).max(axis=1, initial=0)
        return np.asarray(found * self.in_scale(steps)[:, 0])

    def _holding(self, steps: Ids) -> np.dtype[Any]:
        """A type that holds every largest weight with the scale of one side: its own, if that is near 1."""
        top = np.finfo(np.float32).maxexp - _NEAR
        is_near = np.abs(steps).max(initial=0) <= _NEAR and self.highest <= top
        return self.largest.dtype if is_near else np.dtype(np.float64)

    @cached_property
    def highest(self) -> int:
        """The exponent of the largest weight of all, as `frexp` gives it."""
        return int(np.frexp(self.largest.max(initial=0))[1])

    @cached_property
    def deepest(self) -> int:
        """The least of `lowest`."""
        return int(self.lowest.min(initial=_NONE))

    def bits_lost(self, steps: Ids) -> float:
        """Bits that one step for the whole weight costs an output channel on average, at most 8 each."""
        largest = self.by_output(steps)
        live = largest[(largest > 0) & np.isfinite(largest)]
        return float(np.mean(np.minimum(np.log2(live.max() / live), 8.0))) if live.size else 0.0

    def biases(self, facts: Facts) -> Array:
        """What is added to each output channel by the layer itself, shape `(outputs,)`."""
        total = np.zeros(self.outputs.size)
        for node, index in self.layer.biases:
            array = facts.operand(node, index)
            total += 0.0 if array is None else array.reshape(-1)
        return total


_NONE = np.iinfo(np.int16).max


def _correlations(layer: Layer, kernel: tuple[int, ...]) -> list[Array]:
    """How the values under the taps of a kernel are correlated, a matrix for each of its axes.

    Empty where that makes no difference, and for a ConvTranspose, whose taps reach different outputs.
    """
    if layer.node.op_type != "Conv" or max(kernel, default=1) == 1:
        return []
    dilations = integers(layer.node, "dilations") or (1,) * len(kernel)
    found = []
    for size, dilation in zip(kernel, dilations, strict=True):
        at = np.arange(size) * dilation
        found.append(_NEIGHBOURS ** np.abs(at[:, None] - at).astype(float))
    return found


def _quadratic(part: npt.NDArray[Any], correlations: Sequence[Array]) -> Array:
    """The sum over all pairs of taps of both weights times their correlation, shape `part.shape[:2]`."""
    weights = part.astype(np.float64)
    spread = weights
    for axis, matrix in enumerate(correlations, 2):
        spread = np.moveaxis(np.tensordot(spread, matrix, (axis, 0)), -1, axis)
    return np.asarray((weights * spread).sum(axis=tuple(range(2, part.ndim))))


def _by_groups(array: npt.NDArray[Any], layer: Layer) -> npt.NDArray[Any]:
    """A matrix as the weight is stored, as (groups, outputs, inputs)."""
    if layer.out_axis:
        return array.reshape(layer.groups, -1, array.shape[1]).transpose(0, 2, 1)
    return array.reshape(layer.groups, -1, array.shape[1])


@dataclass(frozen=True)
class Seen:
    """What is known without data of the values that one layer reads and computes.

    Attributes:
        square: The mean square of each input channel, shape `(groups, inputs)`.
        range: The largest absolute value of each, shape `(groups, inputs)`.
        weight: By how much noise in an output channel counts, shape `(groups, outputs)`: its square, times
            this, is its share in the noise of what the layers after it end in, relative to the signal there.
    """

    square: Array
    range: Array
    weight: Array


@dataclass(frozen=True)
class Activity:
    """What is known of the values of a network without data.

    Attributes:
        range: The largest absolute value of each class, by its number.
        layers: What each layer reads and computes.
    """

    range: Array
    layers: Mapping[ir.Node, Seen]


def activity(channels: Channels, measured: Sequence[Measured]) -> Activity:
    """Estimate the activations of all layers, from the input of the network to its output.

    A residual stream is one class from end to end, and what is added to it later is not there yet where it is
    read first. So a layer sees what the layers before it have computed, and its noise reaches those after it.
    """
    count = channels.classes.size
    square, offset = np.zeros(count), np.zeros(count)
    for node, index, labels in channels.added:
        array = channels.facts.operand(node, index)
        if array is not None:
            np.add.at(offset, channels.classes.root(labels.ids), array.reshape(-1))
    square += offset**2
    read, computed = [], []
    for one in measured:
        own = one.biases(channels.facts).reshape(one.outputs.shape)
        read.append((_read(one, square), _read(one, _range(square, offset))))
        moment = np.einsum("goi,gi->go", one.power, read[-1][0], dtype=np.float64)
        computed.append(moment + own**2)
        np.add.at(square, one.outputs, computed[-1])
        np.add.at(offset, one.outputs, own)
    weight, layers = np.zeros(count), {}
    held = ~channels.classes.is_free(np.arange(count))
    for one, (moment, largest), power in reversed(list(zip(measured, read, computed, strict=True))):
        counts = weight[one.outputs]
        if not counts.any():
            counts = _by_itself(np.where(held[one.outputs], power, 0.0))
        layers[one.layer.node] = Seen(moment, largest, counts)
        if one.inputs is not None:
            np.add.at(weight, one.inputs, np.einsum("goi,go->gi", one.power, counts, dtype=np.float64))
    return Activity(_range(square, offset), layers)


def _by_itself(power: Array) -> Array:
    """By how much noise counts in outputs that no layer reads.

    Args:
        power: The mean square of each channel; 0 where it does not reach an output of the model. Such a
            channel can still be scaled, so that it has no size of its own that noise could be relative to.
    """
    least = max(power.max(initial=0) * _DEAD, _TINY)
    counts = np.zeros(power.shape)
    np.divide(1 / power.size, np.maximum(power, least), where=power > 0, out=counts)
    return counts


def _range(square: Array, offset: Array) -> Array:
    """The largest absolute values, from the mean squares and what constants add."""
    return np.asarray(np.abs(offset) + _DEVIATIONS * np.sqrt(np.maximum(square - offset**2, 0)))


def _read(one: Measured, known: Array) -> Array:
    """What is known of the classes that a layer reads; 1 for what no layer computes."""
    if one.inputs is None:
        return np.ones((one.layer.groups, one.largest.shape[2]))
    return np.asarray(known[one.inputs])


@dataclass(frozen=True)
class Term:
    """A largest number squared times a sum, where a scale of a class makes the one larger, the other smaller.

    Attributes:
        sign: 1 where a scale makes the largest number larger, −1 where it makes it smaller.
        peak: The numbers of which the largest counts, one for each class that is moved.
        floor: The largest of those of other classes.
        mass: The parts of the sum, one for each class that is moved.
        rest: The sum of those of other classes.
    """

    sign: int
    peak: Array
    floor: float
    mass: Array
    rest: float

    def cost(self, moves: Moves) -> Array:
        """The noise after each of several moves, shape `(moves,)`."""
        up, down = (moves.up, moves.down) if self.sign > 0 else (moves.down, moves.up)
        top = np.maximum((self.peak * up).max(axis=1, initial=0.0), self.floor)
        total = np.einsum("mc,mc,c->m", down, down, self.mass) + self.rest
        return np.asarray(top * top * total)


@dataclass(frozen=True)
class Moves:
    """Several ways to move some classes.

    Attributes:
        by: The powers of two, shape `(moves, classes)`.
    """

    by: Ids

    @cached_property
    def up(self) -> Array:
        """What each class is multiplied by."""
        return np.asarray(np.exp2(self.by.astype(float)))

    @cached_property
    def down(self) -> Array:
        """The reciprocals of that."""
        return np.asarray(np.exp2(-self.by.astype(float)))


def noise(one: Measured, steps: Ids, known: Activity) -> float:
    """The noise of one layer in weights and activations, if classes are scaled by so many powers of two."""
    found = terms(one, steps, known, np.full(len(steps), -1), 0, writes=True, reads=True)
    still = Moves(np.zeros((1, 0), np.int64))
    return sum(float(term.cost(still)[0]) for term in found if term.sign > 0)  # −1: the weights again


def terms(
    one: Measured, steps: Ids, known: Activity, place: Ids, count: int, *, writes: bool, reads: bool
) -> Iterator[Term]:
    """The noise of one layer as it depends on the classes that are moved.

    Args:
        one: The layer.
        steps: By how many powers of two each class is scaled already.
        known: The activations of all classes, as they are without that.
        place: The place of each class among those that are moved; −1 for the others.
        count: How many those are.
        writes: Whether the layer computes some of them.
        reads: Whether it reads some of them.
    """
    seen = known.layers[one.layer.node]
    if not np.isfinite(seen.weight).all() or not np.isfinite(seen.square).all():
        return
    counts = seen.weight / np.square(one.out_scale(steps)[:, :, 0])
    scale = np.ones(seen.square.shape) if one.inputs is None else np.exp2(steps[one.inputs].astype(float))
    mass = one.taps * seen.square * np.square(scale)
    if writes:
        yield _term(1, place[one.outputs], count, one.by_output(steps), counts * mass.sum(axis=1)[:, None])
    if reads and one.inputs is not None:
        at = place[one.inputs]
        yield _term(-1, at, count, one.by_input(steps), mass * counts.sum(axis=1)[:, None])
        gain = np.einsum("goi,go->gi", one.energy, seen.weight, dtype=np.float64) / np.square(scale)
        yield _term(1, at, count, seen.range * scale, gain * _FINER)


def _term(sign: int, at: Ids, count: int, peak: Array, mass: Array) -> Term:
    """A term of entries, each of the class at a place, or of another where that is −1."""
    peaks, masses = np.zeros(count + 1), np.zeros(count + 1)  # the last is that of the others
    np.maximum.at(peaks, at, peak)
    np.add.at(masses, at, mass)
    return Term(sign, peaks[:-1], float(peaks[-1]), masses[:-1], float(masses[-1]))
