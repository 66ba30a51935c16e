"""The export against the module: what passes, what does not, and what is said."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
from torch import nn  # noqa: E402

from bnfold.errors import ModelError  # noqa: E402
from bnfold.torch.export.outputs import outputs_of  # noqa: E402
from bnfold.torch.export.verify import Run, Sample, Verifier  # noqa: E402

X = torch.linspace(-1, 1, 6).reshape(2, 3)
KINDS = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}


def exported(
    operator: str, inputs: tuple[str, ...] = ("x",), out: int = TensorProto.FLOAT, **attributes
) -> ir.Model:
    """One operator."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in inputs]
    result = [helper.make_tensor_value_info("y", out, ["n", "m"])]
    node = helper.make_node(operator, list(inputs), ["y"], **attributes)
    return ir.from_proto(
        helper.make_model(
            helper.make_graph([node], "g", ports, result),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=8,
        )
    )


def call(module: nn.Module) -> Run:
    def run(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        result: torch.Tensor = module(*inputs.values())
        return result

    return run


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def check(model: ir.Model, function, x: torch.Tensor = X, expected: torch.Tensor | None = None) -> None:
    module = Apply(function)
    outputs = outputs_of(module(x) if expected is None else expected)
    Verifier(model, module, call).check(Sample({"x": x}, outputs, " at batch 2"))


def test_what_agrees() -> None:
    check(exported("Relu"), torch.relu)
    check(exported("Sqrt"), torch.sqrt)  # NaN agrees with NaN
    check(exported("Log"), torch.log, torch.zeros(2, 3))  # and -inf with itself
    check(exported("ArgMax", out=TensorProto.INT64, axis=1), lambda x: x.argmax(1, keepdim=True))
    check(exported("Relu"), torch.relu, torch.zeros(0, 3))


@pytest.mark.parametrize(
    ("model", "function", "words"),
    [
        (exported("Relu"), lambda x: x.clamp(-0.01), "differs by 1.0e-02 of its scale"),
        (exported("Relu"), lambda x: x.relu().T, r"shape \[2, 3\] instead of \[3, 2\]"),
        (exported("Sqrt"), torch.relu, "differs by inf"),
        (exported("ArgMax", out=TensorProto.INT64, axis=1), lambda x: x.argmin(1, keepdim=True), "differs"),
    ],
)
def test_what_does_not(model: ir.Model, function, words: str) -> None:
    with pytest.raises(ModelError, match=f"what the module computes at batch 2: .*{words}") as caught:
        check(model, function)
    assert "torch.onnx.export gets this model wrong" in caught.value.fix


def test_another_number_of_outputs() -> None:
    with pytest.raises(ModelError, match="1 outputs instead of 2"):
        Verifier(exported("Relu"), nn.ReLU(), call).check(Sample({"x": X}, outputs_of((X.relu(), X))))


def test_what_is_random_is_said_to_be() -> None:
    with pytest.raises(ModelError) as caught:
        check(exported("Relu"), lambda x: x.relu() + torch.rand_like(x))
    assert "other numbers in every run" in caught.value.fix


def test_rounding_that_the_module_itself_has_is_allowed() -> None:
    def cancelling(x: torch.Tensor) -> torch.Tensor:  # the float32 result is off by a thousandth
        return (x + 1000) - 1000

    exact = exported("Identity")
    x = X / 7
    assert (cancelling(x) - x).abs().max() / x.abs().max() > 1e-4
    check(exact, cancelling, x)


def test_inputs_that_the_export_lacks_or_renames() -> None:
    module = Apply(lambda a, b: a - b)
    a, b = X, X * 2
    verifier = Verifier(exported("Sub", ("left", "right")), module, call)
    verifier.check(Sample({"a": a, "b": b}, outputs_of(a - b)))  # by order, where the names are others
    unused = Verifier(exported("Relu", ("a",)), Apply(lambda a, _: a.relu()), call)
    unused.check(Sample({"a": a, "b": b}, outputs_of(a.relu())))
    with pytest.raises(ModelError, match="inputs left, right for a"):
        verifier.check(Sample({"a": a}, outputs_of(a)))
