"""One case of every reason: names and numbers as models have them, for `bnfold explain` and its page.

A sentence of `bnfold.reasons` has places for the facts of a case. Who looks up a code has no case yet, and
reads an example more easily than a form.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.reasons import Rule

EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "BN101": {"node": "bn1"},
    "BN102": {"value": "running_mean", "node": "bn1"},
    "BN103": {"value": "bn1.weight", "node": "bn1"},
    "BN104": {"node": "bn1", "what": "a variance that is not positive, even with ε added"},
    "BN105": {"value": "bn1.weight", "dtype": "INT32"},
    "BN106": {"node": "bn1", "attribute": "epsilon"},
    "BN107": {"node": "norm1", "operator": "InstanceNormalization"},
    "BN108": {"node": "bn1"},
    "BN201": {"operator": "Sigmoid", "node": "act1"},
    "BN202": {"value": "kernel", "node": "conv1"},
    "BN203": {"value": "conv1.weight", "node": "conv1"},
    "BN204": {"node": "conv1", "axes": "2", "operator": "Conv", "allowed": "1"},
    "BN205": {"node": "conv2"},
    "BN206": {"operator": "MaxPool", "node": "pool1", "count": "3"},
    "BN207": {"operator": "Relu", "node": "relu1"},
    "BN208": {"value": "features", "node": "reshape1"},
    "BN209": {"node": "reshape1", "before": "[4, 6, 8]", "after": "[6, 4, 8]"},
    "BN210": {"operator": "ConvTranspose", "node": "up1", "setting": "outputs that see different taps"},
    "BN211": {"value": "bias", "node": "fc1"},
    "BN212": {"node": "cast1", "before": "FLOAT", "after": "FLOAT16"},
    "BN213": {"value": "mask", "node": "mul1"},
    "BN214": {"node": "add1"},
    "BN215": {"operator": "Trilu", "node": "trilu1"},
    "BN216": {"operator": "Conv", "node": "conv1", "fault": "a weight of shape [4, 4, 3, 3] in 3 groups"},
    "BN301": {"value": "features", "node": "bn1", "others": "concat1"},
    "BN302": {"value": "features"},
    "BN303": {"value": "features", "node": "if1"},
    "BN304": {"value": "image", "node": "bn1"},
    "BN305": {"inserted": "2", "node": "fc1", "removed": "1"},
    "BN306": {"steps": "20000", "node": "bn1"},
    "BN307": {
        "branch": "branch2",
        "others": "branch1",
        "node": "add1",
        "difference": "its channels are 4 → 4 and not 4 → 1",
    },
    "BN308": {"branch": "branch2", "others": "branch1", "node": "add1", "after": "144", "before": "68"},
    "BN309": {"node": "mul1", "pattern": "Gelu"},
    "BN310": {"node": "bn1", "what": "2 more nodes"},
    "BN311": {"count": "3", "node": "bn1"},
    "BN312": {"node": "bn1", "value": "stream", "factor": "169"},
    "BN401": {"node": "conv1", "dtype": "FLOAT16"},
    "BN402": {"node": "conv1", "dtype": "FLOAT16"},
    "BN403": {"value": "features", "factor": "350", "dtype": "float16"},
    "BN501": {"node": "bn1", "why": "it is in a subgraph"},
    "BN502": {"node": "bn1", "module": "conv1"},
    "BN503": {"node": "bn1", "problem": "The folded copy returns another number of outputs."},
}
"""The facts of the example, by the code of the reason; each reason has one, with a fact for each place."""


def explained(rule: Rule) -> str:
    """What a rule says, with the names and numbers of an example where each case has its own.

    Args:
        rule: A reason, or a rule of `bnfold check`, whose sentence has no such places.
    """
    facts = EXAMPLES.get(rule.code)
    return f"For example: {rule.sentence.format_map(facts)}" if facts else rule.sentence
