"""Reading a weight in float64, as a whole or some rows at a time, with each element moved by one rounding."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold.oracle.ops.call import Array, widen
from bnfold.tensors.block_tensor import BlockTensor
from bnfold.tensors.precision import ROUNDOFF

_STEP = 1 << 17  # elements that are moved at a time


@dataclass(frozen=True)
class Weight:
    """A weight that is read again for each reader, since it takes twice its memory or more in float64.

    Attributes:
        tensor: As the model stores it, of any type; values other than floats are left as they are.
        seed: None, or what decides together with the tensor's name by how much each element is moved: it is
            multiplied by `1 + d`, with `d` uniform within ± the unit roundoff of the tensor's type. Zero
            stays zero.
    """

    tensor: ir.TensorProtocol
    seed: int | None = None

    @property
    def nbytes(self) -> int:
        """What it takes in float64."""
        return 8 * self.tensor.size

    def __call__(self) -> Array:
        """All elements."""
        if self.tensor.dtype not in ROUNDOFF:
            return np.asarray(widen(self.tensor.numpy()))
        shape = tuple(self.tensor.shape.numpy())
        found, place = np.empty(shape), 0
        flat = found.reshape(-1)
        for part in self._pieces():
            flat[place : place + part.size] = part
            place += part.size
        if place != found.size:
            raise ValueError(f"{self.tensor!r} has {found.size} elements but gave {place}")
        return found

    def rows(self, count: int) -> Iterator[Array]:
        """The elements of a weight of floats, `count` rows of its first axis at a time."""
        shape = tuple(self.tensor.shape.numpy())
        pieces, left = self._pieces(), np.empty(0)
        for start in range(0, shape[0], count):
            part = np.empty((min(count, shape[0] - start), *shape[1:]))
            flat, place = part.reshape(-1), 0
            while place < flat.size:
                left = left if left.size else next(pieces)
                taken = left[: flat.size - place]
                flat[place : place + taken.size] = taken
                place, left = place + taken.size, left[taken.size :]
            yield part

    def _pieces(self) -> Iterator[Array]:
        """All elements in order, some at a time."""
        if self.seed is None:
            yield from self._stored()
            return
        rng = np.random.default_rng([self.seed, zlib.crc32((self.tensor.name or "").encode())])
        roundoff = ROUNDOFF[self.tensor.dtype]
        for part in self._stored():
            chance = rng.random(part.size, np.float32)  # twice as fast as in double
            yield np.multiply(
                part, (1 - roundoff) + 2 * roundoff * chance.astype(np.float64), dtype=np.float64
            )

    def _stored(self) -> Iterator[Array]:
        """The same as the model stores them."""
        if not isinstance(self.tensor, BlockTensor):
            flat = self.tensor.numpy().reshape(-1)
            yield from (flat[start : start + _STEP] for start in range(0, flat.size, _STEP))
            return
        kind = self.tensor.dtype.numpy().newbyteorder("<")
        for block in self.tensor.blocks():
            flat = np.frombuffer(block, kind)
            yield from (flat[start : start + _STEP] for start in range(0, flat.size, _STEP))
