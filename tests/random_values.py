"""A graph that grows value by value, with the shape of each value known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

LARGEST = 600  # elements of a value
HIGHEST_RANK = 5


@dataclass(frozen=True)
class Typed:
    """A value of the graph and the shape that it has at run time."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Grower:
    """Grows one graph, or the body of a branch.

    Args:
        choose: Gives a number from 0 to n − 1; 0 is the plainest choice.
        dtype: Type of every float in the graph.
        opset: Version of ONNX's operator set.
        parent: The graph around a branch's body.
    """

    def __init__(
        self,
        choose: Callable[[int], int],
        dtype: type = np.float32,
        opset: int = 18,
        parent: Grower | None = None,
    ) -> None:
        self.choose, self.dtype, self.opset, self.parent = choose, dtype, opset, parent
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.values: list[Typed] = []
        self.read: Counter[str] = Counter()
        self.conditions: list[str] = []
        self._root: Grower = parent._root if parent is not None else self
        self._count = 0
        self._shared: dict[tuple[float, float, bool, tuple[int, ...]], str] = {}

    # choices

    def chance(self, one_in: int) -> bool:
        """Whether something unlikely happens."""
        return self.choose(one_in) == one_in - 1

    def pick(self, options: Sequence[Any]) -> Any:
        """One of several options."""
        return options[self.choose(len(options))]

    def value(self, fits: Callable[[Typed], bool] = lambda _: True) -> Typed | None:
        """A value, mostly one that nothing reads yet, mostly a late one."""
        found = [value for value in self.values if fits(value)][::-1]
        fresh = [value for value in found if not self.read[value.name]]
        if fresh and not self.chance(8):
            found = fresh
        return self.pick(found[:4]) if found else None

    # making

    def name(self, stem: str) -> str:
        """A new name."""
        self._root._count += 1
        return f"{stem}_{self._root._count}"

    def constant(self, array: Any) -> str:
        """A constant, in an initializer of this graph or, now and then, of the one around it."""
        home = self.parent if self.parent is not None and self.chance(2) else self
        name = self.name("c")
        home.constants[name] = np.asarray(array)
        return name

    def numbers(self, *shape: int, low: float = -1.0, high: float = 1.0, zeros: bool = True) -> str:
        """A constant of random numbers, now and then one that others read as well."""
        wanted = (low, high, zeros, shape)
        known = self._root._shared.get(wanted)
        if known is not None and self.chance(6):
            return known
        rng = np.random.default_rng([self._root._count, len(shape)])
        signs = np.sign(rng.uniform(-0.4, 1.0, shape)) if low > 0 and low < 0.7 else 1.0
        array = rng.uniform(low, high, shape) * signs
        if zeros and low > 0 and low < 0.7 and self.chance(12):
            array = array * (rng.random(shape) < 0.6)  # some scales are zero
        name = self.name("w")
        self._root.constants[name] = np.asarray(array, self.dtype)
        self._root._shared[wanted] = name
        return name

    def node(
        self, op: str, inputs: Sequence[Typed | str], *shapes: tuple[int, ...], **attributes: Any
    ) -> Typed:
        """A node with an output of each shape; gives the first."""
        names = [value.name if isinstance(value, Typed) else value for value in inputs]
        outputs = [Typed(self.name("v"), tuple(shape)) for shape in shapes]
        self.nodes.append(
            helper.make_node(op, names, [v.name for v in outputs], name=self.name(op.lower()), **attributes)
        )
        self.read.update(names)
        if self.parent is not None:
            self.parent.read.update(names)
        self.values.extend(outputs)
        return outputs[0]

    def graph(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]
    ) -> onnx.GraphProto:
        """The graph as ONNX has it."""
        shapes = {value.name: value.shape for value in self.values}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        infos = [helper.make_tensor_value_info(out, kind, [None] * len(shapes[out])) for out in outputs]
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        return helper.make_graph(self.nodes, name, list(inputs), infos, tensors)
