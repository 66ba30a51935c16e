"""Evaluating one node with the reference implementation of ONNX, in the types that the graph states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.graph.nodes import caller_problem, integer, text
from bnfold.graph.operators import ARRANGING, ELEMENTWISE, REDUCTIONS
from bnfold.graph.scopes import ONNX_DOMAINS, subgraphs

Array = npt.NDArray[np.generic]
Feeds = Mapping[int, Array]
"""What a node reads, by the number of the input."""

# What draws numbers, or takes and gives what is not a tensor of numbers
_NEVER = frozenset(
    """
    Bernoulli ConcatFromSequence ImageDecoder Multinomial Optional OptionalGetElement OptionalHasElement
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike RegexFullMatch SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence StringConcat
    StringNormalizer StringSplit TfIdfVectorizer
    """.split()  # noqa: SIM905 - a list of strings would be 23 lines long
)
# The reference has the earlier meanings of these too, from these versions on. Before, types had names, shapes
# were attributes, or broadcasting was set by attributes. It computes others as their latest version does.
_SINCE = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Shape", "Slice", "Squeeze", "TopK", "Unsqueeze", *REDUCTIONS), 1),
    **dict.fromkeys(("Pad", "Split"), 2),
    "Reshape": 5,
    **dict.fromkeys(("Cast", "Clip"), 6),
    **dict.fromkeys(("Dropout", "Gemm", "SpaceToDepth"), 7),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), 10),
    **dict.fromkeys(("GatherND", "Range", "ScatterElements", "ScatterND"), 11),
    "BatchNormalization": 14,
    "CastLike": 15,
    "Attention": 23,
}
_IMPLEMENTED = {"DequantizeLinear": 19}  # this version includes what the older ones do
_AS_FIRST = frozenset({"GroupNormalization", "MeanVarianceNormalization"})  # inference stumbles over these
_SIFTING = frozenset({"Compress", "NonZero", "Unique"})  # as many elements as are found
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_FAST = (
    ELEMENTWISE
    | REDUCTIONS
    | ARRANGING
    | frozenset(
        """
        ArgMax ArgMin BatchNormalization Concat CumSum Dropout GlobalAveragePool GlobalMaxPool
        GroupNormalization Hardmax InstanceNormalization LayerNormalization LogSoftmax LpNormalization
        MeanVarianceNormalization OneHot RMSNormalization Range ScatterElements ScatterND Softmax TopK
        """.split()  # noqa: SIM905 - a list of strings would be 22 lines long
    )
)
"""What the reference computes with a few calls of NumPy; for others it loops, or attributes set the cost."""

_GROWTH, _FREE, _LARGEST = 16, 1 << 24, 1 << 26  # elements that a result may have
_SLOW, _SLOW_FACTOR = 1 << 14, 1 << 13  # elements of what is not fast, and how much slower it is
_PRODUCT_GAIN = 64  # how much faster a product of matrices is, for its operations
_MOST_WORK = 1 << 30  # operations of one node


def is_evaluable(node: ir.Node, version: int) -> bool:
    """Whether a node gives the same for the same inputs, and the reference knows its version.

    Args:
        node: Any node.
        version: The version of ONNX's operator set that it is written for.
    """
    if node.domain not in ONNX_DOMAINS or not _is_implemented(node.op_type, version):
        return False
    if node.op_type == "Dropout" and any(value is not None for value in node.inputs[2:]):
        return False  # it may be in training mode, and drop at random
    if text(node, "coordinate_transformation_mode", "") == "align_corners":
        return False  # runtimes disagree on it where sizes follow from scales
    return caller_problem(node) is None and not any(subgraphs(one) for one in node.attributes.values())


@lru_cache(maxsize=2**12)
def _is_implemented(kind: str, version: int) -> bool:
    if kind in _NEVER:
        return False
    if kind in _SINCE:
        return version >= _SINCE[kind]
    newest = onnx.defs.onnx_opset_version()
    try:
        schema, latest = (onnx.defs.get_schema(kind, number, "") for number in (version, newest))
    except onnx.defs.SchemaError:
        return False
    return version >= 7 and _signature(schema) == _signature(latest)  # earlier ones broadcast by other rules


def _signature(schema: onnx.defs.OpSchema) -> object:
    """What differs where two versions mean something else."""
    attributes = [(one.name, one.type, str(one.default_value)) for one in schema.attributes.values()]
    return attributes, *([(p.name, p.option) for p in side] for side in (schema.inputs, schema.outputs))


def fits(written: int, read: int) -> bool:
    """Whether a result is not much larger than what it is computed from, in elements."""
    return written <= max(read, min(_GROWTH * read + _FREE, _LARGEST))


class Evaluation:
    """One node with what it reads.

    Args:
        node: The node.
        version: The version of ONNX's operator set that it is written for.
        feeds: What it reads.
    """

    def __init__(self, node: ir.Node, version: int, feeds: Feeds) -> None:
        self._node = node
        self._feeds = {f"i{index}": array for index, array in feeds.items()}
        self._names = [f"o{index}" for index in range(len(node.outputs))]
        proto = ir.to_proto(node)
        del proto.input[:], proto.output[:]
        proto.input.extend("" if value is None else f"i{i}" for i, value in enumerate(node.inputs))
        given = zip(self._names, node.outputs, strict=True)
        proto.output.extend(name if output.name else "" for name, output in given)
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
        graph = onnx.helper.make_graph([proto], "constant", _declared(self._feeds), results)
        opset = onnx.helper.make_opsetid("", max(version, _IMPLEMENTED.get(node.op_type, 1)))
        self._model = onnx.helper.make_model(graph, opset_imports=[opset])

    def work(self) -> int | None:
        """About how many operations it takes; None where that, or the result, would be too much."""
        if any(array.dtype.kind not in "biufcV" for array in self._feeds.values()):
            return None
        kind, read = self._node.op_type, sum(array.size for array in self._feeds.values())
        sizes = self._sizes()
        written = sum(size for size in sizes if size is not None)
        if (None in sizes and kind not in _SIFTING) or not fits(written, read):
            return None
        if kind in _FAST:
            return read + written
        is_modest = max(self._settings(), default=0) <= _SLOW
        if kind in _PRODUCTS and self._feeds["i0"].dtype.kind == "f" and is_modest:
            work = max(read + written, written * self._products() // _PRODUCT_GAIN)
            return work if work <= _MOST_WORK else None
        apart = math.prod(max(array.size, 1) for array in self._feeds.values())
        is_small = read + written <= _SLOW and apart <= _MOST_WORK
        return (read + written) * _SLOW_FACTOR if is_small and is_modest else None

    def _settings(self) -> list[int]:
        """The products of the whole numbers in each attribute, as of a window's size or of pads."""
        return [
            math.prod(1 + abs(int(number)) for number in np.ravel(attribute.value))
            for attribute in self._node.attributes.values()
            if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS)
        ]

    def _products(self) -> int:
        """How many numbers are multiplied for each element of a product."""
        left, right = self._feeds["i0"], self._feeds["i1"]
        if self._node.op_type == "Conv":
            return int(right.size // max(right.shape[0], 1))
        contracted = 0 if integer(self._node, "transA", 0) else -1
        return int(left.shape[contracted]) if left.ndim else 1

    def _sizes(self) -> Sequence[int | None]:
        """The number of elements of each output; None where inference does not know it."""
        if self._node.op_type in _AS_FIRST:
            return [self._feeds["i0"].size]
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for name, array in self._feeds.items():
            if array.size <= 1000:  # it may decide a shape
                tensor = ir.serde.serialize_tensor(ir.Tensor(array, name=name))
                model.graph.initializer.append(tensor)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        found = {info.name: info.type.tensor_type for info in (*inferred.value_info, *inferred.output)}
        return [
            _size(found[name]) if name in found else None
            for name, output in zip(self._names, self._node.outputs, strict=True)
            if output.name
        ]

    def run(self) -> list[Array | None]:
        """What each output is; None where it is left out.

        Raises:
            Exception: Each operator of the reference fails in its own way.
        """
        # onnx.reference takes a third of a second to import; most models never need it
        from onnx.reference import ReferenceEvaluator

        wanted = [name for name, one in zip(self._names, self._node.outputs, strict=True) if one.name]
        with np.errstate(all="ignore"):  # an infinity is a result like any other
            results = dict(zip(wanted, ReferenceEvaluator(self._model).run(wanted, self._feeds), strict=True))
        if not all(isinstance(result, (np.ndarray, np.generic)) for result in results.values()):
            raise TypeError("only tensors are constants")
        return [np.asarray(results[name]) if name in results else None for name in self._names]


def _size(kind: onnx.TypeProto.Tensor) -> int | None:
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return math.prod(int(dim.dim_value) for dim in kind.shape.dim)


def _declared(feeds: Mapping[str, Array]) -> list[onnx.ValueInfoProto]:
    return [
        onnx.helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(array.dtype)), array.shape)
        for name, array in feeds.items()
    ]
