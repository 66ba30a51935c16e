"""A trace in train mode is known by its graph; frozen scripts load; what cannot be exported says why."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError  # noqa: E402
from bnfold.torch.run_quietly import eval_mode  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch.jit says that it is one
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

EXAMPLE = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("layer", "named"), [(nn.BatchNorm2d(3), "batch_norm"), (nn.Dropout(), "dropout"), (nn.RReLU(), "rrelu")]
)
def test_a_trace_in_train_mode_is_refused(tmp_path, layer, named) -> None:
    torch.jit.trace(layer.train(), EXAMPLE, check_trace=False).eval().save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=f"traced in train mode: {named}"):
        bt.load(tmp_path / "m.pt")


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.Dropout(), nn.InstanceNorm2d(3)])
def test_a_trace_in_eval_mode_is_not(tmp_path, layer) -> None:
    torch.jit.trace(layer.eval(), EXAMPLE).save(tmp_path / "m.pt")
    assert not bt.load(tmp_path / "m.pt").was_training


def test_a_script_keeps_its_mode_as_a_flag(tmp_path) -> None:
    torch.jit.script(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()).save(tmp_path / "m.pt")
    assert bt.load(tmp_path / "m.pt").was_training


def test_a_frozen_script_loads(tmp_path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()))
    frozen.save(tmp_path / "m.pt")
    assert bt.load(tmp_path / "m.pt").source(EXAMPLE).shape == (2, 4, 8, 8)
    with eval_mode(bt.load(tmp_path / "m.pt").source) as nothing:  # it has no mode
        assert nothing is None


def images_net() -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    for norm in (net[0], net[2]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return net


FREEZE = {
    "scripted": lambda net: torch.jit.freeze(torch.jit.script(net)),
    "traced": lambda net: torch.jit.freeze(torch.jit.trace(net, EXAMPLE)),
    "not numerics": lambda net: torch.jit.freeze(torch.jit.script(net), optimize_numerics=False),
    "optimised": lambda net: torch.jit.optimize_for_inference(torch.jit.script(net[:1])),  # no convolution
}


@pytest.mark.parametrize("how", FREEZE)
def test_a_frozen_script_is_exported(tmp_path, how) -> None:
    net = images_net()
    FREEZE[how](net).save(tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        wanted = (net[:1] if how == "optimised" else net)(images)
        assert torch.allclose(loaded.source(images), wanted, atol=1e-5)
    assert not loaded.was_training
    model = bt.to_onnx(loaded, (images,))  # compares the two in ONNX Runtime
    assert model.graph.outputs


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)])
def test_a_script_without_its_weights_says_so(tmp_path, layer) -> None:
    script = torch.jit.script(nn.Sequential(layer, nn.ReLU()).eval())
    torch.jit.optimize_for_inference(script).save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match="optimize_for_inference") as caught:
        bt.load(tmp_path / "m.pt")
    assert "before it is optimised" in caught.value.fix
    script.save(tmp_path / "m.pt")  # what the message says to do
    assert bt.load(tmp_path / "m.pt").kind == "torchscript"


class TakesInt(nn.Module):
    """Takes an integer."""

    def forward(self, x, times: int):
        return x * times


class TakesDefault(nn.Module):
    """Takes a number that has a default."""

    def forward(self, x, scale: float = 2.0):
        return x * scale


class TakesOptional(nn.Module):
    """Takes a flag that may be left out."""

    def forward(self, x, flag: bool | None = None):
        return x if flag is None else -x


class TakesList(nn.Module):
    """Takes tensors in a list."""

    def forward(self, xs: list[torch.Tensor]):
        return xs[0]


class OnlyOther(nn.Module):
    """Has a method, and no forward."""

    @torch.jit.export
    def other(self, x: torch.Tensor):
        return x


@pytest.mark.parametrize(("cls", "named"), [(TakesList, r"xs \(List\[Tensor\]\)"), (OnlyOther, "forward")])
def test_scripts_that_no_tensor_can_be_given_to(tmp_path, cls, named) -> None:
    torch.jit.script(cls()).save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=named):
        bt.load(tmp_path / "m.pt")


class Around(nn.Module):
    """Calls another module with a value."""

    def __init__(self, inner, value) -> None:
        super().__init__()
        self.inner, self.value = inner, value

    def forward(self, x):
        return self.inner(x, self.value)


@pytest.mark.parametrize(
    ("cls", "named", "value"),
    [
        (TakesInt, r"times \(int\)", 3),
    ],
)
def test_plain_inputs_are_named_and_the_advice_works(tmp_path, cls, named, value) -> None:
    script = torch.jit.script(cls())
    script.save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=named) as caught:
        bt.load(tmp_path / "m.pt")
    assert "a module around this one" in caught.value.fix
    torch.jit.script(Around(script, value)).save(tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert torch.equal(loaded.source(EXAMPLE + 1), cls()(EXAMPLE + 1, value))
    assert bt.to_onnx(loaded, (EXAMPLE + 1,)).graph.outputs


@pytest.mark.parametrize(("cls", "note"), [(TakesDefault, "scale is 2.0"), (TakesOptional, "flag is None")])
def test_plain_inputs_with_a_default_stay_there(tmp_path, cls, note) -> None:
    torch.jit.script(cls()).save(tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert note in loaded.notes[0]
    assert len(bt.to_onnx(loaded, (EXAMPLE + 1,)).graph.inputs) == 1
