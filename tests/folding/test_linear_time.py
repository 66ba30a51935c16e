"""Planning takes time in proportion to the number of nodes."""

from __future__ import annotations

import gc
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from bnfold.folding.fold import fold_into
from bnfold.folding.ways import Guide
from tests.graphs import statistics

NODES = 1200
ROUNDS = 6
CHANNELS = 2
FLOAT = onnx.TensorProto.FLOAT


def chain(nodes: int, *steps: str) -> ir.Model:
    """A chain of so many nodes over the steps again and again, with constants of their own."""
    rng = np.random.default_rng(0)
    made, initializers, value = [], [], "x"
    for place in range(nodes):
        step = steps[place % len(steps)]
        arrays = {
            "Conv": {"w": rng.normal(0, 1, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)},
            "BatchNormalization": statistics(CHANNELS, seed=place),
            "Mul": {"m": rng.uniform(0.5, 2, (CHANNELS, 1, 1)).astype(np.float32)},
            "Add": {"a": rng.normal(0, 1, (CHANNELS, 1, 1)).astype(np.float32)},
        }.get(step, {})
        names = [f"{name}{place}" for name in arrays]
        for name, array in zip(names, arrays.values(), strict=True):
            initializers.append(onnx.numpy_helper.from_array(array, name))
        made.append(helper.make_node(step, [value, *names], [f"v{place}"], name=f"n{place}"))
        value = f"v{place}"
    shape = [1, CHANNELS, 4, 4]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(value, FLOAT, shape)],
        initializers,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def fan(branches: int) -> ir.Model:
    """So many BatchNorms of one value, all terms of one sum, after which nothing takes a shift."""
    rng = np.random.default_rng(1)
    initializers, made = [], []
    for place in range(branches):
        arrays = statistics(CHANNELS, seed=place)
        names = [f"{name}{place}" for name in arrays]
        initializers += [
            onnx.numpy_helper.from_array(a, n) for n, a in zip(names, arrays.values(), strict=True)
        ]
        made.append(helper.make_node("BatchNormalization", ["v", *names], [f"b{place}"]))
    kernel = rng.normal(0, 1, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    initializers.append(onnx.numpy_helper.from_array(kernel, "w"))
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["v"]),
        *made,
        helper.make_node("Sum", [f"b{place}" for place in range(branches)], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, CHANNELS, 4, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "fan", ends[:1], ends[1:], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def seconds(model: ir.Model) -> float:
    """The processor's time for one plan, which other processes do not lengthen as they do the wall clock's.

    Python's cyclic collector runs now and then, for as long as there are objects, so it stays off meanwhile.
    """
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        fold_into(lambda _: None, model)
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "steps",
    [
        ("Conv", "BatchNormalization", "Relu"),
        ("Conv", "Sigmoid", "BatchNormalization", "Relu"),  # refused: nothing around takes it
        ("Conv", "Mul", "Add", "Relu"),
        ("BatchNormalization",),  # one chain of all
        ("Add",),  # one sum of all
    ],
    ids="-".join,
)
def test_twice_the_nodes_take_hardly_more_than_twice_the_time(steps) -> None:
    short, long = chain(NODES, *steps), chain(2 * NODES, *steps)
    best = [float("inf")] * 2
    for _ in range(ROUNDS):  # in turns, so that a busy moment meets both
        best = [min(old, seconds(model)) for old, model in zip(best, (short, long), strict=True)]
        if best[1] <= 2.3 * best[0]:
            return
    pytest.fail(f"{NODES} nodes took {best[0]:.2f} s and twice as many {best[1]:.2f} s")


@pytest.mark.parametrize("branches", [100, 200])
def test_what_one_search_found_impossible_no_other_tries_again(branches, monkeypatch):
    steps = []
    ask = Guide.ways

    def count(self: object, *task: object) -> object:
        steps.append(task)
        return ask(self, *task)

    monkeypatch.setattr(Guide, "ways", count)
    result = fold_into(None, fan(branches))
    assert [site.status for site in result.sites] == ["kept"] * branches
    assert len(steps) <= 10 * branches  # it was more than one for each pair
