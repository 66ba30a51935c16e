"""Open sizes are fixed, with all that follows, or refused where they contradict the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.contract.contract import Contract
from bnfold.contract.sizes import fixed
from bnfold.errors import InputError
from bnfold.files.load import from_proto
from bnfold.runtime.interface import interface
from tests.contract.nets import PADDED, classifier, model
from tests.graphs import build, run, weight

PAIR = "g (float[N,T] a, float[N,4] b, float[1] c) => (float[N,M] y) { y = Concat<axis=1>(a, b) }"


def shapes(changed: ir.Model) -> dict[str, tuple[int | str | None, ...] | None]:
    ports = interface(changed)
    return {port.name: port.shape for port in (*ports.inputs, *ports.outputs)}


def test_a_shape_of_the_only_input_goes_through_the_graph() -> None:
    changed = fixed(model(PADDED), None, {"": (2, 3, 6, 7)})
    assert shapes(changed.model) == {"x": (2, 3, 6, 7), "y": (2, 5)}
    inner = {value.name: value.shape for node in changed.model.graph for value in node.outputs}
    assert str(inner["c"]) == "[2,4,6,7]"
    assert changed.sentence == "Set the input 'x' to [2, 3, 6, 7]."
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 6, 7)).astype(np.float32)}
    assert np.array_equal(run(ir.to_proto(changed.model), feeds)[0], run(classifier(PADDED), feeds)[0])
    onnx.checker.check_model(ir.to_proto(changed.model), full_check=True)


def test_a_name_that_stands_for_a_size_does_so_everywhere() -> None:
    pair = from_proto(build(PAIR.replace("[1] c", "[N] c")))
    changed = fixed(pair, None, {"a": (3, 2)})
    assert shapes(changed.model) == {"a": (3, 2), "b": (3, 4), "c": (3,), "y": (3, 6)}
    only_batch = fixed(pair, 3, {})
    assert shapes(only_batch.model) == {"a": (3, "T"), "b": (3, 4), "c": (3,), "y": (3, "M")}
    assert only_batch.sentence.endswith("; open sizes stay in a: float32 [3, T].")
    assert shapes(pair)["a"] == ("N", "T"), "the model that was given was changed"


@pytest.mark.parametrize(
    ("batch", "wanted", "problem"),
    [
        (None, {"b": (1, 5)}, "'b' has the size 4 on axis 1, not 5"),
        (None, {"a": (1, 5), "b": (2, 4)}, "size 1 on axis 0, which 'N' stands for, not 2"),
        (1, {"a": (2, 5)}, "size 2 on axis 0, which 'N' stands for, not 1"),
        (None, {"a": (1, 2, 3)}, "has 2 dimensions, and 3 were given"),
        (None, {"d": (1,)}, "no input 'd'"),
        (None, {"": (1, 2)}, "has 3 inputs: a: float32"),
    ],
)
def test_contradictions_are_refused(
    batch: int | None, wanted: dict[str, tuple[int, ...]], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        fixed(from_proto(build(PAIR)), batch, wanted)
    assert caught.value.fix


def test_sizes_that_an_operator_does_not_take_name_it() -> None:
    text = "g (float[N,3,H,4] x) => (float[N,5] y) { f = Flatten(x) y = MatMul(f, m) }"
    net = from_proto(build(text, {"m": weight(48, 5)}))
    assert shapes(fixed(net, None, {"": (2, 3, 4, 4)}).model)["y"] == (2, 5)
    with pytest.raises(InputError, match=r"does not take these sizes: .*MatMul"):
        fixed(net, None, {"": (2, 3, 5, 4)})


def test_unnamed_sizes_and_an_input_of_unknown_rank() -> None:
    net = from_proto(build("g (float[N] x, float z) => (float[N] y) { y = Add(x, z) }"))
    net.graph.inputs[0].shape = ir.Shape([None])
    net.graph.inputs[1].shape = None
    changed = fixed(net, 2, {"z": (2,)})
    assert shapes(changed.model) == {"x": (2,), "z": (2,), "y": (2,)}


def test_a_first_size_that_is_fixed_is_no_batch_where_others_are_open() -> None:
    text = """g (float[N,2] x, float[2,N,3] state) => (float[N,2] y, float[2,N,3] z) {
        y = Relu(x) z = Relu(state)
    }"""
    changed = fixed(from_proto(build(text)), 1, {})
    assert shapes(changed.model) == {"x": (1, 2), "state": (2, 1, 3), "y": (1, 2), "z": (2, 1, 3)}
    with pytest.raises(InputError, match="'x' has the size 2 on axis 0, not 1"):
        fixed(model(shape="2,3,4,4"), 1, {})


def test_what_is_set_already() -> None:
    changed = fixed(model(shape="1,3,4,4"), 1, {})
    assert changed.sentence == "All sizes were set as asked for already."


def test_sizes_that_are_none() -> None:
    with pytest.raises(InputError, match="0 is not a batch size"):
        Contract(batch=0)
    with pytest.raises(InputError, match="is not a shape for x"):
        Contract(shapes={"x": (1, 0)})
