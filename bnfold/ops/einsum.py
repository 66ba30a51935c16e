"""Einsum of a value and a constant, where it is a product of matrices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts, Folds
from bnfold.graph.nodes import label, text
from bnfold.ops.base import Absorb, Answer, unknown_shape, wrong_axis
from bnfold.ops.linear import Weighted, constant_problem, demand_finite, weight_shape, write_weight
from bnfold.ops.matmul import bias_add, write_bias_add
from bnfold.reasons import Reason


class _Product(NamedTuple):
    """An equation of two terms, each a letter for each axis.

    Attributes:
        weight: Which input is the constant.
        constant: The letters of the constant.
        value: Those of the other input.
        output: Those of the output.
    """

    weight: int
    constant: str
    value: str
    output: str

    @property
    def contracted(self) -> str:
        """The letters that are summed over, all of which both inputs have."""
        return "".join(letter for letter in self.constant if letter not in self.output)


class Einsum(Weighted):
    """Einsum, `Y = Σ X·W`, whose every letter is in at least two of X, W and Y.

    Output: `s·Y + t`: s along the axes that W and Y share; t becomes a bias Add after it.
    Input: `Σ (s·X + t)·W`: s along the axes that W and X share; `Σ t·W` goes into the bias Add after it.
    """

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the constant, shift the output."""
        del index
        product = _product(node, facts)
        if isinstance(product, Reason):
            return product
        problem = _problem(node, product, product.output, affine.only_scale, facts)
        step = Absorb("output", affine, inserts=affine.has_shift)
        return problem or self.absorb(node, product.weight, step, facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the constant, shift the output by what the shift gives."""
        product = _product(node, facts)
        if isinstance(product, Reason):
            return product
        problem = _problem(node, product, product.value, affine, facts)
        if problem is None and affine.has_shift and not _counts(node, product, facts):
            problem = unknown_shape(node, node.inputs[index])
        step = Absorb("input", affine, inserts=affine.has_shift and bias_add(node, facts) is None)
        return problem or self.absorb(node, product.weight, step, facts)

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scales of both sides over the constant's axes."""
        product = _planned(node, facts)
        outward, _ = folds.outward.padded(len(product.output))
        inward, _ = folds.inward.padded(len(product.value))
        return (
            _laid_out(outward, product.output, product.constant),
            _laid_out(inward, product.value, product.constant),
        )

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write the constant; the shift goes into the bias Add, inserted where there is none."""
        product = _planned(node, facts)
        scale, total = folds.outward.padded(len(product.output))
        if folds.inward.has_shift:  # 0·∞ is NaN: without a shift, the weight is not read
            matrix = np.asarray(facts.weight(node, product.weight).numpy(), np.float64)
            _, shift = folds.inward.padded(len(product.value))
            terms = matrix * _laid_out(shift, product.value, product.constant)
            summed = tuple(product.constant.index(letter) for letter in product.contracted)
            given = _laid_out(terms.sum(summed, keepdims=True), product.constant, product.output)
            total = scale * given + total
        write_weight(node, product.weight, self.factors(node, folds, facts), facts, editor)
        demand_finite(node, total, facts)
        if np.any(total):
            write_bias_add(node, product.weight, total, facts, editor)


def _product(node: ir.Node, facts: Facts) -> _Product | Reason:
    """The equation, if it is one of a constant and a value in which no letter stands alone."""
    index = next((index for index in (1, 0) if facts.has_constant(node, index)), None)
    terms, _, output = text(node, "equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")
    if index is None or len(node.inputs) != 2 or len(letters) != 2:
        return reasons.NO_RULE(operator="Einsum without one constant among two inputs", node=label(node))
    if "->" not in text(node, "equation", ""):
        output = "".join(sorted(letter for letter in terms.replace(",", "") if terms.count(letter) == 1))
    every = (*letters, output)
    plain = all(term.isalpha() or not term for term in every)
    if not plain or any(len(set(term)) < len(term) for term in every):
        return reasons.NO_RULE(operator="Einsum with an ellipsis or a diagonal", node=label(node))
    if any(sum(letter in term for term in every) < 2 for letter in "".join(every)):
        return reasons.NO_RULE(operator="Einsum that sums up one of its inputs", node=label(node))
    problem = constant_problem(node, index, facts)
    for value, term in zip((*node.inputs, node.outputs[0]), every, strict=True):
        if facts.rank(value) not in (None, len(term)):
            problem = problem or unknown_shape(node, value)
    return problem or _Product(index, letters[index], letters[1 - index], output)


def _planned(node: ir.Node, facts: Facts) -> _Product:
    product = _product(node, facts)
    assert isinstance(product, _Product), "planned on a product"
    return product


def _problem(node: ir.Node, product: _Product, letters: str, affine: Affine, facts: Facts) -> Reason | None:
    """Why the constant cannot take an affine of a value with these letters; None where it can."""
    shape = weight_shape(node, product.weight, facts)
    sizes = dict(zip(product.constant, shape, strict=True))
    for coefficient in affine.padded(len(letters)):
        pairs = zip(letters, coefficient.shape, strict=True)
        if any(size not in (1, sizes.get(letter, 1)) for letter, size in pairs):
            axes = [str(axis) for axis, letter in enumerate(letters) if letter in sizes]
            return wrong_axis(node, affine, ", ".join(axes) or "none")
    return None


def _counts(node: ir.Node, product: _Product, facts: Facts) -> bool:
    """Whether as many elements of the constant are summed up as of the value, which might be broadcast."""
    shape, value = weight_shape(node, product.weight, facts), node.inputs[1 - product.weight]
    return all(
        shape[product.constant.index(letter)] != 1 or facts.size(value, product.value.index(letter)) == 1
        for letter in product.contracted
    )


def _laid_out(coefficient: Array, letters: str, wanted: str) -> Array:
    """An array with an axis for each letter in the axes of others; it varies along those that both have."""
    kept = [letters.index(letter) for letter in wanted if letter in letters]
    left = [axis for axis in range(len(letters)) if axis not in kept]
    shape = [coefficient.shape[letters.index(letter)] if letter in letters else 1 for letter in wanted]
    return coefficient.transpose(kept + left).reshape(shape)


OPERATORS = {"Einsum": Einsum()}
