"""The open sizes of a program get names that people can read, wherever the model speaks of them."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import parser

pytest.importorskip("torch")

from bnfold.errors import InputError
from bnfold.torch.export.open_sizes import parse_dynamic
from bnfold.torch.export.symbols import name_sizes

TWO = """<ir_version: 8, opset_import: ["": 18]>
g (float[s77,3,s4] image, float[s77,s15] mask, float[K,2] other) => (float[s77,u0] y)
<float[s77,3,s4] a> {
    a = Relu(image) y = Flatten(a) }"""


def shapes(*dynamic: str) -> dict[str, str]:
    """The shapes after the sizes were named."""
    model = ir.from_proto(parser.parse_model(TWO))
    expression = ir.SymbolicDim("2*s4 - 1")
    model.graph.node(0).outputs[0].shape = ir.Shape([ir.SymbolicDim("s77"), 3, expression])
    name_sizes(model, parse_dynamic(dynamic))
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {str(value.name): str(value.shape) for value in values}


def test_a_size_is_called_by_its_first_input_and_axis() -> None:
    assert shapes() == {
        "image": "[image_axis0,3,image_axis2]",
        "mask": "[image_axis0,mask_axis1]",
        "other": "[K,2]",
        "a": "[image_axis0,3,2*image_axis2 - 1]",
        "y": "[image_axis0,u0]",
    }


def test_or_as_the_user_calls_it() -> None:
    found = shapes("batch", "image:-1=length")
    assert found["image"] == "[batch,3,length]"
    assert found["mask"] == "[batch,mask_axis1]"
    assert found["a"] == "[batch,3,2*length - 1]"


@pytest.mark.parametrize(
    ("dynamic", "problem"),
    [
        (["1=height"], ""),
        (["image:1=height"], "no open size at axis 1 of image"),
        (["x:0=batch"], "no open size at axis 0 of x"),
        (["9=far"], "no open size at axis 9 of its inputs"),
        (["image:0=n", "mask:0=m"], "n and m are one size of the program"),
        (["image:0=n", "image:2=n"], "one name to sizes that may differ"),
        (["image:2=mask_axis1"], "one name to sizes that may differ"),
    ],
)
def test_a_name_is_for_one_size_that_is_open(dynamic: list[str], problem: str) -> None:
    if not problem:
        assert shapes(*dynamic)["mask"] == "[image_axis0,height]"
        return
    with pytest.raises(InputError, match=problem):
        shapes(*dynamic)
