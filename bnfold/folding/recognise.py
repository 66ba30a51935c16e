"""Recognising what can be folded: BatchNormalization, and arithmetic with constants that amounts to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, label, name_of
from bnfold.graph.scopes import ONNX_DOMAINS, Scope
from bnfold.ops import batchnorm
from bnfold.ops.linear import weight_shape
from bnfold.reasons import Reason, Situation
from bnfold.tensors.precision import FLOATS

DATA_NORMS = frozenset(
    {"InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"}
)
_MARGIN = 64.0  # terms that cancel are larger than their sum
_LARGEST = 65504.0  # of float16
_CARRIED = 8.0  # a shift that a stream carries may be this many times what a BatchNorm knows of its values
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
_IDENTITY = Affine()
_STEPS = 32  # from an input of the model to what is done to it
# what is done to images, sound and tables before they are normalised
_ON_THE_WAY = _ARITHMETIC | {
    *("Cast", "CastLike", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
    *("Resize", "Upsample", "Pad", "Slice", "Gather", "Clip"),
}


@dataclass(frozen=True)
class Link:
    """One node of a chain: the map that it is, and which of its inputs the map acts on."""

    node: ir.Node
    affine: Affine
    data: int


@dataclass(frozen=True)
class Chain:
    """Successive affine nodes, each the only reader of the one before for whom its numbers matter.

    Attributes:
        links: The nodes in order, at least one.
        affine: Their composition, from the first's data input to the last's output.
    """

    links: tuple[Link, ...]
    affine: Affine

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes in order."""
        return tuple(link.node for link in self.links)

    @property
    def source(self) -> ir.Value:
        """The value that the chain reads."""
        value = self.links[0].node.inputs[self.links[0].data]
        assert value is not None, "an affine node has a data input"
        return value

    @property
    def result(self) -> ir.Value:
        """The value that the chain gives."""
        return self.links[-1].node.outputs[0]

    @cached_property
    def batchnorms(self) -> tuple[ir.Node, ...]:
        """Its BatchNormalization nodes."""
        return tuple(node for node in self.nodes if is_batchnorm(node))

    @property
    def normalises(self) -> bool:
        """Whether it is a BatchNorm by name or by nature: a scale that differs between channels."""
        return bool(self.batchnorms) or bool(self.affine.scale_axes)


def is_batchnorm(node: ir.Node) -> bool:
    """Whether a node is ONNX's BatchNormalization."""
    return node.op_type == "BatchNormalization" and node.domain in ONNX_DOMAINS


def chains(scope: Scope, facts: Facts, barred: Collection[ir.Node]) -> Iterator[Chain]:
    """The maximal chains of a scope, in graph order, each composed only when it is asked for.

    Args:
        scope: Where to look.
        facts: What is known of the model, with what BatchNorms have absorbed so far.
        barred: Nodes that take no part.
    """
    seen: set[ir.Node] = set()
    for node in tuple(scope.graph):
        if node in seen or node in barred or node.graph is None:
            continue
        links: list[Link] = []
        link = link_of(node, facts)
        affine = _IDENTITY
        while isinstance(link, Link):
            longer = affine.then(facts.composed(link.node, link.affine))
            if links and len(longer.axes) > 1:
                break  # no operator takes one that varies along two axes; each of its parts may still go
            affine = longer
            links.append(link)
            seen.add(link.node)
            link = _next(link, facts, barred)
        if links:
            yield Chain(tuple(links), affine)


def link_of(node: ir.Node, facts: Facts) -> Link | Reason | None:
    """The map that a node is; the reason where a BatchNorm is not one; None for anything else."""
    if is_batchnorm(node):
        affine = batchnorm.affine_of(node, facts)
        return affine if isinstance(affine, Reason) else Link(node, affine, 0)
    if node.op_type not in _ARITHMETIC or node.domain not in ONNX_DOMAINS:
        return None
    constants = [index for index in (0, 1) if facts.has_constant(node, index)]
    if len(constants) != 1:
        return None
    [index] = constants
    affine_or_none = _arithmetic(node, index, facts)
    return None if affine_or_none is None else Link(node, affine_or_none, 1 - index)


def has_ample_range(chain: Chain, facts: Facts) -> bool:
    """Whether float16 has room for what a chain makes of the terms that its input is the sum of.

    A BatchNorm knows the mean μ and the deviation σ of what it reads, and terms are of that size unless they
    cancel. With a margin of 64 for those that do, `|s|·64·(|μ| + σ) + |t|` has to be within the type.
    """
    bounds = []
    for node in chain.batchnorms:
        mean, variance = facts.operand(node, 3), facts.operand(node, 4)
        if mean is None or variance is None:
            return False
        size = _MARGIN * (np.abs(mean).max() + np.sqrt(variance.max()))
        bounds.append(float(np.abs(chain.affine.scale).max() * size + np.abs(chain.affine.shift).max()))
    return bool(bounds) and max(bounds) < _LARGEST


@dataclass(frozen=True)
class Carried:
    """A BatchNorm of a stream, split: `s·x + t = s·(x + t/s)`, where the stream carries `x + t/s`.

    Attributes:
        back: The shift, which the stream takes.
        on: The scale without its signs, which the readers of the BatchNorm take.
    """

    back: Affine
    on: Affine


