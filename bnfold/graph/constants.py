"""What evaluates to a constant: initializers, `Constant` nodes, and small subgraphs over them.

Exporters leave `Transpose(weight)`, `Unsqueeze(bias)` or `Expand(CastLike(0), Shape(weight))` where others
write an initializer. They are evaluated with the reference implementation of ONNX, in the types that the
graph states, so that a folded weight starts from the very numbers that the original would have used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.graph.nodes import caller_problem
from bnfold.graph.scopes import ONNX_DOMAINS

# Deterministic operators whose output depends on nothing but their inputs. Others are never constant.
_FOLDABLE = frozenset(
    """
    Abs Add Cast CastLike Concat ConstantOfShape DequantizeLinear Div Expand Flatten Gather Identity Mul Neg
    Pow Reciprocal Reshape Shape Size Slice Split Sqrt Squeeze Sub Tile Transpose Unsqueeze
    """.split()  # noqa: SIM905 - a list of strings would be twenty-six lines long
)
# Earlier versions meant something else: broadcasting set by attributes, types by name, shapes by attributes.
_SINCE = {"Add": 7, "Sub": 7, "Mul": 7, "Div": 7, "Pow": 7, "Cast": 6, "Reshape": 5, "Split": 2}
# What cannot fail on inputs of the right type. Others can, and where control flow never comes, valid models
# may hold them: an index out of range in a branch that is not taken.
_TOTAL = frozenset(
    {"Abs", "Cast", "CastLike", "Constant", "DequantizeLinear", "Identity", "Neg", "Transpose"}
)
# The reference has no older implementation of these, and the newer versions include what the older ones do.
_IMPLEMENTED = {"DequantizeLinear": 19}
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
    """

    def __init__(
        self,
        ir_version: int,
        shape: Callable[[ir.Value], tuple[object, ...] | None],
        version: Callable[[ir.Node], int],
    ) -> None:
        self._overridable = ir_version >= 4
        self._shape = shape
        self._version = version
        self._known: dict[ir.Value, bool] = {}

    def is_overridable(self, value: ir.Value) -> bool:
        """Whether the value is an initializer that a caller may replace at run time."""
        return self._overridable and value.is_initializer() and value.is_graph_input()

    def has(self, value: ir.Value | None) -> bool:
        """Whether the value is constant; initializers, and what cannot fail over them, are not read."""
        if value is None:
            return False
        if value not in self._known:
            self._known[value] = self._decide(value)
        return self._known[value]

    def array(self, value: ir.Value | None) -> npt.NDArray[np.generic] | None:
        """The constant's elements, in its own type, or None where the value is not constant."""
        if value is None or not self.has(value):
            return None
        tensor = self.stored(value)
        if tensor is not None:
            return tensor.numpy()
        node = value.producer()
        assert node is not None, "only nodes and initializers are constant"
        return self._evaluate(node, value)

    def stored(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor that holds a constant, not read yet; None where it is computed, or no tensor at all."""
        node = value.producer()
        return initializer(value, overridable=self._overridable) if node is None else held(node)

    def _decide(self, value: ir.Value) -> bool:
        pending = [value]
        while pending:
            current = pending[-1]
            needs = self._needs(current)
            unknown = [] if needs is None else [need for need in needs if need not in self._known]
            if unknown:
                pending.extend(unknown)
                continue
            constant = needs is not None and all(self._known[need] for need in needs)
            self._known[current] = constant and self._can_be_evaluated(current)
            pending.pop()
        return self._known[value]

    def _can_be_evaluated(self, value: ir.Value) -> bool:
        node = value.producer()
        if node is None or node.op_type in _TOTAL:
            return True
        try:
            self._evaluate(node, value)
        except Exception:  # each operator of the reference fails in its own way; what fails is not constant
            return False
        return True

    def _needs(self, value: ir.Value) -> list[ir.Value] | None:
        """The values that must be constant for this one to be so; None where it cannot be."""
        if initializer(value, overridable=self._overridable) is not None:
            return []
        node = value.producer()
        if node is None or not self._is_evaluable(node) or not self._is_small(value):
            return None
        if node.op_type == "Constant":
            return [] if held(node) is not None else None
        if node.op_type in ("Shape", "Size") and self._static_shape(node) is not None:
            return []
        sources = [source for source in node.inputs if source is not None]
        # a quantised weight keeps its integers, which it cannot if further arithmetic follows
        quantised = any(getattr(source.producer(), "op_type", "") == "DequantizeLinear" for source in sources)
        return None if quantised else sources

    def _is_evaluable(self, node: ir.Node) -> bool:
        known = node.op_type == "Constant" or node.op_type in _FOLDABLE
        standard = node.domain in ONNX_DOMAINS and self._version(node) >= _SINCE.get(node.op_type, 1)
        return known and standard and caller_problem(node) is None

    def _is_small(self, value: ir.Value) -> bool:
        shape = self._shape(value)
        if shape is None or not all(isinstance(dim, int) for dim in shape):
            return True
        return math.prod(dim for dim in shape if isinstance(dim, int)) * 8 <= _LIMIT

    def _static_shape(self, node: ir.Node) -> tuple[int, ...] | None:
        source = node.inputs[0]
        shape = self._shape(source) if source is not None else None
        if shape is None or not all(isinstance(dim, int) for dim in shape):
            return None
        return tuple(dim for dim in shape if isinstance(dim, int))

    def _evaluate(self, node: ir.Node, value: ir.Value) -> npt.NDArray[np.generic]:
        # onnx.reference takes a third of a second to import; most models never need it
        from onnx.reference import ReferenceEvaluator

        feeds: dict[str, npt.NDArray[np.generic]] = {}
        names: list[str] = []
        for index, source in enumerate(node.inputs):
            names.append("" if source is None else f"i{index}")
            if source is None:
                continue
            shape = self._static_shape(node) if node.op_type in ("Shape", "Size") else None
            array = np.empty(shape, np.bool_) if shape is not None else self.array(source)
            assert array is not None, "every input of a constant node is constant"
            feeds[f"i{index}"] = array
        name = value.name or ""
        proto = ir.to_proto(node)
        del proto.input[:]
        proto.input.extend(names)
        graph = onnx.helper.make_graph([proto], "constant", _declared(feeds), [_untyped(name)])
        version = max(self._version(node), _IMPLEMENTED.get(node.op_type, 1))
        opset = onnx.helper.make_opsetid("", version)
        model = onnx.helper.make_model(graph, opset_imports=[opset])
        with np.errstate(all="ignore"):  # an infinity is a result like any other
            results = list(ReferenceEvaluator(model).run([name], feeds))
        return np.asarray(results[0])


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


def _declared(feeds: dict[str, npt.NDArray[np.generic]]) -> list[onnx.ValueInfoProto]:
    return [
        onnx.helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(array.dtype)), array.shape)
        for name, array in feeds.items()
    ]


def _untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_empty_tensor_value_info(name)
