"""What stands next to a layer and can be part of it: a Pad, another layer, another order of channels.

None of these is an affine map of each channel, so no search moves them. Each rule looks at two neighbours,
the first read by the second alone, and replaces them by one node that needs no more multiply-adds and no more
weights. They come after the folds, which may have brought two layers together, and folds come again after
them. A new rule is a file here and an entry in `RULES`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from bnfold.folding.neighbours import channel_order, consecutive_convs, consecutive_linears, pad_into_conv
from bnfold.folding.neighbours.base import Joined, Rule
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.graph.scopes import ONNX_DOMAINS, Scope

RULES = (
    Rule(("Conv",), pad_into_conv.join),
    Rule(channel_order.LAYERS, channel_order.join_before),
    Rule(channel_order.ORDERS, channel_order.join_after),
    Rule(("Conv",), consecutive_convs.join, multiplies=True),
    Rule(("Gemm", "MatMul"), consecutive_linears.join, multiplies=True),
)


def join_neighbours(
    scope: Scope, facts: Facts, editor: Editor, whole: Collection[ir.Node], *, merging: bool
) -> Iterator[Joined]:
    """Let every node of a scope take what stands before it, as far as a rule allows, in graph order.

    Args:
        scope: Where to look.
        facts: What is known of the model.
        editor: Writes and removes nodes.
        whole: Nodes that take no part.
        merging: Whether weights may be multiplied with each other.
    """
    for node in tuple(scope.graph):
        if node.graph is None or node in whole or node.domain not in ONNX_DOMAINS:
            continue
        rules = [
            rule for rule in RULES if node.op_type in rule.operators and (merging or not rule.multiplies)
        ]
        while node.graph is not None:
            joined = next((one for rule in rules if (one := rule.join(node, facts, editor, whole))), None)
            if joined is None:
                break
            yield joined