def carried(chain: Chain, facts: Facts) -> Carried | None:
    """Split a BatchNorm whose input is a stream: the sum that residual branches read and add to.

    Returns:
        None for a chain that does not start with a BatchNorm, has no shift, or is in half precision, where
        there are no digits to spare.
    """
    first, whole = chain.nodes[0], chain.affine
    if not is_batchnorm(first) or facts.dtype(chain.source) not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    if not whole.has_shift or not whole.axes <= {1} or len(weight_shape(first, 4, facts)) != 1:
        return None
    divisor = np.where(whole.scale == 0.0, 1.0, whole.scale)
    return Carried(Affine(1.0, whole.shift / divisor), Affine(np.abs(divisor)))


def stream_obstacle(chain: Chain, facts: Facts) -> Reason | None:
    """Why a chain that `carried` can split must not be split all the same.

    Only a positive scale passes an activation. Over the reals a stream may carry any shift; in floats one
    that is far larger than the values costs them digits. So `|t/s|` may be at most `_CARRIED` times
    `|μ| + σ`, channel by channel.
    """
    first = chain.nodes[0]
    mean, variance = facts.operand(first, 3), facts.operand(first, 4)
    assert mean is not None, "the parameters of a link are constant"
    assert variance is not None, "the parameters of a link are constant"
    scale, shift = chain.affine.vectors(1, variance.size)
    if count := np.count_nonzero(scale <= 0.0):
        return reasons.STREAM_SIGN(node=label(first), count=count)
    if first in facts.folds:  # it will be written with μ = 0, and must be judged as it would be then
        mean = np.zeros_like(mean)
    size = np.abs(mean) + np.sqrt(variance)
    moved = np.abs(shift / scale)
    if np.all(moved <= _CARRIED * size):
        return None
    factor = f"{np.max(moved / np.maximum(size, np.finfo(np.float64).tiny)):.3g}"
    return reasons.STREAM_SHIFT(node=label(first), value=name_of(chain.source), factor=factor)


def situation(chain: Chain, facts: Facts) -> Situation:
    """What a chain is to the user: a BatchNorm, arithmetic, or arithmetic on an input of the model."""
    if chain.batchnorms:
        return Situation.BATCHNORM
    return Situation.PREPROCESSING if is_preprocessing(chain, facts) else Situation.ARITHMETIC


def is_preprocessing(chain: Chain, facts: Facts) -> bool:
    """Whether a chain acts on an input of the model, up to a change of its layout or size."""
    value: ir.Value | None = chain.source
    for _ in range(_STEPS):
        node = None if value is None else value.producer()
        if node is None:
            return value is not None and value.is_graph_input()
        if node.op_type not in _ON_THE_WAY:
            return False
        value = next((one for one in node.inputs if not facts.constants.has(one)), None)
    return False


def data_norm(node: ir.Node) -> Reason | None:
    """The reason for a normalisation whose statistics come from the data; None for any other node."""
    if node.op_type in DATA_NORMS and node.domain in ONNX_DOMAINS:
        return reasons.DATA_STATISTICS(node=label(node), operator=node.op_type)
    return None


def _next(link: Link, facts: Facts, barred: Collection[ir.Node]) -> Link | None:
    output = link.node.outputs[0]
    uses = facts.readers(output)
    if output.is_graph_output() or len(uses) != 1:
        return None
    [(reader, index)] = uses
    if reader.graph is not link.node.graph or reader in barred:
        return None
    following = link_of(reader, facts)
    return following if isinstance(following, Link) and following.data == index else None


def _arithmetic(node: ir.Node, index: int, facts: Facts) -> Affine | None:
    """`x ∘ c` for a constant c that is one number, or varies along one axis that x provably has."""
    source, output = node.inputs[1 - index], node.outputs[0]
    if facts.dtype(source) not in FLOATS or caller_problem(node) is not None:
        return None
    if "broadcast" in node.attributes or "axis" in node.attributes:
        return None  # before version 7 these stated how to broadcast
    constant = facts.operand(node, index)
    if constant is None or not np.all(np.isfinite(constant)):
        return None
    shape, rank = facts.shape(source), facts.rank(output)
    if shape is None or rank is None:
        aligned = constant if constant.ndim == 0 else None
    else:
        aligned = _aligned(constant, shape, rank)
    if aligned is None:
        return None
    affine = _map(node.op_type, index, aligned)
    return affine if affine is not None and len(affine.axes) <= 1 and affine.is_finite else None


def _aligned(constant: Array, shape: tuple[object, ...], rank: int) -> Array | None:
    """The constant in x's axes; None where it would make the result larger than x, or might."""
    if rank != len(shape) or constant.ndim > rank:
        return None
    aligned = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    fits = all(size in (1, dim) for size, dim in zip(aligned.shape, shape, strict=True))
    return aligned if fits else None


def _map(op_type: str, index: int, c: Array) -> Affine | None:
    if op_type == "Mul":
        return Affine(c)
    if op_type == "Add":
        return Affine(1.0, c)
    if op_type == "Sub":
        return Affine(1.0, -c) if index == 1 else Affine(-1.0, c)
    return Affine(1.0 / c) if index == 1 and np.all(c != 0) else None
