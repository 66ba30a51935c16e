"""How large a layer's weights are, channel by channel, before the fold and after it.

A fold multiplies every output channel of a weight by a different number. In floating point that costs
nothing. If a weight is quantised with one step for the whole tensor, its largest channel sets that step, and
a channel whose range is smaller by 2^b keeps b bits fewer:

    bits lost = mean over channels c of log2(max_k R_k / R_c),    R_c = max |w_c|

The same formula applies before and after the fold. Before it, the BatchNorm's scale does not count: it comes
after the quantised weight and multiplies a channel and its rounding error alike, so the precision relative to
the channel's range is that of the weight alone. After the fold the scale is in the weight, and so in R_c. A
channel of zeros is represented exactly with any step, so it is left out of the mean. (Nagel et al., "A
White Paper on Neural Network Quantization", 2021, section 3.1 shows what such channels do to MobileNets.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label, module_name
from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.ops import quantized
from bnfold.result import FoldResult
from bnfold.tensors.precision import FLOATS, SMALLEST_NORMAL

WORSE = 1.0
"""The number of bits lost by the fold from which on there is a warning."""

_BITS = 8.0
_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_Key = tuple[str, str]  # the label of a scope, the name of a node in it


@dataclass(frozen=True)
class WeightRange:
    """One weight tensor.

    Attributes:
        maxima: Largest absolute weight of every output channel, shape `(channels,)`.
        subnormals: Number of weights other than zero below the smallest normal number of their type, which
            some hardware computes slowly and other hardware flushes to zero.
    """

    maxima: tuple[float, ...]
    subnormals: int

    @property
    def zeros(self) -> int:
        """Number of channels whose weights are all zero."""
        return self.maxima.count(0.0)

    @property
    def live(self) -> tuple[float, ...]:
        """The maxima that are positive and finite, in ascending order."""
        return tuple(sorted(value for value in self.maxima if 0 < value < math.inf))

    @property
    def bits_lost(self) -> float:
        """Bits that one step for the whole tensor costs a channel on average; 0 if all ranges are equal."""
        live = np.array(self.live)
        return float(np.mean(np.minimum(np.log2(live[-1] / live), _BITS))) if live.size else 0.0


@dataclass(frozen=True)
class NodeRange:
    """The weight of one node that took a BatchNorm.

    Attributes:
        name: The PyTorch module path where the exporter kept it, otherwise the node's name.
        node: The node's name in the folded graph.
        op_type: `"Conv"`, `"ConvTranspose"`, `"Gemm"` or `"MatMul"`.
        graph: Where it is: `""` for the main graph, otherwise the function or subgraph.
        type: Type of the weight, as `"float32"`.
        before: The weight in the original; None for a convolution that was merged from several branches, and
            if the original has no node of this name.
        after: The weight in the folded model.
    """

    name: str
    node: str
    op_type: str
    graph: str
    type: str
    before: WeightRange | None
    after: WeightRange

    @property
    def extra_bits(self) -> float | None:
        """How many more bits a per-tensor step costs after the fold; below 0 it costs fewer."""
        return None if self.before is None else self.after.bits_lost - self.before.bits_lost

    @property
    def worse(self) -> bool:
        """Whether the fold makes per-tensor quantisation of this weight notably worse."""
        return self.extra_bits is not None and self.extra_bits >= WORSE


@dataclass(frozen=True)
class Loss:
    """What one step for a whole weight costs a layer.

    Attributes:
        layer: The PyTorch module path where the exporter kept it, otherwise the node's name.
        operator: Its operator.
        bits: Bits that it costs an output channel on average, at most 8.
        channels: How many output channels there are.
    """

    layer: str
    operator: str
    bits: float
    channels: int


def losses(facts: Facts, least: float = WORSE) -> tuple[Loss, ...]:
    """List the layers that lose at least so many bits with one step a weight, the worst first.

    One weight is read at a time. Weights that are quantised already are left out.
    """
    found = []
    for _, node in _linear(facts.model):
        weight = _measure(node, facts)
        if weight is not None and weight.bits_lost >= least:
            found.append(Loss(module_name(node), node.op_type, weight.bits_lost, len(weight.maxima)))
    return tuple(sorted(found, key=lambda one: -one.bits))


def ranges(original: ir.Model, folded: ir.Model, result: FoldResult[ir.Model]) -> tuple[NodeRange, ...]:
    """Measure every weight that took a BatchNorm, in the order of the folded graph.

    One weight is read at a time. Weights after a DequantizeLinear are left out: their integers do not change,
    only their scales do.

    Args:
        original: The model before the fold.
        folded: The model after it.
        result: The result of the fold, which names the nodes.
    """
    from bnfold.runtime.interface import dtype_name  # a fold alone does without the runtime's modules

    facts, facts_after = Facts(original), Facts(folded)
    before = {(graph, label(node)): node for graph, node in _linear(original)}
    places, merged = _places(result), {merge.into for merge in result.merges}
    measured = []
    for graph, node in _linear(folded):
        place = places.get((graph, module_name(node).removesuffix(".without_bias")))
        after = _measure(node, facts_after) if place is not None else None
        if place is None or after is None:
            continue
        old = before.get((graph, label(node))) or before.get((graph, place))
        measured.append(
            NodeRange(
                name=place,
                node=label(node),
                op_type=node.op_type,
                graph=graph,
                type=dtype_name(facts_after.constant_dtype(node, _weight_index(node, facts_after))),
                before=None if old is None or place in merged else _measure(old, facts),
                after=after,
            )
        )
    return tuple(measured)


def _places(result: FoldResult[ir.Model]) -> dict[_Key, str]:
    """How the nodes that took a site are named in the folded graph, with the name that the result gives.

    A node without a name goes by its output's, which may now be that of the BatchNorm that was after it, or
    end in `.without_bias` because a new Add after it has the bias.
    """
    renamed = {(site.graph, site.node): site.into[0] for site in result.sites if site.into}
    return renamed | {(site.graph, name): name for site in result.sites for name in site.into}


def _linear(model: ir.Model) -> Iterator[tuple[str, ir.Node]]:
    """Every node that may have a weight, with the label of its scope."""
    for scope in scopes(model):
        for node in scope.graph:
            if node.op_type in _OPERATORS and node.domain in ONNX_DOMAINS:
                yield scope.label, node


def _measure(node: ir.Node, facts: Facts) -> WeightRange | None:
    """The ranges of a node's weight; None where it is not a constant of a float type, or is quantised."""
    index = _weight_index(node, facts)
    if quantized.source(node, index) is not None or not facts.has_constant(node, index):
        return None
    dtype, weight = facts.constant_dtype(node, index), facts.operand(node, index)
    if weight is None or dtype not in FLOATS:
        return None
    size = np.abs(weight)
    return WeightRange(
        maxima=tuple(_by_channel(node, index, size).max(axis=1, initial=0).tolist()),
        subnormals=int(np.count_nonzero((size > 0) & (size < SMALLEST_NORMAL[dtype]))),
    )


def _weight_index(node: ir.Node, facts: Facts) -> int:
    """Which input is the weight: the second, or the first of a product with a constant on the left."""
    product = node.op_type in ("Gemm", "MatMul")
    return 0 if product and facts.has_constant(node, 0) and not facts.has_constant(node, 1) else 1


def _by_channel(node: ir.Node, index: int, weight: Array) -> Array:
    """The weight as a matrix with a row for every output channel."""
    if node.op_type == "ConvTranspose":  # [Cin, Cout/g, k…]
        groups, (cin, each) = integer(node, "group", 1), weight.shape[:2]
        return np.moveaxis(weight.reshape(groups, cin // groups, each, -1), 2, 1).reshape(groups * each, -1)
    axis = _output_axis(node, index, weight.ndim)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _output_axis(node: ir.Node, index: int, rank: int) -> int:
    if node.op_type == "Gemm":
        transposed = bool(integer(node, "transB" if index else "transA", 0))
        return 0 if bool(index) == transposed else 1
    if node.op_type == "MatMul":
        return rank - 1 if index == 1 else rank - 2
    return 0
