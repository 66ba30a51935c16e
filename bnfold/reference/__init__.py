"""The float64 oracle: what a model's outputs are when rounding is taken out of the question."""

from bnfold.reference.cost import multiply_adds
from bnfold.reference.evaluator import NotEvaluableError
from bnfold.reference.oracle import Oracle

__all__ = ["NotEvaluableError", "Oracle", "multiply_adds"]
