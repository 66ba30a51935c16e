"""Balancing the channels of weights by powers of two, which changes no bit of any output.

One step of an integer for a whole weight is set by its largest channel, and channels far below it lose their
digits. A channel that one layer computes and the next reads may be made larger in the one and smaller in the
other. Where the factor is a power of two, floating point does that without any rounding, and the outputs stay
equal bit for bit. (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.1, balances with real factors, so that the range of a channel in the layer that computes it
and in the layer that reads it become the same. Here that is one candidate among others, and the one with the
least [noise][bnfold.edge.measure] in weights and activations is taken.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.edge.balance import Balance, Equalized
from bnfold.edge.channels import Channels, Layer
from bnfold.edge.classes import Ids
from bnfold.edge.measure import Activity, Measured, Moves, Term, activity, noise, terms
from bnfold.edge.room import Room, biases
from bnfold.files.load import blaming, from_proto, load_onnx
from bnfold.files.other_types import to_proto
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import module_name

_ROUNDS = 1000  # for each group; a few are needed, but rounded sums could go round in a circle
_BETTER = 0.999  # of the noise, so that nothing is moved for nothing
_NEAR, _FAR = (0.25, 1.0), (1.0, 2.5)  # powers of two below the top
_SHARES = (0.25, 0.5, 0.75)
_DEEPEST = -16.0  # a channel that is smaller than the largest by more powers of two counts as one of these
_FARTHEST = 30  # powers of two from 1 that the values of a moved channel are at most, as far as is known
_LOST = 96  # powers of two from 1 where values may leave float32, so that their channel does not move


@overload
def equalize(model: onnx.ModelProto) -> Equalized[onnx.ModelProto]: ...
@overload
def equalize(model: str | os.PathLike[str] | ir.Model) -> Equalized[ir.Model]: ...
def equalize(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
) -> Equalized[onnx.ModelProto] | Equalized[ir.Model]:
    """Balance the channels of all layers between which nothing but scaling operators stands.

    Fold BatchNorms first: they keep channels apart.

    Args:
        model: A path, an `onnx.ModelProto` or an `onnx_ir.Model`. It is not modified. Weights of float32 and
            float64 take part.

    Returns:
        A model whose outputs are the same, bit for bit, unless values inside it overflow or are too small for
        the digits of their type: a `ModelProto` for a `ModelProto` and otherwise an `onnx_ir.Model`; and the
        ranges of its weights before and after.

    Raises:
        ModelError: The file cannot be read as a model.
    """
    if isinstance(model, (str, os.PathLike)):
        with blaming(model):
            return equalized(load_onnx(model))
    if isinstance(model, onnx.ModelProto):
        done = equalized(from_proto(model))
        return Equalized(to_proto(done.model), done.layers, done.refused)
    return equalized(model)


def equalized(model: ir.Model, *, in_memory: bool = True) -> Equalized[ir.Model]:
    """Do what `equalize` does, for a model in memory.

    Args:
        model: The model; it is not modified.
        in_memory: Whether the new weights are computed at once, and not each time that they are read.
    """
    copy = model.clone()
    facts = Facts(copy)
    channels = Channels(facts)
    measured = [Measured.of(layer, channels) for layer in channels.layers]
    steps = _balanced(channels, measured)
    layers = tuple(_balance(channels, one, steps) for one in measured)  # under the names of the original
    refused = {module_name(one.node): one.why for one in channels.refused}
    editor = Editor(facts)
    write(channels, steps, editor)
    if in_memory:
        editor.compute()
    return Equalized(copy, layers, refused)


@dataclass(frozen=True)
class _Group:
    """Classes that are moved at once, those that one layer computes, with all layers that meet one.

    Attributes:
        own: The classes.
        meeting: The layers, and whether each computes some of them, and reads some.
    """

    own: Ids
    meeting: list[tuple[Measured, bool, bool]]


def _balanced(channels: Channels, measured: Sequence[Measured]) -> Ids:
    """By how many powers of two each channel moves.

    Group after group takes the candidate with the least noise, until none has less. Every move makes the
    noise of all layers smaller, so this ends. What is tried, and what it costs, depends on the weights as the
    moves so far have left them: a second run starts where none has less.
    """
    every = np.arange(channels.classes.size)
    steps, room = np.zeros(len(every), np.int64), Room(channels, measured)
    known = activity(channels, measured)
    lost = ~np.isfinite(known.range) | ((known.range > 0) & (np.abs(np.frexp(known.range)[1]) > _LOST))
    if lost.any():
        channels.classes.fix(every[lost], "has values near an end of the range of float32, by estimate")
    groups = _groups(channels, measured)
    pending = dict.fromkeys(range(len(groups)))
    for _ in range(_ROUNDS * len(groups)):
        if not pending:
            break
        at = next(iter(pending))
        del pending[at]
        by = _best(groups[at], steps, known, room)
        if by is not None:
            steps[groups[at].own] += by
            near = {id(one) for one, _, _ in groups[at].meeting}
            pending |= dict.fromkeys(
                other for other, group in enumerate(groups) if near & {id(one) for one, _, _ in group.meeting}
            )
    return np.asarray(steps[channels.classes.root(every)])


def _groups(channels: Channels, measured: Sequence[Measured]) -> list[_Group]:
    free = channels.classes.is_free(np.arange(channels.classes.size))
    home = np.full(len(free), -1)
    owned: list[Ids] = []
    for one in measured:
        own = np.unique(one.outputs)
        own = own[free[own] & (home[own] < 0)]
        if own.size:
            home[own] = len(owned)
            owned.append(own)
    meeting: list[list[tuple[Measured, bool, bool]]] = [[] for _ in owned]
    for one in measured:
        written = set(np.unique(home[one.outputs]).tolist())
        read = set() if one.inputs is None else set(np.unique(home[one.inputs]).tolist())
        for at in sorted((written | read) - {-1}):
            meeting[at].append((one, at in written, at in read))
    return [_Group(own, layers) for own, layers in zip(owned, meeting, strict=True)]


def _best(group: _Group, steps: Ids, known: Activity, room: Room) -> Ids | None:
    """By how many powers of two to move the classes of a group; None where they are best as they are."""
    place, count = np.full(len(steps), -1), len(group.own)
    place[group.own] = np.arange(count)
    parts, apart = [], []
    for one, writes, reads in group.meeting:
        found = list(terms(one, steps, known, place, count, writes=writes, reads=reads))
        parts += found
        apart += [] if writes and reads else found
    if not parts:
        return None
    tried = _within_range(_candidates(parts, count), known.range[group.own], steps[group.own])
    tried = room.clipped(tried, group.own, [one for one, _, _ in group.meeting], steps, place)
    moves, costs = Moves(tried), np.zeros(len(tried))
    for term in apart:
        costs += term.cost(moves)
    for one in (one for one, writes, reads in group.meeting if writes and reads):
        costs += _together(one, group.own, steps, known, tried)
    best = int(np.argmin(costs))  # the first of equal ones; the very first moves nothing
    return tried[best] if costs[best] < costs[0] * _BETTER else None


def _within_range(tried: Ids, largest: Array, steps: Ids) -> Ids:
    """Moves after which the estimated values of each class are far from both ends of every type's range."""
    now = np.where(largest > 0, np.frexp(largest)[1], 0) + steps
    within = np.clip(tried, np.minimum(-_FARTHEST - now, 0), np.maximum(_FARTHEST - now, 0))
    return np.where(largest > 0, within, 0)  # a channel of zeros could move at every run


