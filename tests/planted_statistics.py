"""Faults of understanding: a BatchNorm misread, folded where it must stay, or a branch merged wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

import bnfold
from tests.planting import Array, Case, Fault, Graph, Planted, attribute

Affine = tuple[Array, Array]
ROUNDINGS = 8  # what changes no channel by more than so many roundings is not counted as a fault


@dataclass(frozen=True)
class Norm:
    """A BatchNorm as a program reads it, in float64.

    Attributes:
        gamma, beta, mean, var: Its parameters.
        epsilon: Its ε.
        batch: Gives the mean and variance of the numbers that it normalises.
        own_bias: The bias of the layer before it; 0 where it has none.
        neighbour: Another BatchNorm of as many channels, if there is one.
    """

    gamma: Array
    beta: Array
    mean: Array
    var: Array
    epsilon: float
    batch: Callable[[], Affine]
    own_bias: Array
    neighbour: Norm | None = None

    def affine(self, **misread: Array | float) -> Affine:
        """Scale and shift, with some of the parameters replaced."""
        p = {**vars(self), **misread}
        scale = p["gamma"] / np.sqrt(p["var"] + p["epsilon"])
        return scale, p["beta"] - p["mean"] * scale


def read(case: Case, graph: Graph, node: onnx.NodeProto) -> Norm:
    """All that a program could mistake for a BatchNorm's parameters."""
    parts = [graph.constant(node, index) for index in range(1, 5)]
    before = graph.makers.get(node.input[0])
    bias = None if before is None else graph.constant(before, 2)
    wide = [np.asarray(part, np.float64) for part in parts]
    own = np.zeros_like(wide[0]) if bias is None else bias.astype(np.float64)

    def batch() -> Affine:
        seen = np.moveaxis(case.values[node.input[0]], 1, 0)
        seen = seen.reshape(len(seen), -1)
        return seen.mean(axis=1), seen.var(axis=1)

    return Norm(*wide, attribute(node, "epsilon", 1e-5), batch, own)


def misread(how: Callable[[Norm], Affine | None], merged: bool = False) -> Fault:
    """Fold a BatchNorm as if it were the affine map that `how` takes it for; merged branches only, or all."""

    def plant(case: Case) -> Iterator[Planted]:
        for site, into in case.merged if merged else case.folds:
            model = refolded(case, site, how)
            if model is not None:
                yield Planted(model, into, site)

    return plant


def refolded(case: Case, site: str, how: Callable[[Norm], Affine | None]) -> onnx.ModelProto | None:
    """The folded model with one BatchNorm taken for something else; None where it would look otherwise."""
    graph = Graph(case.original)
    node = graph.nodes[case.norms[site].name]
    norm = read(case, graph, node)
    alike = [n for n in case.norms.values() if n.name != node.name and graph.constant(n, 1) is not None]
    alike = [n for n in alike if len(graph.constant(n, 1)) == len(norm.gamma)]
    if alike:
        norm = Norm(**{**vars(norm), "neighbour": read(case, graph, alike[0])})
    taken = how(norm)
    if taken is None or is_rounding(norm, taken, ROUNDINGS * np.finfo(graph.constant(node, 1).dtype).eps / 2):
        return None
    scale, shift = taken
    spread = np.sqrt(norm.var + norm.epsilon)
    for index, array in enumerate((scale * spread, shift, np.zeros_like(shift)), 1):
        graph.put(node, index, array)
    model = bnfold.fold(graph.model).model
    same = [n.name for n in model.graph.node] == [n.name for n in case.result.model.graph.node]
    return model if same else None


def is_rounding(norm: Norm, taken: Affine, share: float) -> bool:
    """Whether an affine map differs from a BatchNorm's by no more than this share of its terms."""
    scale, shift = norm.affine()
    terms = np.abs(norm.beta) + np.abs(norm.mean * scale)
    near = abs(taken[0] - scale) <= share * abs(scale), abs(taken[1] - shift) <= share * terms
    return bool(np.all(near))


def without_epsilon(norm: Norm) -> Affine:
    """ε is omitted."""
    return norm.affine(epsilon=0.0)


def other_epsilon(norm: Norm) -> Affine:
    """ε is another framework's, 1e-3."""
    return norm.affine(epsilon=1e-3)


def batch_statistics(norm: Norm) -> Affine:
    """The batch's own statistics are used, as in training."""
    mean, var = norm.batch()
    return norm.affine(mean=mean, var=var)


def removed(norm: Norm) -> Affine:
    """The BatchNorm is removed and not folded."""
    return np.ones_like(norm.gamma), np.zeros_like(norm.beta)


