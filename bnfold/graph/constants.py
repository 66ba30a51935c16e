"""What evaluates to a constant: initializers, `Constant` nodes, and whatever is computed from them alone.

Exporters leave `Transpose(weight)`, `Unsqueeze(bias)` or `Expand(CastLike(0), Shape(weight))` where others
write an initializer; normalised weights and quantised ones are computed. All are evaluated with the reference
implementation of ONNX, in the types that the graph states, so that a folded weight starts from the very
numbers that the original would have used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from bnfold.graph.evaluate import Array, Evaluation, fits, is_evaluable
from bnfold.graph.nodes import integer, integers
from bnfold.graph.operators import REDUCTIONS, looks_at_numbers
from bnfold.graph.scopes import ONNX_DOMAINS

# What cannot fail on inputs of the right type. Others can, and where control flow never comes, valid models
# may hold them: an index out of range in a branch that is not taken.
_TOTAL = frozenset(
    {"Abs", "Cast", "CastLike", "Constant", "DequantizeLinear", "Identity", "Neg", "Transpose"}
)
# What cannot fail either where inference knows the result's shape
_TOTAL_IN_SHAPE = frozenset({"Add", "Div", "Mul", "Reciprocal", "Relu", "Sqrt", "Sub"}) | REDUCTIONS
_PLAIN_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
_WHOLE_BYTES = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16})
_KEPT = 1 << 26  # bytes of results that are kept, beside the last one
_MOST_WORK = 1 << 33  # operations that finding out what is constant may take, about a minute
_LIMIT = 1 << 31  # bytes; a larger constant is not computed


def initializer(value: ir.Value, *, overridable: bool) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or None.

    Args:
        value: Any value.
        overridable: Whether a caller can replace an initializer that is also a graph input, as since IR
            version 4. Earlier versions list every initializer as an input, which means nothing.
    """
    if not value.is_initializer() or (overridable and value.is_graph_input()):
        return None
    return value.const_value


