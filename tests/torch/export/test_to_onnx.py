"""The exported ONNX model: every BatchNorm there, values right, module paths kept, the module untouched."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from bnfold.errors import InputError, ModelError  # noqa: E402
from bnfold.torch import Loaded, example_inputs, parse_shapes, to_onnx  # noqa: E402

exporting = sys.modules["bnfold.torch.export.to_onnx"]
onnxruntime = pytest.importorskip("onnxruntime")


class Net(nn.Module):
    """BatchNorms after a Conv, a ConvTranspose and a Linear, none trivial."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.up, self.norm = nn.ConvTranspose2d(4, 4, 2, 2), nn.BatchNorm2d(4)
        self.head, self.last = nn.Linear(4, 5), nn.BatchNorm1d(5)
        generator = torch.Generator().manual_seed(0)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.3)

    def forward(self, x):
        return self.last(self.head(self.norm(self.up(self.stem(x))).mean((2, 3))))


def as_loaded(module: nn.Module) -> Loaded:
    return Loaded(module, "module", was_training=module.training)


def run(model: ir.Model, *inputs: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {port.name: value.numpy() for port, value in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feeds)[0])


def count(model: ir.Model, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph)


@pytest.fixture(scope="module")
def exported() -> tuple[Net, torch.Tensor, ir.Model]:
    torch.manual_seed(0)
    module, x = Net().eval(), torch.randn(2, 3, 8, 8)
    return module, x, to_onnx(as_loaded(module), (x,))


def test_every_batchnorm_is_there_and_the_graph_is_clean(exported):
    _, _, model = exported
    assert count(model, "BatchNormalization") == 3
    assert {node.op_type for node in model.graph} == {
        "Conv", "BatchNormalization", "Relu", "ConvTranspose", "ReduceMean", "Gemm",
    }  # fmt: skip
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_values(exported):
    module, x, model = exported
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_module_paths_are_kept(exported):
    _, _, model = exported
    paths = [
        node.metadata_props["pkg.torch.onnx.name_scopes"]
        for node in model.graph
        if node.op_type == "BatchNormalization"
    ]
    assert ["stem.1" in paths[0], "norm" in paths[1], "last" in paths[2]] == [True] * 3


