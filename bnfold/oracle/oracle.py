"""The truth that two models are compared with: a model's value over the reals, approximated in float64.

Every float tensor is widened: weights have exactly the values that the model stores, and everything computed
from them is rounded to 53 bits instead of 24 or fewer. A cast from one float type to another is the identity,
since its rounding is an error like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bnfold.errors import InputError
from bnfold.oracle.evaluator import Evaluator, See
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Array, Call, Operator, widen
from bnfold.oracle.perturb import perturb, read
from bnfold.oracle.prepare import take_apart
from bnfold.runtime.sessions import Feeds, ModelLike


class Oracle:
    """A model, evaluated in float64.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model` that ONNX Runtime runs. It is not modified.
        perturbed: A seed; every weight is then multiplied by `1 + d`, with `d` uniform within the unit
            roundoff of the type that the weight is stored in. So the outputs show how far one rounding of
            every weight moves the truth.
        choose: Finds the function that evaluates a node.

    Raises:
        ModelError: The model cannot be read.
        NotEvaluableError: It has an operator that is not evaluated in float64.
    """

    def __init__(
        self,
        model: ModelLike,
        perturbed: int | None = None,
        *,
        choose: Callable[[Call], Operator] = operator,
    ) -> None:
        proto, stored = take_apart(model)
        readers: dict[str, Callable[[], Array]] = {
            name: partial(read, tensor) for name, tensor in stored.items()
        }
        if perturbed is not None:
            readers |= perturb(proto, stored, perturbed)
        opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import
        }
        self._evaluator = Evaluator(proto.graph, opsets, readers, choose)
        given = {*stored, *(tensor.name for tensor in proto.graph.initializer)}
        self._required = [name for name in self._evaluator.inputs if name not in given]

    def run(self, feeds: Feeds) -> list[Any]:
        """The graph's outputs in order, floats in float64; a value is dropped after its last reader.

        Args:
            feeds: Inputs by name, of the types that the model itself takes.

        Raises:
            InputError: An input is missing.
            NotEvaluableError: A node cannot be evaluated for these inputs.
        """
        widened = self._widened(feeds)
        with np.errstate(all="ignore"):  # an infinity is a result like any other
            return self._evaluator.run(widened)

    def walk(self, feeds: Feeds, see: See) -> None:
        """Show every value of the main graph, insides of functions included, as it is computed.

        Args:
            feeds: As for `run`.
            see: Called with the name and the value; what it returns, unless None, replaces the value for
                later nodes.

        Raises:
            InputError: An input is missing.
            NotEvaluableError: A node cannot be evaluated for these inputs.
        """
        widened = self._widened(feeds)
        with np.errstate(all="ignore"):
            self._evaluator.run(widened, see=see)

    def values(self, feeds: Feeds) -> dict[str, Any]:
        """Every value of the main graph by name, inputs and the insides of functions included; no weights.

        Args:
            feeds: As for `run`.

        Raises:
            InputError: An input is missing.
            NotEvaluableError: A node cannot be evaluated for these inputs.
        """
        found = self._widened(feeds)

        def see(name: str, value: object) -> None:
            found[name] = value

        self.walk(feeds, see)
        return found

    def _widened(self, feeds: Feeds) -> dict[str, Any]:
        if missing := [name for name in self._required if name not in feeds]:
            raise InputError(
                f"The oracle has no value for the input {missing[0]}.", "Feed every input of the model."
            )
        return {name: widen(value) for name, value in feeds.items()}