class Constants:
    """Reads constants of one model.

    Args:
        ir_version: The model's IR version, which decides what callers may override.
        shape: Gives a value's shape, for `Shape` of something that is not constant; None where unknown.
        version: Gives the version of ONNX's operator set that a node was written for.
        dtype: Gives a value's type, for `CastLike` something that is not constant; None where unknown.
    """

    def __init__(
        self,
        ir_version: int,
        shape: Callable[[ir.Value], tuple[object, ...] | None],
        version: Callable[[ir.Node], int],
        dtype: Callable[[ir.Value], ir.DataType | None] = lambda value: value.dtype,
    ) -> None:
        self._overridable = ir_version >= 4
        self._shape = shape
        self._version = version
        self._dtype = dtype
        self._known: dict[ir.Value, bool] = {}
        self._results: dict[ir.Value, Array] = {}  # the newest last
        self._bytes = self._work = 0

    def is_overridable(self, value: ir.Value) -> bool:
        """Whether the value is an initializer that a caller may replace at run time."""
        return self._overridable and value.is_initializer() and value.is_graph_input()

    def has(self, value: ir.Value | None) -> bool:
        """Whether the value is constant; initializers, and what cannot fail over them, are not read."""
        if value is None:
            return False
        if value not in self._known:
            self._decide(value)
        return self._known[value]

    def array(self, value: ir.Value | None) -> Array | None:
        """The constant's elements, in its own type, or None where the value is not constant."""
        tensor = None if value is None else self.stored(value)
        if tensor is not None:
            return tensor.numpy()
        if value is None or not self.has(value):
            return None
        order = self._to_compute(value)
        left = Counter(need for needs in order.values() for need in needs)
        found: dict[ir.Value, Array] = {}
        for current, needs in order.items():
            found[current] = self._read(current, found)
            for need in needs:
                left[need] -= 1
                if not left[need]:
                    found.pop(need)  # it may be large
        return found[value]

    def stored(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor that holds a constant, not read yet; None where it is computed, or no tensor at all."""
        node = value.producer()
        return initializer(value, overridable=self._overridable) if node is None else held(node)

    def _decide(self, value: ir.Value) -> None:
        pending = [value]
        while pending:
            current = pending[-1]
            needs = self._needs(current)
            if needs is None or any(self._known.get(need) is False for need in needs):
                self._known[current] = False
            elif unknown := next((need for need in needs if need not in self._known), None):
                pending.append(unknown)
                continue
            else:
                self._known[current] = self._can_be_evaluated(current)
            pending.pop()

    def _needs(self, value: ir.Value) -> list[ir.Value] | None:
        """The values that must be constant for this one to be so; None where it cannot be."""
        if initializer(value, overridable=self._overridable) is not None:
            return []
        node = value.producer()
        if node is None or node.domain not in ONNX_DOMAINS:
            return None
        if node.op_type == "Constant":
            return [] if held(node) is not None else None
        return [
            source
            for index, source in enumerate(node.inputs)
            if source is not None and self._stand_in(node, index) is None
        ]

    def _stand_in(self, node: ir.Node, index: int) -> Array | None:
        """What gives the same result for an input of which only the type or the shape is taken."""
        source = node.inputs[index]
        if source is None or looks_at_numbers(node, index):
            return None
        kind = self._dtype(source)
        if node.op_type == "CastLike":
            return None if kind is None else np.empty((), kind.numpy())
        shape = self._static(source)
        if shape is None or (node.op_type == "EyeLike" and kind is None):
            return None
        like = np.zeros((), np.bool_ if kind is None else kind.numpy())
        return np.broadcast_to(like, shape)

    def _static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """A shape of which every size is known."""
        shape = self._shape(value) if value is not None else None
        sizes = tuple(dim for dim in shape or () if isinstance(dim, int))
        return sizes if shape is not None and len(sizes) == len(shape) else None

    def _can_be_evaluated(self, value: ir.Value) -> bool:
        """Whether a node over constants has a result, which is computed only where that may fail."""
        node = value.producer()
        if node is None or node.op_type == "Constant":
            return True
        sources = self._needs(value) or []
        # a quantised weight keeps its integers, which it cannot if further arithmetic follows
        if any(getattr(source.producer(), "op_type", "") == "DequantizeLinear" for source in sources):
            return False
        if not is_evaluable(node, self._version(node)) or not self._is_small(value, sources):
            return False
        if ir.DataType.STRING in map(self._dtype, (value, *sources)):
            return False
        if node.op_type == "QuantizeLinear" and not self._rounds_alike(node):
            return False
        if self._is_total(node) or (node.op_type == "QuantizeLinear" and self._has_plain_steps(node)):
            return True
        if node.op_type in _TOTAL_IN_SHAPE and self._dtype(value) in _PLAIN_FLOATS and self._static(value):
            return True
        try:
            evaluation = Evaluation(node, self._version(node), self._feeds(node, {}))
            work = evaluation.work()
            if work is None or self._work + work > _MOST_WORK:
                return False
            self._work += work
            self._keep(node, evaluation.run())
        except Exception:  # each operator of the reference fails in its own way; what fails is not constant
            return False
        return True

    def _is_small(self, value: ir.Value, sources: list[ir.Value]) -> bool:
        """Whether a result is not too large, as far as that is known before it is computed."""
        shape, shapes = self._static(value), [self._static(source) for source in sources]
        if shape is None:
            return True
        if math.prod(shape) * 8 > _LIMIT:
            return False
        read = sum(math.prod(one) for one in shapes if one is not None)
        return None in shapes or fits(math.prod(shape), read)

    def _rounds_alike(self, node: ir.Node) -> bool:
        """Whether every runtime quantises to the same integers, as from float32 to whole bytes."""
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        wanted = ir.DataType(integer(node, "output_dtype", 0) or ir.DataType.UINT8)
        whole = wanted if zero is None else self._dtype(zero)
        floats = [self._dtype(value) for value in node.inputs[:2] if value is not None]
        precision = ir.DataType(integer(node, "precision", 0) or ir.DataType.FLOAT)
        return {*floats, precision} == {ir.DataType.FLOAT} and whole in _WHOLE_BYTES

    def _is_total(self, node: ir.Node) -> bool:
        """Whether nothing can go wrong when a node is computed."""
        if node.op_type == "DequantizeLinear" and not integer(node, "block_size", 0):
            value = node.inputs[1]
            scale = None if value is None else self._shape(value)
            return scale is None or len(scale) < 2
        perm = integers(node, "perm") if node.op_type == "Transpose" else ()
        return node.op_type in _TOTAL and sorted(perm) == list(range(len(perm)))

    def _has_plain_steps(self, node: ir.Node) -> bool:
        """Whether there is one step, or one for each channel, with as many zero points."""
        shape, step, *zero = (self._static(value) for value in node.inputs if value is not None)
        axis = integer(node, "axis", 1)
        if shape is None or integer(node, "block_size", 0) or zero not in ([], [step]):
            return False
        along = shape[axis] if -len(shape) <= axis < len(shape) else 1
        return step in ((), (1,), (along,))

    def _to_compute(self, value: ir.Value) -> dict[ir.Value, list[ir.Value]]:
        """A constant and all that it is computed from, in the order of computing, each with what it needs."""
        order: dict[ir.Value, list[ir.Value]] = {}
        pending = [value]
        while pending:
            current = pending[-1]
            needs = [] if current in self._results else self._needs(current) or []
            unknown = [need for need in needs if need not in order]
            pending.extend(unknown)
            if not unknown:
                order.setdefault(pending.pop(), needs)
        return order

    def _read(self, value: ir.Value, found: Mapping[ir.Value, Array]) -> Array:
        if value in self._results:
            return self._results[value]
        tensor = self.stored(value)
        if tensor is not None:
            return tensor.numpy()
        node = value.producer()
        assert node is not None, "only nodes and initializers are constant"
        results = Evaluation(node, self._version(node), self._feeds(node, found)).run()
        return self._keep(node, results)[value]

    def _feeds(self, node: ir.Node, found: Mapping[ir.Value, Array]) -> dict[int, Array]:
        """What a node over constants reads."""
        feeds: dict[int, Array] = {}
        for index, source in enumerate(node.inputs):
            if source is None:
                continue
            array = self._stand_in(node, index)
            if array is None:
                array = found[source] if source in found else self.array(source)
            assert array is not None, "every input of a constant node is constant"
            feeds[index] = array
        return feeds

    def _keep(self, node: ir.Node, results: list[Array | None]) -> dict[ir.Value, Array]:
        """Keep results for those who ask again, as far as they are small or new."""
        made: dict[ir.Value, Array] = {}
        for value, result in zip(node.outputs, results, strict=True):
            if result is not None:
                made[value] = result.view()  # the array itself may be that of an initializer
                made[value].flags.writeable = False
        for value in made.keys() & self._results.keys():
            self._bytes -= self._results.pop(value).nbytes
        self._results.update(made)
        self._bytes += sum(array.nbytes for array in made.values())
        while self._bytes > _KEPT and (oldest := next(iter(self._results))) not in made:
            self._bytes -= self._results.pop(oldest).nbytes
        return made


def held(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor that a `Constant` node holds, not read yet; None for sparse ones and for any other node."""
    if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS:
        return None
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            tensor: ir.TensorProtocol = (
                attribute.value
            )  # as_tensor() compares it with a protocol, which is slow
            return tensor
        if name in ("value_float", "value_floats"):
            return ir.Tensor(np.asarray(attribute.value, np.float32))
        if name in ("value_int", "value_ints"):
            return ir.Tensor(np.asarray(attribute.value, np.int64))
    return None