def _together(one: Measured, own: Ids, steps: Ids, known: Activity, tried: Ids) -> Array:
    """The noise of a layer that reads and writes the same group, after each move of that group.

    The terms of `measure` move what it reads or what it writes, and never both.
    """
    found = np.zeros(len(tried))
    for at, by in enumerate(tried):
        after = steps.copy()
        after[own] += by
        found[at] = noise(one, after, known)
    return found


def _candidates(parts: Sequence[Term], count: int) -> Ids:
    """Powers of two by which classes may be moved, shape `(moves, classes)`; the first moves nothing.

    A largest number is best used where all channels reach it, and then the sum beside it is as small as it
    gets. Two such terms that pull apart meet between.
    """
    up = [_logs(term.peak) for term in parts if term.sign > 0]
    down = [_logs(term.peak) for term in parts if term.sign < 0]
    down += [_logs(np.sqrt(term.mass)) for term in parts if term.sign > 0]
    moves: list[Array] = [np.zeros(count)]
    for share in _SHARES:
        for one in _summed(up, count):
            for other in _summed(down, count):
                wanted = share * other - (1 - share) * one
                moves.append(np.rint(wanted - np.median(wanted)))
    for term in parts:  # those near the top one down, those far below it one up
        logs = _logs(term.peak)
        moves += [np.where(logs > -below, -term.sign, 0.0) for below in _NEAR]
        moves += [np.where(logs < -below, term.sign, 0.0) for below in _FAR]
    return np.array(moves).astype(np.int64)


