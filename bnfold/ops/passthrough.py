"""Operators that hand their input on as it is in eval mode."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import integer, label
from bnfold.ops.base import QUANTISED, Answer, Operator, ToInput, ToOutput, no_rule
from bnfold.reasons import Reason, Situation


class Identity(Operator):
    """`y = x`: whatever holds for y holds for x."""

    def problem(self, node: ir.Node, facts: Facts) -> Reason | None:
        """Why this node is not the identity; None where it is."""
        del node, facts
        return None

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass on to the producer."""
        if index != 0:
            return no_rule(node, f"output {index} of {node.op_type}")
        return self.problem(node, facts) or [(ToInput(0, affine),)]

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Pass on to the readers."""
        if index != 0:
            return no_rule(node, f"input {index} of {node.op_type}")
        return self.problem(node, facts) or [(ToOutput(0, affine),)]


class Dropout(Identity):
    """Dropout, the identity unless in training mode."""

    def problem(self, node: ir.Node, facts: Facts) -> Reason | None:
        """Versions 1 and 6 train without `is_test`; 7 and 10 never; 12 and later by a third input."""
        version = facts.version(node)
        trains = version < 7 and integer(node, "is_test", 0) == 0
        if version >= 12 and len(node.inputs) > 2 and node.inputs[2] is not None:
            flag = facts.constants.array(node.inputs[2])
            trains = flag is None or bool(np.any(flag))
        mask = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
        if trains or mask:
            setting = "training mode" if trains else "a mask that is read"
            return reasons.SETTING(node=label(node), operator="Dropout", setting=setting)
        return None


class Cast(Identity):
    """Cast and CastLike, the identity where the type stays."""

    def problem(self, node: ir.Node, facts: Facts) -> Reason | None:
        """Rounding to another type does not commute with a scale."""
        before, after = facts.dtype(node.inputs[0]), facts.dtype(node.outputs[0])
        if node.op_type == "Cast" and "to" in node.attributes:
            after = ir.DataType(integer(node, "to", 0))
        elif node.op_type == "CastLike":
            after = facts.dtype(node.inputs[1])
        if before is None or before != after:
            reason = reasons.TYPE_CHANGE(node=label(node), before=before, after=after)
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            quantised = source is not None and source.op_type in QUANTISED
            return reason.within(Situation.QUANTISED) if quantised else reason
        return None


OPERATORS = {"Identity": Identity(), "Dropout": Dropout(), "Cast": Cast(), "CastLike": Cast()}
