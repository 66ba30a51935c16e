"""What ONNX demands of each operator by itself, checked before a rule is asked: a rule may then rely on it.

A file can say anything: three groups of eight channels, axis 7 of four, a permutation that names an axis
twice. Only what is proved to contradict the operator's definition is a fault. What is demanded is in
`signature`, of every operator, and in `demands`, operator by operator.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from bnfold import reasons
from bnfold.errors import InputError, ModelError
from bnfold.files.load import from_proto, load_onnx
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import caller_problem, label
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.demands import CHECKS
from bnfold.ops.signature import signature_fault
from bnfold.reasons import Reason


def invalid(node: ir.Node, facts: Facts) -> Reason | None:
    """Why nothing may be concluded from a node: it contradicts its operator. None where it does not."""
    fault = fault_of(node, facts)
    return None if fault is None else reasons.INVALID(operator=node.op_type, node=label(node), fault=fault)


def fault_of(node: ir.Node, facts: Facts) -> str | None:
    """How a node contradicts its operator's definition, as the end of "has …"; None where it does not.

    Args:
        node: Of any operator; of those that are not ONNX's own nothing is known.
        facts: What is known of its model.
    """
    if node.domain not in ONNX_DOMAINS:
        return None
    if node not in facts.faults:  # folds keep a node valid, so what the file says is asked once
        fault = signature_fault(node, facts.version(node))
        check = CHECKS.get(node.op_type)
        facts.faults[node] = fault if fault or check is None else check(node, facts)
    return facts.faults[node]


@contextlib.contextmanager
def naming_faults(model: str | os.PathLike[str] | onnx.ModelProto | ir.Model) -> Iterator[None]:
    """Name the fault of a model that was refused, in place of what a runtime says of it.

    Args:
        model: What is run; it is only looked at after that.

    Raises:
        ModelError: It was refused, and contradicts itself.
        BnfoldError: Whatever else was raised.
    """
    try:
        yield
    except (InputError, ModelError) as error:
        if not isinstance(model, ir.Model):
            model = from_proto(model) if isinstance(model, onnx.ModelProto) else load_onnx(model)
        found = list(faults(model))
        if not found:
            raise
        more = f" It has {len(found) - 1} more such faults." if len(found) > 1 else ""
        raise ModelError(f"{found[0]}{more}", reasons.INVALID.advice) from error


def faults(model: ir.Model) -> Iterator[str]:
    """Every contradiction in a model, as a sentence that names the node."""
    facts = Facts(model)
    for scope in facts.scopes:
        for node in scope.graph:
            reason = None if caller_problem(node) else invalid(node, facts)
            if reason is not None:
                yield reason.sentence
