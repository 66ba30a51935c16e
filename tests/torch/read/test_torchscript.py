"""A trace in train mode is known by its graph."""

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
