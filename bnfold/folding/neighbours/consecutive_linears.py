"""Two linear layers in a row become one, where that needs no more of anything.

`(x·A + a)·B + b = x·(A·B) + (a·B + b)`, for Gemm and for MatMul with the Add of its bias. A bottleneck, such
as the low-rank update of a weight, stays: K·N numbers are to be no more than K·M + M·N.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnfold.algebra import matmul
from bnfold.algebra.affine import Affine, Array
from bnfold.folding.neighbours.base import (
    MOST_ELEMENTS,
    MOST_WORK,
    Joined,
    before,
    can_be_multiplied,
    fit,
    is_read_alone,
)
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts, Folds
from bnfold.graph.nodes import caller_problem, integer, label, real
from bnfold.ops.linear import bias_problem, constant_problem, weight_shape
from bnfold.ops.matmul import bias_add

_LAYERS = ("Gemm", "MatMul")
_BROADCASTS = 7  # since this version a bias broadcasts by itself
_WITHOUT_BIAS = 11  # since this version Gemm needs none


def join(node: ir.Node, facts: Facts, editor: Editor, whole: Collection[ir.Node]) -> Joined | None:
    """Let a layer take the layer before it; see [`Joining`][bnfold.folding.neighbours.base.Joining]."""
    first = _layer_before(node, facts, whole)
    if first is None or not _may_change(node, facts):
        return None
    dtype = facts.constant_dtype(node, 1)
    if facts.constant_dtype(first.node, 1) != dtype or not _pays(first, node, facts):
        return None
    form, source = _form(first, facts), first.node.inputs[0]
    if form is None or source is None or not np.all(np.isfinite(_matrix(node, facts))):
        return None
    plain, folds = _matrix(node, facts), _folds(node, facts)
    scale, shift = folds.inward.vectors(_last_axis(node, facts), len(plain))
    weight = matmul.product(form[0] * scale, plain)
    bias = _alpha(node) * matmul.product(form[1] * scale + shift, plain)
    folds = Folds(Affine(), Affine.along(_last_axis(node, facts), 1.0, bias).then(folds.outward))
    if not fit(node, (weight, folds.outward.shift), dtype):
        return None
    if folds.outward.has_shift and not _give_place(node, first, facts, whole):
        return None
    _write(node, weight, folds, facts, editor)
    node.replace_input_with(0, source)
    for gone in reversed(first.nodes):
        editor.release(gone)
    return Joined(node, first.nodes)


@dataclass(frozen=True)
class _Layer:
    """A layer with the Add or Sub that gives its bias, if it has one, and which input of that the bias is."""

    node: ir.Node
    add: ir.Node | None = None
    index: int = 0

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return (self.node,) if self.add is None else (self.node, self.add)


def _layer_before(node: ir.Node, facts: Facts, whole: Collection[ir.Node]) -> _Layer | None:
    maker = before(node, (*_LAYERS, "Add", "Sub"), whole)
    if maker is None or maker.op_type in _LAYERS:
        return _Layer(maker) if maker is not None and _may_change(maker, facts) else None
    value = next((value for value in maker.inputs if not facts.constants.has(value)), None)
    layer = value.producer() if value is not None else None
    if layer is None or layer.op_type != "MatMul" or layer in whole or not _may_change(layer, facts):
        return None
    found = bias_add(layer, facts)
    # a constant minus the product is another map
    if found is None or found[0] is not maker or (maker.op_type == "Sub" and found[1] == 0):
        return None
    if not is_read_alone(layer.outputs[0], maker):
        return None
    return _Layer(layer, *found)


def _may_change(node: ir.Node, facts: Facts) -> bool:
    """Whether a layer multiplies vectors along the last axis by a matrix of its own, and all is known."""
    if caller_problem(node) is not None or facts.version(node) < _BROADCASTS or integer(node, "transA", 0):
        return False
    if constant_problem(node, 1, facts) is not None or not can_be_multiplied(node, facts):
        return False
    rank = facts.rank(node.inputs[0])
    if rank is None or rank < 2 or facts.rank(node.outputs[0]) != rank:
        return False
    folds = _folds(node, facts)
    if len(weight_shape(node, 1, facts)) != 2 or not (folds.inward.axes | folds.outward.axes) <= {rank - 1}:
        return False
    return node.op_type == "MatMul" or bias_problem(node, 2, facts) is None


def _folds(node: ir.Node, facts: Facts) -> Folds:
    return facts.folds.get(node, NO_FOLDS)


def _last_axis(node: ir.Node, facts: Facts) -> int:
    rank = facts.rank(node.outputs[0])
    assert rank is not None, "asked about a layer of known rank"
    return rank - 1


def _alpha(node: ir.Node) -> float:
    return real(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0


def _matrix(node: ir.Node, facts: Facts) -> Array:
    """The weight of shape `(K, N)`, without what the layer has absorbed."""
    weight = facts.operand(node, 1)
    assert weight is not None, "the weight is constant"
    return weight.T if _is_transposed(node) else weight


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and integer(node, "transB", 0) != 0


def _pays(first: _Layer, second: ir.Node, facts: Facts) -> bool:
    """Whether one layer has no more weights than both, biases included; so many multiply-adds take a row."""
    shapes = [weight_shape(node, 1, facts) for node in (first.node, second)]
    (taken, middle), (given, out) = (
        shape[::-1] if _is_transposed(node) else shape
        for shape, node in zip(shapes, (first.node, second), strict=True)
    )
    size, sizes = taken * out, (taken * middle, middle * out)
    if middle != given or max(size, *sizes) > MOST_ELEMENTS or size * middle > MOST_WORK:
        return False
    before = middle if first.add is not None or _has_bias(first.node, facts) else 0
    after = out if bias_add(second, facts) is not None or _has_bias(second, facts) else 0
    return size + (out if before or after else 0) <= sum(sizes) + before + after


def _has_bias(node: ir.Node, facts: Facts) -> bool:
    folds = _folds(node, facts)
    return facts.has_constant(node, 2) or folds.inward.has_shift or folds.outward.has_shift


def _form(layer: _Layer, facts: Facts) -> tuple[Array, Array] | None:
    """The matrix and the bias, shape `(M,)`, with all that was absorbed; None where that is not a vector."""
    node, plain, folds = layer.node, _matrix(layer.node, facts), _folds(layer.node, facts)
    axis = _last_axis(node, facts)
    scale_in, shift_in = folds.inward.vectors(axis, plain.shape[0])
    scale, shift = folds.outward.vectors(axis, plain.shape[1])
    beta = real(node, "beta", 1.0) if node.op_type == "Gemm" else 0.0
    own = _vector(facts.operand(node, 2) if beta else None, plain.shape[1], axis)
    added = _vector(
        None if layer.add is None else facts.operand(layer.add, layer.index), plain.shape[1], axis
    )
    if own is None or added is None or not np.all(np.isfinite(plain)):
        return None
    bias = beta * own + _alpha(node) * matmul.product(shift_in, plain)
    sign = -1.0 if layer.add is not None and layer.add.op_type == "Sub" else 1.0
    return _alpha(node) * scale_in[:, None] * plain * scale, scale * bias + shift + sign * added


def _vector(array: Array | None, size: int, axis: int) -> Array | None:
    """A bias as one number for each element of a vector; None where it differs between vectors."""
    if array is None:
        return np.zeros(size)
    fits = array.ndim <= axis + 1 and array.size in (1, size) and array.size == math.prod(array.shape[-1:])
    return np.broadcast_to(array.reshape(-1), (size,)) if fits else None


def _give_place(node: ir.Node, first: _Layer, facts: Facts, whole: Collection[ir.Node]) -> bool:
    """Whether a bias has a place without as many new nodes as go; a MatMul of matrices may become a Gemm."""
    if node.op_type == "Gemm":
        return True
    found = bias_add(node, facts)
    if found is not None:
        return found[0] not in whole
    absorbed = any(one.op_type == "MatMul" and _has_bias(one, facts) for one in (first.node, node))
    if len(first.nodes) > 1 or absorbed:
        return True  # an Add goes, or one of them is to get an Add anyhow, for what it has absorbed
    if _last_axis(node, facts) != 1 or facts.version(node) < _WITHOUT_BIAS:
        return False
    node.op_type = "Gemm"
    return True


def _write(node: ir.Node, weight: Array, folds: Folds, facts: Facts, editor: Editor) -> None:
    stored = np.ascontiguousarray(weight.T) if _is_transposed(node) else weight
    dtype = facts.constant_dtype(node, 1)
    editor.set_input(node, 1, stored, dtype, f"{label(node)}.weight")
    facts.edited[node, 1] = stored  # unrounded, for the folds to come
    facts.folds[node] = folds