def test_train_mode_is_left_as_it_was(exported):
    module, x, model = exported
    module.train()
    module.stem[1].eval()
    before = {name: part.training for name, part in module.named_modules()}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    again = to_onnx(as_loaded(module), (x,))
    assert {name: part.training for name, part in module.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    np.testing.assert_array_equal(run(again, x), run(model, x))  # in eval mode all the same
    with pytest.raises(InputError):
        to_onnx(as_loaded(module), (torch.zeros(1, 1, 8, 8),))
    assert {name: part.training for name, part in module.named_modules()} == before
    module.eval()


def test_quiet_on_both_streams(exported, capfd, caplog):
    module, x, _ = exported
    to_onnx(as_loaded(module), (x,))
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def test_what_the_model_itself_warns_of_is_passed_on_and_prints_go_to_stderr(capfd):
    class Loud(nn.Module):
        def forward(self, x):
            print("hello")
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
            return x + 1

    with pytest.warns(UserWarning, match="mind the gap"):
        to_onnx(as_loaded(Loud()), (torch.zeros(2),))
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello" in err


def test_a_wrong_shape_is_the_users_mistake(exported):
    module, *_ = exported
    with pytest.raises(InputError, match="1x1x8x8") as caught:
        to_onnx(as_loaded(module), (torch.zeros(1, 1, 8, 8),))
    assert "channels" in caught.value.problem
    assert "\n" not in caught.value.problem


def test_what_the_exporter_cannot_do_is_one_line():
    class Branch(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ModelError, match="could not be exported") as caught:
        to_onnx(as_loaded(Branch()), (torch.ones(2),))
    assert "\n" not in caught.value.problem
    assert len(caught.value.problem) < 400


@pytest.mark.parametrize("size", [1, 2])
def test_dynamic_batch(exported, size):
    module, *_ = exported
    model = to_onnx(as_loaded(module), (torch.zeros(size, 3, 8, 8),), dynamic=["batch"])
    assert str(model.graph.inputs[0].shape[0]) == "batch"
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


class Many(nn.Module):
    """Two inputs and a dictionary with a tuple and nothing in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, image, mask):
        y = self.norm(self.conv(image))
        return {"logits": y * mask, "aux": (y, y.mean((2, 3))), "loss": None, "image": image + 1}


@pytest.mark.parametrize("by_name", [False, True])
def test_named_sizes_several_inputs_and_a_dictionary_of_outputs(by_name):
    module = Many().eval()
    inputs = {"image": torch.randn(1, 3, 8, 8), "mask": torch.randn(1, 1, 8, 8)}
    given = inputs if by_name else tuple(inputs.values())
    model = to_onnx(as_loaded(module), given, dynamic=["batch", "2=height", "image:3=width", "mask:3=width"])
    for value in model.graph.inputs:
        assert [str(size) for size in value.shape][2:] == ["height", "width"]
    assert [value.name for value in model.graph.outputs] == ["logits", "aux_0", "aux_1", "image_out"]
    x = torch.randn(3, 3, 6, 10), torch.randn(3, 1, 6, 10)
    np.testing.assert_allclose(run(model, *x), module(*x)["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_size_that_cannot_stay_open():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(InputError, match="height cannot stay open"):
        to_onnx(as_loaded(flat), (torch.zeros(1, 3, 8, 8),), dynamic=["2=height"])

    class Counted(nn.Module):
        def forward(self, x):
            return torch.stack([x[i] * i for i in range(x.shape[0])])

    with pytest.raises(ModelError) as caught:
        to_onnx(as_loaded(Counted()), (torch.ones(2, 3),), dynamic=["batch"])
    assert "\n" not in caught.value.problem


def test_any_number_of_inputs():
    class Any(nn.Module):
        def forward(self, *inputs):
            return inputs[0] - 2 * inputs[1]

    inputs = torch.randn(2, 3), torch.randn(2, 3)
    model = to_onnx(as_loaded(Any()), inputs)
    np.testing.assert_allclose(run(model, *inputs), inputs[0] - 2 * inputs[1])
    with pytest.raises(InputError, match="leaves no size open"):
        to_onnx(as_loaded(Any()), inputs, dynamic=["batch"])


def test_inputs_by_name():
    class Two(nn.Module):
        def forward(self, a, b):
            return a - 2 * b

    source = as_loaded(Two())
    inputs = example_inputs(source, parse_shapes(["b=3", "a=3"]))
    model = to_onnx(source, inputs)
    assert [value.name for value in model.graph.inputs] == ["a", "b"]
    np.testing.assert_allclose(run(model, inputs["a"], inputs["b"]), inputs["a"] - 2 * inputs["b"])


@pytest.mark.parametrize("opset", [13, 17, 18, 26])
def test_opset(exported, opset):
    module, x, _ = exported
    model = to_onnx(as_loaded(module), (x,), opset=opset)
    assert model.opset_imports == {"": opset}
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    assert len(norms) == 3
    assert "stem.1" in norms[0].metadata_props["pkg.torch.onnx.name_scopes"]
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_opset_that_the_model_cannot_have_names_the_operator():
    class Newer(nn.Module):
        def forward(self, x):
            return nn.functional.grid_sample(x, x.new_zeros(1, 2, 2, 2), align_corners=False)

    with pytest.raises(ModelError, match=r"opset 9: .*GridSample"):
        to_onnx(as_loaded(Newer()), (torch.ones(1, 1, 4, 4),), opset=9)


@pytest.mark.parametrize("opset", [6, 99])
def test_no_such_opset(exported, opset):
    module, x, _ = exported
    with pytest.raises(InputError, match=str(opset)):
        to_onnx(as_loaded(module), (x,), opset=opset)


def test_a_program_with_its_own_dynamic_sizes(exported):
    module, x, _ = exported
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (x,), dynamic_shapes={"x": {0: batch}})
    source = Loaded(program, "exported program", was_training=False)
    model = to_onnx(source, example_inputs(source, ()))
    assert count(model, "BatchNormalization") == 3
    x = torch.randn(5, 3, 8, 8)
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert str(model.graph.inputs[0].shape) == "[x_axis0,3,8,8]"
    named = to_onnx(source, (), dynamic=["batch"])
    assert str(named.graph.inputs[0].shape) == "[batch,3,8,8]"
    with pytest.raises(InputError, match="no open size at axis 2"):
        to_onnx(source, (), dynamic=["2=height"])


def test_half_precision():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).half().eval()
    source = as_loaded(module)
    model = to_onnx(source, example_inputs(source, parse_shapes(["1x3x8x8"])))
    assert model.graph.inputs[0].dtype == ir.DataType.FLOAT16
    assert count(model, "BatchNormalization") == 1


def test_ir_version(exported):
    module, x, _ = exported
    model = to_onnx(as_loaded(module), (x,), opset=17, ir_version=8)
    assert (model.ir_version, dict(model.graph.opset_imports)) == (8, {"": 17})
    assert ir.to_proto(model).ir_version == 8
    run(model, x)


def test_an_opset_that_only_the_legacy_exporter_writes():
    upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), upsample).eval()
    x, notes = torch.randn(1, 3, 8, 8), []
    module[1].running_mean.normal_()
    model = to_onnx(as_loaded(module), (x,), opset=10, note=notes.append)
    assert dict(model.graph.opset_imports) == {"": 10}
    (norm,) = (node for node in model.graph if node.op_type == "BatchNormalization")
    assert "'1'" in norm.metadata_props["pkg.torch.onnx.name_scopes"]
    assert len(notes) == 1
    assert "legacy exporter" in notes[0]
    assert "cannot be converted to opset 10" in notes[0]
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_an_exporter_gets_wrong_goes_to_the_other_one(exported, monkeypatch):
    module, x, right = exported
    wrong = ir.from_proto(ir.to_proto(right))
    for value in wrong.graph.initializers.values():
        if (value.name or "").endswith("running_mean"):
            value.const_value = ir.tensor(value.const_value.numpy() + 1)
    monkeypatch.setattr(exporting, "_dynamo", lambda _: wrong)
    notes = []
    model = to_onnx(as_loaded(module), (x,), note=notes.append)
    assert "legacy exporter" in notes[0]
    assert "does not compute what the module computes" in notes[0]
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(exporting, "_legacy", lambda _: wrong)
    with pytest.raises(ModelError, match="does not compute what the module computes"):
        to_onnx(as_loaded(module), (x,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one
def test_torchscript(exported):
    module, x, _ = exported
    notes = []
    model = to_onnx(as_loaded(torch.jit.script(module)), (x,), dynamic=["batch"], note=notes.append)
    assert "TorchScript" in notes[0]
    assert count(model, "BatchNormalization") == 3
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "output"]
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compared_is_said():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).bfloat16().eval()
    notes = []
    to_onnx(as_loaded(module), (torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16),), note=notes.append)
    assert [note for note in notes if "not compared" in note]
    assert [note for note in notes if "never updated" in note]


def test_a_forward_that_writes_into_its_input():
    class Writes(nn.Sequential):
        def forward(self, x):
            return super().forward(x.add_(1))

    module, x = Writes(nn.Conv2d(3, 4, 3)).eval(), torch.randn(2, 3, 8, 8)
    before, notes = x.clone(), []
    model = to_onnx(Loaded(module, "module", was_training=False), (x,), note=notes.append)
    assert torch.equal(x, before)
    assert not notes, "it was exported by the newer exporter and compared"
    np.testing.assert_allclose(run(model, x), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's
@pytest.mark.parametrize("scripted", [False, True])
def test_an_exporter_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, scripted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the other one is not tried, which would run the same code."""
    gate, calls = threading.Event(), []

    def export(*_: object, **options: object) -> None:
        calls.append(options["dynamo"])
        gate.wait()

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr(sys.modules["bnfold.torch.export.torchscript_exporter"], "SECONDS", 0.1)
    module = Net().eval()
    source = torch.jit.trace(module, torch.ones(1, 3, 8, 8)) if scripted else module
    loaded = Loaded(source, "torchscript" if scripted else "module", was_training=False)
    with pytest.raises(ModelError, match="did not end within"):
        to_onnx(loaded, [torch.ones(1, 3, 8, 8)])
    assert calls == [not scripted]
    print("standard output is there again")
    assert "again" in capsys.readouterr().out
    gate.set()
