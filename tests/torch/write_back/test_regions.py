"""What is left of a module's nodes, and what may take its place."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

from bnfold.graph.nodes import path_of
from bnfold.torch.write_back.edits import Convolution, Relu
from bnfold.torch.write_back.regions import Region, ancestors, is_within, merged, without_affines


class Draft:
    """A sequence of nodes; each reads the last output unless specified otherwise."""

    def __init__(self):
        self.last, self.nodes = ir.Value(name="x"), []

    def add(self, op, path, name, *more, source=None, output=None, **attributes):
        node = ir.node(op, [source or self.last, *more], attributes, name=name)
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(["", *([path] if path else []), name])
        node.outputs[0].name = output or name
        self.last = node.outputs[0]
        self.nodes.append(node)
        return node

    def graph(self):
        self.graph_ = ir.Graph([], [self.last], nodes=self.nodes)
        return self.graph_


def numbers(*shape, name="c"):
    return ir.Value(name=name, const_value=ir.Tensor(np.ones(shape, np.float32), name=name))


def plain(path):
    return "odd" not in path


def block(*, folded, act="m.bn.act", functional=None):
    draft = Draft()
    draft.add("Conv", "m.conv", "conv", numbers(4, 3, 1, 1), output="bn" if folded else "conv")
    if not folded:
        draft.add("BatchNormalization", "m.bn", "bn", *(numbers(4) for _ in range(4)))
    draft.add(functional or "Sigmoid", act, "act")
    draft.add("Neg", "m", "end")
    return draft.graph()


def left(path="m.bn", **more):
    before, after = (Region.of(block(folded=folded, **more), path) for folded in (False, True))
    return without_affines(path, before, after, frozenset({"bn"}), plain)


def test_paths():
    node = Draft().add("Neg", "a.b", "n")
    assert path_of(node) == "a.b"
    assert path_of(Draft().add("Neg", "", "n")) == ""
    assert path_of(ir.node("Neg", [None])) is None
    assert is_within(node, "a")
    assert is_within(node, "a.b")
    assert not is_within(node, "a.bc")
    assert list(ancestors("a.b.c")) == ["a.b", "a"]


def test_borders():
    region = Region.of(block(folded=False), "m.bn")
    assert [node.name for node in region.nodes] == ["bn", "act"]
    assert region.ends == ("conv", "act")
    assert Region(()).ends is None


def test_a_batchnorm_alone_leaves_nothing():
    assert left(act="m.other") == ()


def test_one_with_an_activation_leaves_that():
    assert left() == ("act",)
    assert left(act="m.bn", functional="Relu") == (Relu(),)


def test_what_is_no_module_and_no_relu_cannot_be_left():
    assert left(act="m.bn") is None
    assert left(act="m.bn.odd") is None


def test_a_module_that_lost_more_than_affine_maps_stays():
    before, after = Region.of(block(folded=False), "m"), Region.of(block(folded=True), "m")
    gone = frozenset({"bn", "conv"})
    assert without_affines("m", before, after, gone, plain) is None
    assert without_affines("odd", before, after, frozenset({"bn"}), plain) is None


def branches(*, folded, pads=(1, 1, 1, 1), source="x"):
    draft = Draft()
    x = draft.last = ir.Value(name=source)
    one = draft.add(
        "Conv", "m.a", "conv_a", numbers(4, 4, 3, 3), pads=list(pads), output="sum" if folded else "a"
    )
    if not folded:
        two = draft.add("Conv", "m.b", "conv_b", numbers(4, 4, 1, 1), source=x)
        draft.add("Add", "m", "sum", two.outputs[0], source=one.outputs[0])
    draft.add("Relu", "m", "act")
    draft.add("Neg", "", "end")
    return draft.graph(), one


@pytest.mark.parametrize(
    ("change", "is_one"),
    [({}, True), ({"pads": (1, 1, 0, 0)}, False), ({"source": "x.scaled"}, False)],
    ids=["merged", "pads that a layer has not", "of something else"],
)
def test_branches_that_are_one_convolution_now(change, is_one):
    before, _ = branches(folded=False)
    after, conv = branches(folded=True, **change)
    parts = merged("m", Region.of(before, "m"), Region.of(after, "m"), conv, plain)
    assert (parts is not None) == is_one
    if parts is not None:
        assert isinstance(parts[0], Convolution)
        assert (parts[0].padding, parts[0].stride, parts[0].bias, parts[1]) == ((1, 1), (1, 1), None, Relu())


def test_a_part_of_the_branches_is_not_the_place():
    before, _ = branches(folded=False)
    after, conv = branches(folded=True)
    assert merged("m.a", Region.of(before, "m.a"), Region.of(after, "m.a"), conv, plain) is None
