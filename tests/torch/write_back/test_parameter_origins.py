"""From the names of a folded copy to those of the original."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from bnfold.torch import fold  # noqa: E402
from models.batchnorms import seeded_statistics  # noqa: E402
from tests.torch.modules import Branches, conv, image, norm  # noqa: E402


@pytest.fixture(scope="module")
def parameters():
    torch.manual_seed(0)
    network = nn.Sequential(conv(bias=False), norm(), Branches(), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return fold(seeded_statistics(network).eval(), image()).parameters


def numbers(norm):
    return tuple(f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var"))


def test_what_a_layer_took_stands_behind_its_own(parameters):
    assert parameters["0.weight"] == ("0.weight", *numbers("1"))


def test_a_new_bias_is_made_of_others_alone(parameters):
    assert parameters["0.bias"] == numbers("1")


def test_what_nothing_was_folded_into_is_itself(parameters):
    assert parameters["4.bias"] == ("4.bias",)


def test_a_merged_convolution_is_made_of_all_branches(parameters):
    for name in ("2.conv.weight", "2.conv.bias"):
        assert {"2.three.weight", "2.one.weight", *numbers("2.bn1"), *numbers("2.bn3")} <= set(
            parameters[name]
        )
    assert not any(name.startswith(("2.three", "2.one", "2.bn")) for name in parameters)