def _summed(logs: Sequence[Array], count: int) -> list[Array]:
    """The mean of several terms, and the largest."""
    return [np.mean(logs, axis=0), np.max(logs, axis=0)] if logs else [np.zeros(count)]


def _logs(values: Array) -> Array:
    """Numbers as powers of two, relative to the largest of all."""
    top = max(float(values.max(initial=0.0)), np.finfo(float).tiny)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(np.log2(values / top), _DEEPEST))


def write(channels: Channels, steps: Ids, editor: Editor) -> None:
    """Multiply channels by powers of two, in the weights on both sides of them.

    Args:
        channels: The channels of the editor's model.
        steps: The power of two of every channel, the same for all of a class and 0 for those that are held.
        editor: Writes the weights.
    """
    roots = channels.classes.root(np.arange(channels.classes.size))
    for layer in channels.layers:
        out = steps[roots[layer.outputs]]
        read = None if layer.inputs is None else -steps[roots[layer.inputs]]
        if out.any() or (read is not None and read.any()):
            rank = len(channels.facts.weight(layer.node, 1).shape)
            editor.multiply(layer.node, 1, _factors(layer, out, read, rank), "weight")
    for node, index, ids in biases(channels):
        by = steps[roots[ids]]
        if by.any():
            shape = tuple(channels.facts.shape(node.inputs[index]) or ())
            laid = [len(ids) if size == len(ids) else 1 for size in shape]  # the other sizes are 1
            editor.multiply(node, index, [np.exp2(by.astype(float)).reshape(laid)], "bias")
    for value, labels in channels.labelled():
        if np.any(steps[roots[labels.ids]]):
            editor.rename_changed(value)
    editor.sweep()


def _factors(layer: Layer, out: Ids, read: Ids | None, rank: int) -> list[Array]:
    """What a weight is multiplied by, as arrays that broadcast against it as it is stored.

    Args:
        layer: The layer.
        out: Powers of two for its output channels.
        read: The same for its input channels; None where those are not scaled.
        rank: Of the weight.
    """
    own, other = np.exp2(out.astype(float)), None if read is None else np.exp2(read.astype(float))
    ones = (1,) * (rank - 2)
    by_group = own.reshape(layer.groups, -1)
    if not layer.out_axis:  # (outputs, inputs of a group)
        factors = [own.reshape(-1, 1, *ones)]
        if other is not None:
            rows = np.repeat(other.reshape(layer.groups, -1), by_group.shape[1], axis=0)
            factors.append(rows.reshape(*rows.shape, *ones))
        return factors
    inputs = int(layer.sizes[1]) // layer.groups  # (inputs, outputs of a group)
    rows = np.repeat(by_group, inputs, axis=0)
    factors = [rows.reshape(*rows.shape, *ones)]
    return factors if other is None else [*factors, other.reshape(-1, 1, *ones)]


def _balance(channels: Channels, one: Measured, steps: Ids) -> Balance:
    outputs = one.layer.outputs
    reasons = [why for why in channels.classes.why_fixed(outputs) if why]
    return Balance(
        module_name(one.layer.node),
        one.layer.node.op_type,
        int(np.count_nonzero(steps[channels.classes.root(outputs)])),
        len(outputs),
        one.bits_lost(np.zeros_like(steps)),
        one.bits_lost(steps),
        reasons[0] if reasons else "",
    )
