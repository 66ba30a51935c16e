"""How far channels can move by powers of two before a number of a weight or bias loses a bit.

Multiplying by a power of two is exact from the smallest normal number of a type to its largest. A channel
with a number outside of that, or so near that products with it may be, does not move at all; the others move
no farther than to these ends. That depends on where the numbers are and not on how they came there, so that
the channels of a model that was equalised have the same room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.edge.channels import Channels
from bnfold.edge.classes import Ids
from bnfold.edge.measure import Measured

_MARGIN = 24  # powers of two that a moved number keeps from the subnormal ones, for the sake of products
_FAR = 1 << 20
_WHY = "has numbers near an end of the range of their type"


class Room:
    """The room of all channels; it holds those that have none.

    Args:
        channels: The channels; those with a number near an end are held.
        measured: The weights of their layers.
    """

    def __init__(self, channels: Channels, measured: Sequence[Measured]) -> None:
        self._ends = {
            one.layer.node: _ends(channels.facts.constant_dtype(one.layer.node, 1)) for one in measured
        }
        classes = channels.classes
        for one in measured:
            low, high = self._ends[one.layer.node]
            if one.highest <= high and one.deepest >= low and np.isfinite(one.largest.max(initial=0)):
                continue
            outside = (one.lowest < low) | (np.frexp(one.largest)[1] > high) | ~np.isfinite(one.largest)
            classes.fix(one.outputs[outside.any(axis=2)], _WHY)
            if one.inputs is not None:
                classes.fix(one.inputs[outside.any(axis=1)], _WHY)
        self._up, self._down = np.full(classes.size, _FAR), np.full(classes.size, _FAR)
        for node, index, ids in biases(channels):
            array = channels.facts.operand(node, index)
            assert array is not None, "a bias is a constant"
            low, high = _ends(channels.facts.constant_dtype(node, index))
            flat = array.reshape(-1)
            at, roots = np.frexp(flat)[1], classes.root(ids)
            outside = (flat != 0) & ((at < low) | (at > high) | ~np.isfinite(flat))
            if outside.any():
                classes.fix(ids[outside], _WHY)
            np.minimum.at(self._up, roots, np.where(flat != 0, high - at, _FAR))
            np.minimum.at(self._down, roots, np.where(flat != 0, at - low, _FAR))

    def clipped(self, tried: Ids, own: Ids, meeting: Iterable[Measured], steps: Ids, place: Ids) -> Ids:
        """Moves of some classes, each no farther than all numbers allow.

        Args:
            tried: By how many powers of two, shape `(moves, classes)`.
            own: The classes that move.
            meeting: The layers that compute or read some of them.
            steps: By how many powers of two each class is scaled already.
            place: The place of each class among those that move; −1 for the others.
        """
        up, down = self._up[own] - steps[own], self._down[own] + steps[own]
        reach = 2 * int(np.abs(tried).max(initial=0))  # of a weight on both sides
        for one in meeting:
            low, high = self._ends[one.layer.node]
            out = steps[one.outputs][:, :, None]
            read = np.zeros(1, np.int64) if one.inputs is None else steps[one.inputs][:, None, :]
            farthest = reach + int(np.abs(out).max(initial=0) + np.abs(read).max(initial=0))
            if one.highest + farthest <= high and one.deepest - farthest >= low:
                continue
            by = out - read
            rise = np.where(one.largest > 0, high - np.frexp(one.largest)[1] - by, _FAR)
            fall = np.where(one.largest > 0, one.lowest + by - low, _FAR)
            written = place[one.outputs]
            if one.inputs is not None:
                taken = place[one.inputs]
                rise, fall = _shared(one, written, taken, rise), _shared(one, written, taken, fall)
                _take(up, taken, fall.min(axis=1, initial=_FAR))
                _take(down, taken, rise.min(axis=1, initial=_FAR))
            _take(up, written, rise.min(axis=2, initial=_FAR))
            _take(down, written, fall.min(axis=2, initial=_FAR))
        return np.clip(tried, np.minimum(-down, 0), np.maximum(up, 0))


def _shared(one: Measured, written: Ids, read: Ids, room: Ids) -> Ids:
    """The room of each weight: half of it where both sides move, no limit where both are of one class."""
    assert one.inputs is not None, "it reads some"
    both = (written >= 0)[:, :, None] & (read >= 0)[:, None, :]
    same = one.outputs[:, :, None] == one.inputs[:, None, :]
    return np.where(same, _FAR, np.where(both, room // 2, room))


def _take(room: Ids, at: Ids, most: npt.NDArray[np.int64]) -> None:
    """Lessen the room of classes at a place; −1 is none of them."""
    np.minimum.at(room, at[at >= 0], most[at >= 0])


def _ends(dtype: ir.DataType) -> tuple[int, int]:
    """The least and the largest exponent of a moved number, as `frexp` gives it."""
    limits = np.finfo(dtype.numpy())
    return int(limits.minexp) + _MARGIN, int(limits.maxexp) - 1


def biases(channels: Channels) -> list[tuple[ir.Node, int, Ids]]:
    """The constants that are added to channels and take their scale, each a vector of them."""
    return [
        *((node, index, layer.outputs) for layer in channels.layers for node, index in layer.biases),
        *((node, index, labels.ids) for node, index, labels in channels.added),
    ]
