"""Random regions of parallel linear branches: the same function, never more convolutions, never more work."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

import bnfold
from tests import graphs
from tests.folding.test_property import worst
from tests.random_graphs import random_feeds
from tests.random_values import Grower, Typed

EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "100"))
TOLERANCE = 1e-4  # float32, a few convolutions deep, relative to the largest element
EXACT = 1e-9  # float64
figures = {
    "regions": 0,
    "with a merge": 0,
    "merges": 0,
    "branches merged": 0,
    "sums": 0,
    "second opinions": 0,
}


def affine(g: Grower, v: Typed) -> Typed:
    """A BatchNorm, or arithmetic with a number a channel."""
    kind, c = g.pick(("BatchNormalization", "Mul", "Add", "Sub")), v.shape[1]
    if kind == "BatchNormalization":
        gamma, var = g.numbers(c, low=0.5, high=1.6), g.numbers(c, low=0.7, high=1.4)
        return g.node(kind, [v, gamma, g.numbers(c), g.numbers(c), var], v.shape)
    numbers = g.numbers(c, *[1] * (v.rank - 2), low=0.5, high=1.6)
    return g.node(kind, [numbers, v] if g.chance(4) else [v, numbers], v.shape)


def window(
    g: Grower, v: Typed, stride: int
) -> tuple[list[int], list[int], list[int], tuple[int, ...]] | None:
    """Sizes, dilations and pads, mostly such that the output is as long as the source, and its shape."""
    size, dilation, begins, ends, out = [], [], [], [], []
    for length in v.shape[2:]:
        size.append(g.pick((3, 1, 2, 3)))
        dilation.append(2 if g.chance(6) else 1)
        reach = dilation[-1] * (size[-1] - 1)
        total = 0 if g.chance(8) else reach
        begins.append(g.pick((0, total)) if g.chance(6) else total // 2)
        ends.append(total - begins[-1])
        out.append((length + total - reach - 1) // stride + 1)
    return (size, dilation, begins + ends, tuple(out)) if min(out) > 0 else None


def convolution(g: Grower, v: Typed, stride: int, cout: int) -> Typed | None:
    """A Conv of any kernel, groups, dilation and padding."""
    found, c = window(g, v, stride), v.shape[1]
    if found is None:
        return None
    size, dilation, pads, out = found
    groups = g.pick([n for n in (1, 2, c) if c % n == 0 and cout % n == 0])
    weight = g.numbers(cout, c // groups, *size)
    bias = [g.numbers(cout)] if g.choose(2) else []
    strides = [stride] * len(size)
    return g.node(
        "Conv", [v, weight, *bias], (v.shape[0], cout, *out),
        group=groups, dilations=dilation, pads=pads, strides=strides,
    )  # fmt: skip


def mean(g: Grower, v: Typed, stride: int) -> Typed | None:
    """An AveragePool that counts its padding, or not."""
    found = window(g, v, stride)
    if found is None:
        return None
    size, _, pads, _ = found
    total = [begin + end for begin, end in zip(pads[: len(size)], pads[len(size) :], strict=True)]
    if any(pad >= k for pad, k in zip(pads, size * 2, strict=True)):
        return None
    lengths = zip(v.shape[2:], total, size, strict=True)
    out = tuple((length + pad - k) // stride + 1 for length, pad, k in lengths)
    if min(out) < 1:
        return None
    return g.node(
        "AveragePool", [v], (*v.shape[:2], *out), kernel_shape=size, pads=pads,
        strides=[stride] * len(size), count_include_pad=1 - g.choose(4) // 3,
    )  # fmt: skip


def branch(g: Grower, source: Typed, stride: int, cout: int) -> Typed | None:
    """One branch over a source: mostly a Conv, perhaps behind a pointwise one, perhaps before an affine."""
    kind = g.choose(8)
    made: Typed | None = source
    if kind == 5:
        made = mean(g, source, stride)
    elif kind == 6 and stride == 1:
        made = affine(g, source)
    elif kind != 7 or stride != 1:
        if kind == 4:
            ones = [1] * (source.rank - 2)
            shape = (source.shape[0], 4, *source.shape[2:])
            source = g.node("Conv", [source, g.numbers(4, source.shape[1], *ones)], shape)
        made = convolution(g, source, stride, cout)
    if made is not None and g.chance(3):
        made = affine(g, made)
    if made is not None and g.chance(8):
        made = g.node("Identity", [made], made.shape)
    return made


def added(g: Grower, terms: list[Typed]) -> list[Typed]:
    """Nested sums of all terms that have one shape, or repeat one another."""
    while len(terms) > 1:
        first = terms.pop(g.choose(len(terms)))
        fits = [t for t in terms if _together(first, t) is not None]
        if not fits:
            terms.append(first)
            return terms
        second = g.pick(fits)
        terms.remove(second)
        shape, inputs = _together(first, second), [first, second]
        alike = [t for t in terms if t.shape == shape]
        op = g.pick(("Add", "Add", "Sub", "Sum"))
        if op == "Sum" and alike:
            inputs.append(g.pick(alike))
            terms.remove(inputs[-1])
        assert shape is not None
        figures["sums"] += 1
        made = g.node(op, inputs, shape)
        terms.append(affine(g, made) if g.chance(4) else made)
    return terms


def _together(first: Typed, second: Typed) -> tuple[int, ...] | None:
    if first == second or first.rank != second.rank:
        return None
    pairs = list(zip(first.shape, second.shape, strict=True))
    return tuple(max(pair) for pair in pairs) if all(a == b or 1 in (a, b) for a, b in pairs) else None


def region(choose: Callable[[int], int], dtype: type = np.float32) -> onnx.ModelProto:
    """One or two sources, one to three blocks of branches over them or over one another."""
    grower = Grower(choose, dtype)
    spatial = grower.pick(((6, 5), (7,), (4, 4), (3, 4, 3), (1, 5)))
    inputs = []
    for index in range(1 + choose(2)):
        shape = (2, grower.pick((4, 4, 2, 1)), *spatial)
        dims: list[Any] = [*shape[:2], "H", *shape[3:]] if choose(4) == 3 else list(shape)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        inputs.append(helper.make_tensor_value_info(f"x{index}", kind, dims))
        inputs[-1].doc_string = ",".join(map(str, shape))
        grower.values.append(Typed(f"x{index}", shape))
    for _ in range(1 + choose(3)):
        sources = [v for v in grower.values if v.rank > 2][-3:]
        stride, cout = grower.pick((1, 1, 2)), grower.pick((4, 4, 2, 1))
        source = grower.pick(sources)
        made = []
        for _ in range(2 + choose(4)):
            over = grower.pick(sources) if grower.chance(6) else source
            made.append(branch(grower, over, 1 if grower.chance(8) else stride, cout))
        terms = [term for term in made if term is not None]
        for value in added(grower, list(dict.fromkeys(terms))):
            if grower.chance(3):
                grower.node("Relu", [value], value.shape)
    made = [value for value in grower.values if not value.name.startswith("x")]
    outputs = [value.name for value in made if not grower.read[value.name]]
    if made and choose(4) == 3:
        outputs.append(made[choose(len(made))].name)
    graph = grower.graph("region", inputs, sorted(set(outputs)))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def multiply_adds(model: onnx.ModelProto) -> int:
    """Of all Convs, means and affines, over all positions."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, value.doc_string.split(","), strict=True):
            dim.dim_value = int(size)
    for value in [*model.graph.output, *model.graph.value_info]:
        value.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model)
    known = [*model.graph.value_info, *model.graph.output]
    shapes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in known}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        elements = math.prod(shapes[node.output[0]])
        if node.op_type == "Conv":
            total += elements * math.prod(constants[node.input[1]].dims[1:])
        elif node.op_type == "AveragePool":
            total += elements * math.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
        elif node.op_type == "BatchNormalization" or any(name in constants for name in node.input):
            total += elements
    return total


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 100, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_merging_changes_no_function_and_costs_nothing(data: st.DataObject) -> None:
    choices: list[int] = []

    def choose(n: int) -> int:
        choices.append(data.draw(st.integers(0, n - 1)) if n > 1 else 0)
        return choices[-1]

    check(region(choose), choices)


