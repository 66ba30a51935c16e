"""Faults of the numbers that a fold wrote: in a weight, in a bias, or given to the wrong layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper

from tests.planting import Array, Case, Fault, Graph, Planted, attribute, output_first

_BFLOAT16 = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)

Change = Callable[[Array, onnx.NodeProto], Array | None]


def in_weight(change: Change) -> Fault:
    """Alter the weight that a BatchNorm went into, or the scales where it is quantized."""

    def plant(case: Case) -> Iterator[Planted]:
        for site, name in case.folds:
            graph = case.edit()
            node = graph.nodes[name]
            if graph.constant(node, 1) is None:
                node = graph.makers[node.input[1]]
            weight = graph.constant(node, 1)
            changed = None if weight is None else change(weight.copy(), node)
            if changed is not None and not np.array_equal(weight, changed):
                graph.put(node, 1, changed)
                yield Planted(graph.model, node.name, site)

    return plant


def in_bias(change: Callable[[Array], Array]) -> Fault:
    """Alter the bias that a BatchNorm went into."""

    def plant(case: Case) -> Iterator[Planted]:
        for site, name in case.folds:
            graph = case.edit()
            place = graph.bias_of(graph.nodes[name])
            bias = graph.constant(*place) if place else None
            if place and bias is not None and not np.array_equal(bias, change(bias)):
                graph.put(*place, change(bias))
                yield Planted(graph.model, place[0].name, site)

    return plant


def one_channel(weight: Array, node: onnx.NodeProto) -> Array:
    """The output channel of the largest weight is off by 1 %, or by 50 roundings where that is more."""
    channels = output_first(node, weight)
    largest = np.unravel_index(np.abs(channels).argmax(), channels.shape)[0]
    channels[largest] *= weight.dtype.type(1 + max(0.01, 25 * np.finfo(weight.dtype).eps))
    return weight


def to_half(weight: Array, _: onnx.NodeProto) -> Array | None:
    """A layer's weights are rounded to float16."""
    return weight.astype(np.float16).astype(np.float32) if weight.dtype == np.float32 else None


def swapped_outputs(weight: Array, node: onnx.NodeProto) -> Array:
    """Two output channels are swapped."""
    channels = output_first(node, weight)
    channels[[0, 1]] = channels[[1, 0]]
    return weight


def swapped_inputs(weight: Array, node: onnx.NodeProto) -> Array | None:
    """Two input channels are swapped."""
    if weight.ndim < 2 or output_first(node, weight).shape[1] < 2:
        return None
    channels = output_first(node, weight).swapaxes(0, 1)
    channels[[0, 1]] = channels[[1, 0]]
    return weight


def one_nan(weight: Array, _: onnx.NodeProto) -> Array:
    """One weight is NaN."""
    weight.flat[weight.size // 2] = np.nan
    return weight


def one_sign(weight: Array, _: onnx.NodeProto) -> Array:
    """One weight has the wrong sign."""
    weight.flat[np.abs(weight).argmax()] *= -1
    return weight


def mirrored(weight: Array, _: onnx.NodeProto) -> Array | None:
    """The kernel is mirrored, as convolution is to correlation."""
    return np.flip(weight, tuple(range(2, weight.ndim))).copy() if weight.ndim > 2 else None


def mixed_groups(weight: Array, node: onnx.NodeProto) -> Array | None:
    """The groups stand in another order."""
    groups = attribute(node, "group", 1)
    return None if groups == 1 else np.roll(weight, len(weight) // groups, axis=0)


def no_bias(bias: Array) -> Array:
    """The bias is dropped."""
    return np.zeros_like(bias)


def bias_to_bfloat16(bias: Array) -> Array:
    """The bias is rounded to bfloat16."""
    return bias.astype(_BFLOAT16).astype(bias.dtype) if bias.dtype == np.float32 else bias


def wrong_axis(case: Case) -> Iterator[Planted]:
    """A square weight is scaled along its input axis."""
    before = Graph(case.original)
    for site, name in case.folds:
        graph = case.edit()
        node, norm = graph.nodes[name], case.norms[site]
        plain = before.constant(before.nodes[name], 1) if name in before.nodes else None
        gamma, var = (before.constant(norm, index) for index in (1, 4))
        weight = graph.constant(node, 1)
        if plain is None or weight is None or gamma is None or var is None:
            continue
        scale = (gamma / np.sqrt(var + attribute(norm, "epsilon", 1e-5))).reshape(-1, *[1] * (plain.ndim - 1))
        wrong = plain.astype(np.float64)
        right = output_first(node, wrong).copy()
        if right.shape[:2] != (len(scale), len(scale)):
            continue
        if np.allclose(
            right * scale, output_first(node, weight), rtol=1e-2, atol=1e-6
        ):  # nothing else went in
            output_first(node, wrong).swapaxes(0, 1)[:] *= scale
            graph.put(node, 1, wrong)
            yield Planted(graph.model, name, site)


def exchanged(case: Case) -> Iterator[Planted]:
    """Two layers have each other's weights."""
    for (site, name), (_, other) in itertools.combinations(case.folds, 2):
        graph = case.edit()
        if list(graph.nodes).index(name) < list(graph.nodes).index(other):
            nodes = [graph.nodes[name], graph.nodes[other]]
            first, second = (graph.constant(node, 1) for node in nodes)
            if first is not None and second is not None and first.shape == second.shape:
                graph.put(nodes[0], 1, second)
                graph.put(nodes[1], 1, first)
                yield Planted(graph.model, name, site)


def shared_weight(case: Case) -> Iterator[Planted]:
    """A weight that another layer reads too is written over."""
    before = Graph(case.original)
    for _, name in case.folds:
        readers = before.readers(before.nodes[name].input[1]) if name in before.nodes else []
        for other in readers:
            graph = case.edit()
            weight = graph.constant(graph.nodes[name], 1)
            if other.name != name and weight is not None:
                graph.put(graph.nodes[other.name], 1, weight)
                yield Planted(graph.model, other.name)
