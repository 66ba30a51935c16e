"""What the BatchNorms of a model knew of its activations, kept where they are gone.

After training, a channel behind a BatchNorm has the mean β and the standard deviation |γ| over the data, so
that `β ± 6·|γ|` holds all but two of a thousand million values of a normal distribution: a range for
quantisation that needs no data. (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, section 4.2.1, takes these ranges.) With μ, σ and ε the fold can also be undone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.folding import record
from bnfold.folding.recognise import is_batchnorm
from bnfold.graph.facts import Facts
from bnfold.graph.nodes import label, module_name, real

KEY = "bnfold.batchnorms"
"""Under which key the numbers stand in a model's metadata, if they were asked for there."""

DEVIATIONS = 6.0
_DIGITS = 9  # enough to write every float32 so that it is read as the same number


@dataclass(frozen=True)
class Statistics:
    """One BatchNorm of the original, every list with a number for each channel.

    Attributes:
        site: The PyTorch module path where the exporter kept it, otherwise the node's name.
        node: The node's name in the original graph.
        value: The name of the value that it gave there.
        graph: Where it was: empty for the main graph, otherwise the function or subgraph.
        into: Names of the nodes whose constants took it.
        gamma: Its scale.
        beta: Its bias.
        mean: The mean of what it read, over the data of the training.
        sigma: The standard deviation of that, without ε.
        epsilon: What it added to the square of σ.
        low: The least value to expect after it, `β − 6·|γ|`.
        high: The largest, `β + 6·|γ|`.
    """

    site: str
    node: str
    value: str
    graph: str
    into: tuple[str, ...]
    gamma: tuple[float, ...]
    beta: tuple[float, ...]
    mean: tuple[float, ...]
    sigma: tuple[float, ...]
    epsilon: float
    low: tuple[float, ...]
    high: tuple[float, ...]


def read(model: ir.Model) -> tuple[Statistics, ...]:
    """The numbers of all BatchNorms of a model whose parameters are constants, in the order of the graph."""
    facts, found = Facts(model), []
    for scope in facts.scopes:
        for node in filter(is_batchnorm, scope.graph):
            arrays = [facts.operand(node, index) for index in range(1, 5)]
            known = [array.reshape(-1) for array in arrays if array is not None]
            if len(known) < len(arrays) or np.min(known[3], initial=0.0) < 0:
                continue
            gamma, beta, mean, variance = known
            reach = DEVIATIONS * np.abs(gamma)
            found.append(
                Statistics(
                    site=module_name(node),
                    node=label(node),
                    value=node.outputs[0].name or "",
                    graph=scope.label,
                    into=(),
                    gamma=_numbers(gamma),
                    beta=_numbers(beta),
                    mean=_numbers(mean),
                    sigma=_numbers(np.sqrt(variance)),
                    epsilon=_numbers([real(node, "epsilon", 1e-5)])[0],
                    low=_numbers(beta - reach),
                    high=_numbers(beta + reach),
                )
            )
    return tuple(found)


def _numbers(array: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in np.asarray(array, np.float64).tolist())


def of_folded(known: Sequence[Statistics], folded: ir.Model) -> tuple[Statistics, ...]:
    """Those BatchNorms that are folded in a model, by the record of its fold.

    Args:
        known: All of the original.
        folded: The folded model.
    """
    into = _into(folded)
    return tuple(
        Statistics(**{**vars(one), "into": tuple(into[one.site])}) for one in known if one.site in into
    )


def write(folded: ir.Model, known: Sequence[Statistics]) -> None:
    """Put the numbers of the BatchNorms that are folded in a model into its metadata."""
    entries = [vars(one) for one in of_folded(known, folded)]
    folded.metadata_props[KEY] = json.dumps(entries, separators=(",", ":"))


def _into(folded: ir.Model) -> Mapping[str, Sequence[str]]:
    try:
        entries = json.loads(folded.metadata_props.get(record.KEY, "null"))
    except ValueError:
        return {}
    found = entries.get("into") if isinstance(entries, dict) else None
    return found if isinstance(found, dict) else {}