def check(model: onnx.ModelProto, choices: list[int]) -> None:
    """Demand all that merging promises of one random region."""
    if not model.graph.output:
        return
    result = bnfold.fold(model)
    onnx.checker.check_model(result.model, full_check=True)
    apart = bnfold.fold(model, merge=False).model
    for before in (model, apart):
        assert graphs.operators(result.model).count("Conv") <= graphs.operators(before).count("Conv")
    assert multiply_adds(result.model) <= multiply_adds(model)
    assert result.nodes_after <= result.nodes_before
    assert all(merge.multiply_adds_after <= merge.multiply_adds_before for merge in result.merges)
    assert [v.name for v in result.model.graph.output] == [v.name for v in model.graph.output]
    again = bnfold.fold(result.model).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    figures["regions"] += 1
    figures["with a merge"] += bool(result.merges)
    figures["merges"] += len(result.merges)
    figures["branches merged"] += sum(len(merge.branches) for merge in result.merges)
    feeds = random_feeds(model, 0)
    error = worst(graphs.run(model, feeds), graphs.run(result.model, feeds))
    if error > TOLERANCE:
        # numbers may cancel; in float64, where they cannot so easily, there is no excuse
        figures["second opinions"] += 1
        assert exact_error(choices) < EXACT, f"relative error {error:.1e}"


def exact_error(choices: list[int]) -> float:
    """The error of the same region grown and folded in float64, evaluated by ONNX's reference."""
    replay: Iterator[int] = iter(choices)
    model = region(lambda _: next(replay), np.float64)
    feeds = random_feeds(model, 0)
    return worst(*(ReferenceEvaluator(m).run(None, feeds) for m in (model, bnfold.fold(model).model)))


def test_the_random_regions_are_worth_it() -> None:
    """Runs behind the property: regions in which nothing merges would prove nothing."""
    assert figures["regions"] >= 0.9 * EXAMPLES
    assert figures["with a merge"] >= 0.4 * figures["regions"], figures
    print(figures)