def folded_twice(norm: Norm) -> Affine:
    """The BatchNorm is folded twice."""
    scale, shift = norm.affine()
    return scale * scale, scale * shift + shift


def shift_sign(norm: Norm) -> Affine:
    """The shift has the wrong sign."""
    scale, shift = norm.affine()
    return scale, -shift


def without_gamma(norm: Norm) -> Affine:
    """γ is left out."""
    return norm.affine(gamma=np.ones_like(norm.gamma))


def without_mean(norm: Norm) -> Affine:
    """The running mean is left out."""
    return norm.affine(mean=np.zeros_like(norm.mean))


def positive_gamma(norm: Norm) -> Affine:
    """Negative γ are taken for positive ones."""
    return norm.affine(gamma=np.abs(norm.gamma))


def without_root(norm: Norm) -> Affine:
    """The square root is forgotten."""
    return norm.affine(var=(norm.var + norm.epsilon) ** 2 - norm.epsilon)


def bias_unscaled(norm: Norm) -> Affine | None:
    """The layer's own bias is not scaled."""
    scale, shift = norm.affine()
    return (scale, shift + (1 - scale) * norm.own_bias) if norm.own_bias.any() else None


def turned_channels(norm: Norm) -> Affine:
    """Every channel has its neighbour's statistics."""
    scale, shift = norm.affine()
    return np.roll(scale, 1), np.roll(shift, 1)


def other_norm(norm: Norm) -> Affine | None:
    """The statistics of another BatchNorm are used."""
    return norm.neighbour.affine() if norm.neighbour is not None else None


def dropped(norm: Norm) -> Affine:
    """A branch is dropped when branches are merged."""
    return np.zeros_like(norm.gamma), np.zeros_like(norm.beta)


def off_centre(case: Case) -> Iterator[Planted]:
    """A 1×1 branch stands in the corner of the merged kernel."""
    for site, into in case.merged:
        rest = refolded(case, site, dropped)
        graph = case.edit()
        both = graph.constant(graph.nodes[into], 1)
        alone = None if rest is None else Graph(rest).constant(Graph(rest).nodes[into], 1)
        if both is None or alone is None or min(both.shape[2:]) < 3:
            continue
        branch = (both - alone).astype(np.float64)
        size = np.abs(branch).max(axis=(0, 1))
        if np.count_nonzero(size > 1e-6 * size.max()) == 1:  # it is 1×1, or an identity
            graph.put(graph.nodes[into], 1, alone + np.roll(branch, -1, axis=(2, 3)))
            yield Planted(graph.model, into, site)


def through_padding(case: Case) -> Iterator[Planted]:
    """A shift is folded through zero padding into the next convolution."""
    for name, _, graph, norm in kept(case):
        readers = graph.readers(norm.output[0])
        if len(readers) != 1 or readers[0].op_type != "Conv" or not any(attribute(readers[0], "pads", [0])):
            continue
        (conv,) = readers
        weight, bias = graph.constant(conv, 1), graph.constant(conv, 2)
        scale, shift = read(case, graph, norm).affine()
        if weight is None or attribute(conv, "group", 1) != 1:
            continue
        taken = weight.astype(np.float64).sum(axis=tuple(range(2, weight.ndim))) @ shift
        graph.put(conv, 2, taken if bias is None else bias + taken)
        graph.put(conv, 1, weight * scale.reshape(1, -1, *[1] * (weight.ndim - 2)))
        conv.input[0] = norm.input[0]
        graph.model.graph.node.remove(norm)
        yield Planted(graph.model, conv.name, name)


def overflow(case: Case) -> Iterator[Planted]:
    """Folded float16 weights become infinite."""
    for name, code, graph, norm in kept(case):
        conv = graph.makers.get(norm.input[0])
        weight = None if conv is None else graph.constant(conv, 1)
        if conv is None or weight is None or code != "BN401":
            continue
        scale, shift = read(case, graph, norm).affine()
        graph.put(conv, 2, shift)
        graph.put(conv, 1, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
        conv.output[0] = norm.output[0]
        graph.model.graph.node.remove(norm)
        yield Planted(graph.model, conv.name, name)


def kept(case: Case) -> Iterator[tuple[str, str, Graph, onnx.NodeProto]]:
    """Every BatchNorm that stays, with the code of its reason, in a copy of the folded model."""
    for site in case.result.kept:
        graph = case.edit()
        if site.op_type == "BatchNormalization" and site.reason is not None and site.node in graph.nodes:
            yield site.name, site.reason.code, graph, graph.nodes[site.node]
