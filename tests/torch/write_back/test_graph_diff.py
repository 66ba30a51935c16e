"""A folded graph as edits of the module, and what has no such form."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

import bnfold  # noqa: E402
from bnfold import reasons  # noqa: E402
from bnfold.torch import Loaded, to_onnx  # noqa: E402
from bnfold.torch.write_back.edits import NewBias, Replace, SetTensor  # noqa: E402
from bnfold.torch.write_back.graph_diff import Comparison  # noqa: E402
from bnfold.torch.write_back.tensor_lookup import TensorMatch  # noqa: E402
from bnfold.torch.write_back.trace_run import trace_run  # noqa: E402
from tests.torch.modules import conv, image, made, norm  # noqa: E402


@pytest.fixture(scope="module")
def exported():
    """A convolution without a bias and one that is shared, each with a BatchNorm on one path."""
    torch.manual_seed(0)
    module = made(
        lambda m, x: (m.bn(m.conv(x)), m.norm(m.shared(x)).relu(), m.shared(x.flip(0))),
        conv=conv(bias=False),
        bn=norm(),
        shared=conv(),
        norm=norm(),
    ).double()
    x = image().double()
    return module, to_onnx(Loaded(module, "module", was_training=False), (x,)), trace_run(module, (x,), {})


def test_edits_and_refusals(exported):
    module, graph, run = exported
    difference = Comparison(graph, module, module, run).of(bnfold.fold(graph))
    found = {(type(edit), getattr(edit, "name", None) or edit.path) for edit in difference.edits}
    assert found == {(SetTensor, "conv.weight"), (NewBias, "conv"), (Replace, "bn"), (Replace, "norm")}
    assert difference.nodes == {"conv.weight": ("conv",), "conv.bias": ("conv",)}
    (reason,) = difference.keep.values()
    assert reason.rule is reasons.NO_PLACE
    assert "is used in several places" in reason.sentence


def test_what_is_kept_leaves_nothing_to_say(exported):
    module, graph, run = exported
    difference = Comparison(graph, module, module, run).of(bnfold.fold(graph, keep=["bn", "norm"]))
    assert not difference.edits
    assert not difference.keep


def test_a_module_with_a_hook_does_not_give_way(exported):
    module, graph, run = exported
    run = replace(run, hooked=frozenset({"bn"}))
    difference = Comparison(graph, module, module, run).of(bnfold.fold(graph))
    assert reasons.HOOK in {reason.rule for reason in difference.keep.values()}


def test_numbers_are_measured_by_the_types_of_the_users_own(exported):
    module, graph, run = exported
    small = copy.deepcopy(module)
    nn.init.constant_(small.bn.weight, 1e30)
    graph = to_onnx(Loaded(small, "module", was_training=False), (image().double(),))
    own = copy.deepcopy(module).half()
    difference = Comparison(graph, small, own, run).of(bnfold.fold(graph, keep=["norm"]))
    assert any("do not fit torch.float16" in reason.sentence for reason in difference.keep.values())


def test_a_bias_that_is_not_there_has_a_place(exported):
    module, graph, run = exported
    comparison = Comparison(graph, module, module, run)
    convs = [node for node in graph.graph if node.op_type == "Conv"]
    assert comparison.tensor(convs[0], 2) == TensorMatch("conv.bias")
    assert comparison.tensor(convs[1], 2) == TensorMatch("shared.bias")


def test_values_are_found_by_name(exported):
    module, graph, run = exported
    comparison = Comparison(graph, module, module, run)
    for value in (graph.graph.inputs[0], graph.graph.outputs[1]):
        assert comparison.value(value.name) is value
