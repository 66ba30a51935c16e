"""Classes of channels: what is joined has one scale, and what holds one of them holds all."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.edge.channels import Channels, Classes
from bnfold.graph.facts import Facts
from tests.graphs import build, weight


def test_classes_against_a_plain_union() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        classes, sets = Classes(), [{at} for at in range(40)]
        every = classes.new(40)
        held: set[int] = set()
        for _ in range(rng.integers(1, 6)):
            first, second = rng.integers(0, 40, (2, int(rng.integers(1, 12))))
            classes.join(first, second)
            for one, other in zip(first.tolist(), second.tolist(), strict=True):
                joined = sets[one] | sets[other]
                for member in joined:
                    sets[member] = joined
            if rng.random() < 0.5:
                held.add(int(rng.integers(40)))
                classes.fix(np.array([max(held)]), "why")
                held = {max(held)} if len(held) == 1 else held
        roots = classes.root(every)
        for one in range(40):
            assert {at for at in range(40) if roots[at] == roots[one]} == sets[one]


def test_a_hold_is_of_the_whole_class_whenever_it_comes() -> None:
    classes = Classes()
    a, b, c = classes.new(3), classes.new(3), classes.new(3)
    classes.fix(a[:1], "first")
    classes.join(a, b)
    classes.fix(b[:2], "second")
    classes.join(c, b)
    assert classes.why_fixed(c) == ["first", "second", None]
    assert classes.is_free(a).tolist() == [False, False, True]


def test_a_channel_may_join_several_at_once() -> None:
    classes = Classes()
    ids = classes.new(6)
    classes.join(np.array([5, 5, 5, 1]), np.array([0, 3, 4, 5]))
    assert len(set(classes.root(ids[[0, 1, 3, 4, 5]]).tolist())) == 1
    assert classes.root(ids[[2]])[0] == 2


def test_a_hundred_thousand_channels_take_no_time() -> None:
    classes = Classes()
    made = [classes.new(1000) for _ in range(100)]
    start = time.process_time()
    for one, other in pairwise(made):
        classes.join(one, other)
    assert time.process_time() - start < 0.5
    assert np.array_equal(classes.root(made[-1]), made[0])


def channels(text: str, constants: dict[str, np.ndarray], opset: int = 18) -> Channels:
    return Channels(Facts(ir.from_proto(build(text, constants, opset=opset))))


def test_groups_and_axes_of_layers() -> None:
    found = channels(
        """g (float[2,4,6,6] x) => (float[2,3,?,?] y) {
            a = Conv <group = 2> (x, w1) b = ConvTranspose <group = 2> (a, w2) y = Conv (b, w3) }""",
        {"w1": weight(6, 2, 1, 1), "w2": weight(6, 4, 1, 1), "w3": weight(3, 8, 1, 1)},
    )
    first, second, third = found.layers
    assert [len(one.outputs) for one in found.layers] == [6, 8, 3]
    assert first.inputs is None
    assert np.array_equal(second.inputs, first.outputs)
    assert np.array_equal(third.inputs, second.outputs)
    assert (second.out_axis, second.sizes, second.groups) == (1, (8, 6), 2)


@pytest.mark.parametrize(
    ("middle", "order"),
    [
        ("h = Concat <axis = 1> (a, b)", [0, 1, 2, 3]),
        ("h = Concat <axis = 1> (b, a)", [2, 3, 0, 1]),
        ("c = Concat <axis = 1> (a, b) p, q = Split <axis = 1> (c)"
         " h = Concat <axis = 1> (q, p)", [2, 3, 0, 1]),
        ("s = Add (a, b) h = Concat <axis = 1> (s, b)", [0, 1, 0, 1]),
        ("c = Concat <axis = 2> (a, b) h = Concat <axis = 1> (c, c)", [0, 1, 0, 1]),
        ("c = Concat <axis = 1> (a, b) t = Transpose <perm = [0, 2, 1, 3]> (c)"
         " h = Transpose <perm = [0, 2, 1, 3]> (t)", [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_which_channels_a_layer_reads(middle: str, order: list[int]) -> None:
    found = channels(
        "g (float[2,3,4,4] x) => (float[2,5,?,?] y)"
        f" {{ a = Conv (x, w) b = Conv (x, v) {middle} y = Conv (h, u) }}",
        {"w": weight(2, 3, 1, 1), "v": weight(2, 3, 1, 1, seed=2), "u": weight(5, 4, 1, 1)},
        opset=13,
    )
    inputs = found.layers[-1].inputs
    assert inputs is not None
    own = np.concatenate([found.layers[0].outputs, found.layers[1].outputs])
    assert np.array_equal(found.classes.root(inputs), found.classes.root(own[order]))


def test_a_value_read_along_another_axis_is_held() -> None:
    found = channels(
        "g (float[2,3,4,4] x) => (float[2,4,4,5] y) { a = Conv (x, w) y = MatMul (a, u) }",
        {"w": weight(4, 3, 1, 1), "u": weight(4, 5)},
    )
    assert found.layers[1].inputs is None
    assert found.classes.why_fixed(found.layers[0].outputs) == ["MatMul reads it along another axis"] * 4


def test_a_reshape_that_mixes_channels_holds_them() -> None:
    found = channels(
        "g (float[2,3,4,4] x) => (float[2,2,2,16] y) { a = Conv (x, w) y = Reshape (a, s) }",
        {"w": weight(4, 3, 1, 1), "s": np.array([0, 2, 2, 16], np.int64)},
    )
    assert found.classes.why_fixed(found.layers[0].outputs)[0] == "Reshape does not let a scale through"
