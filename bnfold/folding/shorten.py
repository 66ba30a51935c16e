"""Chains that stay are made as short as possible.

In `Relu → BatchNormalization → Mul → Add` the last three are one affine map, which the BatchNormalization
alone can compute. Without a BatchNormalization, one Mul and one Add compute as much as any longer chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnfold.algebra.affine import Affine, Array
from bnfold.folding.recognise import Chain, Link, is_batchnorm
from bnfold.graph.facts import Facts
from bnfold.ops import operator
from bnfold.ops.base import Absorb
from bnfold.reasons import Reason


@dataclass(frozen=True)
class Shorter:
    """A chain's map in fewer nodes.

    Attributes:
        stay: The links that stay, in order.
        absorb: What a BatchNormalization among them takes on either side.
        constants: The new constants of Mul and Add: the link, and the elements in float64.
    """

    stay: tuple[Link, ...]
    absorb: tuple[Absorb, ...] = ()
    constants: tuple[tuple[Link, Array], ...] = ()


def shorter(chain: Chain, facts: Facts) -> Shorter | None:
    """The same map in fewer of the chain's own nodes; None where it is as short as it can be."""
    if len(chain.links) < 2:
        return None
    norms = [link for link in chain.links if is_batchnorm(link.node)]
    return _one_batchnorm(chain, norms[-1], facts) if norms else _mul_and_add(chain, facts)


def without_scale(chain: Chain) -> Chain | None:
    """The same nodes with the map `x + t/s`, after which `s` is left to do; None where nothing changes."""
    affine = chain.affine
    if chain.batchnorms or affine.has_unit_scale or not affine.has_shift or not np.all(affine.scale):
        return None
    return replace(chain, affine=Affine(1.0, affine.then(Affine(1.0 / affine.scale)).shift))


def _one_batchnorm(chain: Chain, norm: Link, facts: Facts) -> Shorter | None:
    place = chain.links.index(norm)
    steps: list[Absorb] = []
    family = operator(norm.node)
    for method, links in (
        (family.at_input, chain.links[:place]),
        (family.at_output, chain.links[place + 1 :]),
    ):
        affine = Affine()
        for link in links:
            affine = affine.then(facts.composed(link.node, link.affine))
        answer = method(norm.node, 0, affine, facts)
        if isinstance(answer, Reason):
            return None
        steps.extend(step for step in answer[0] if isinstance(step, Absorb))
    return Shorter((norm,), absorb=tuple(steps))


def _mul_and_add(chain: Chain, facts: Facts) -> Shorter | None:
    """A Mul with the whole scale, then an Add or Sub with the whole shift."""
    rank = facts.rank(chain.result)
    if rank is None:
        return None
    scale, shift = chain.affine.padded(rank)
    add = mul = None
    for link in chain.links:
        if link.node.op_type == "Mul" and not (add and chain.affine.has_shift):
            mul = link
        elif link.node.op_type in ("Add", "Sub") and link.data == 0 and (mul or chain.affine.has_unit_scale):
            add = link
    constants: list[tuple[Link, Array]] = []
    if not chain.affine.has_unit_scale:
        if mul is None:
            return None
        constants.append((mul, scale))
    if chain.affine.has_shift:
        if add is None:
            return None
        constants.append((add, -shift if add.node.op_type == "Sub" else shift))
    stay = tuple(link for link, _ in constants)
    return Shorter(stay, constants=tuple(constants)) if 0 < len(stay) < len(chain.links) else None
