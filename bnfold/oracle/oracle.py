"""The truth that two models are compared with: a model's value over the reals, approximated in float64.

Every float tensor is widened: weights have exactly the values that the model stores, and everything computed
from them is rounded to 53 bits instead of 24 or fewer. A cast from one float type to another is the identity,
since its rounding is an error like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx

from bnfold.errors import InputError
from bnfold.oracle.evaluator import Evaluator, See
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Array, Call, Operator, widen
from bnfold.oracle.perturb import perturb
from bnfold.oracle.prepare import take_apart
from bnfold.oracle.weights import Weight
from bnfold.runtime.sessions import Feeds, ModelLike

Unknown: TypeAlias = Callable[[onnx.NodeProto, Sequence[Any]], Sequence[Any] | None]
"""Gives the outputs of a node from its inputs; None where it has none."""


@dataclass(frozen=True)
class Taken:
    """A node that was not evaluated in float64.

    Attributes:
        node: The node.
        why: What kept the oracle from it, as a sentence.
    """

    node: onnx.NodeProto
    why: str


class Oracle:
    """A model, evaluated in float64.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model` that ONNX Runtime runs. It is not modified.
        perturbed: A seed; every weight is then multiplied by `1 + d`, with `d` uniform within the unit
            roundoff of the type that the weight is stored in. So the outputs show how far one rounding of
            every weight moves the truth.
        choose: Finds the function that evaluates a node.
        unknown: Where the outputs of nodes come from that cannot be evaluated, operators of custom domains
            above all. It gets the node and its inputs' values in order, floats in float64, None for an input
            that is left out; and returns the outputs' values in order, or None if it has none. The oracle
            goes on from what it returns, and `taken` says for which nodes it did. A node of a loop or a
            branch is asked for first, then the loop or branch as a whole.

    Raises:
        ModelError: The model cannot be read.
        NotEvaluableError: It has an operator that is not evaluated in float64, and there is no `unknown`.
    """

    def __init__(
        self,
        model: ModelLike,
        perturbed: int | None = None,
        *,
        choose: Callable[[Call], Operator] = operator,
        unknown: Unknown | None = None,
    ) -> None:
        proto, stored = take_apart(model)
        readers: dict[str, Callable[[], Array]] = {name: Weight(tensor) for name, tensor in stored.items()}
        if perturbed is not None:
            readers |= perturb(proto, stored, perturbed)
        opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import
        }
        self._unknown = unknown
        self._taken: dict[int, Taken] = {}
        self._evaluator = Evaluator(proto.graph, opsets, readers, choose, self._ask if unknown else None)
        given = {*stored, *(tensor.name for tensor in proto.graph.initializer)}
        self._required = [name for name in self._evaluator.inputs if name not in given]

    @property
    def taken(self) -> tuple[Taken, ...]:
        """The nodes whose outputs came from `unknown` in any evaluation so far, each once, in order."""
        return tuple(self._taken.values())

    @property
    def largest(self) -> int:
        """Bytes of the largest value that any evaluation so far computed."""
        return self._evaluator.largest

    def _ask(self, node: onnx.NodeProto, inputs: Sequence[Any], why: str) -> Sequence[Any] | None:
        given = self._unknown(node, inputs) if self._unknown else None
        if given is not None:
            self._taken.setdefault(id(node), Taken(node, why))
        return given

    def run(self, feeds: Feeds) -> list[Any]:
        """The graph's outputs in order, floats in float64; a value is dropped after its last reader.

        Args:
            feeds: Inputs by name, of the types that the model itself takes.

        Raises:
            InputError: An input is missing.
            NotEvaluableError: A node cannot be evaluated for these inputs.
        """
        return self._evaluator.run(self._widened(feeds))

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
        self._evaluator.run(self._widened(feeds), see=see)

    def steps(self, feeds: Feeds) -> Generator[tuple[str, Any], Any, list[Any]]:
        """Evaluate the model value by value, so that several models can be evaluated side by side.

        Args:
            feeds: As for `run`.

        Yields:
            What `walk` shows; what is sent in return, unless None, replaces the value for later nodes.

        Raises:
            InputError: An input is missing.
            NotEvaluableError: A node cannot be evaluated for these inputs.
        """
        return self._evaluator.steps(self._widened(feeds))

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
