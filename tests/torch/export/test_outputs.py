"""Outputs in any container, and their names."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")

from bnfold.torch.export.outputs import name_outputs, outputs_of  # noqa: E402

A, B, C = (torch.full((2,), float(i)) for i in range(3))


class Pair(NamedTuple):
    """Two tensors by name."""

    boxes: torch.Tensor
    scores: torch.Tensor


@pytest.mark.parametrize(
    ("result", "names", "tensors"),
    [
        (A, (None,), (A,)),
        ((A, B), ("output_0", "output_1"), (A, B)),
        ([A], ("output_0",), (A,)),
        ({"logits": A, "aux": (B, C)}, ("logits", "aux_0", "aux_1"), (A, B, C)),
        ({"logits": A, "loss": None, "steps": 3}, ("logits",), (A,)),
        (Pair(A, B), ("boxes", "scores"), (A, B)),
        ((A, {"a": B}), ("output_0", "output_1_a"), (A, B)),
    ],
)
def test_containers(result, names, tensors) -> None:
    found = outputs_of(result)
    assert found.names == names
    assert all(one is other for one, other in zip(found.tensors, tensors, strict=True))


def model(outputs: list[str]) -> ir.Model:
    """Relu, then Neg; the input is called logits."""
    nodes = [helper.make_node("Relu", ["logits"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ["logits", *outputs]]
    return ir.from_proto(helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:])))


@pytest.mark.parametrize(
    ("outputs", "names", "expected"),
    [
        (["a", "b"], ("x", "y"), ["x", "y"]),
        (["b"], (None,), ["output"]),
        (["b"], ("logits",), ["logits_out"]),  # the input keeps its name
        (["b"], ("a",), ["a_out"]),
        (["logits", "b"], ("x", "y"), ["logits", "y"]),  # an input that is returned is the input
        (["a", "b"], ("x",), ["a", "b"]),  # another number of outputs: nothing is known
    ],
)
def test_names(outputs: list[str], names: tuple[str | None, ...], expected: list[str]) -> None:
    made = model(outputs)
    name_outputs(made, names, single="output")
    assert [value.name for value in made.graph.outputs] == expected
    ir.to_proto(made)
