"""Changes to a copy: numbers in place, biases, modules that are replaced."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.torch.write_back.edits import Convolution, NewBias, Relu, Replace, SetTensor, apply  # noqa: E402
from tests.torch.modules import image  # noqa: E402


def test_numbers_are_written_in_place_and_rounded_once():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).half()
    module[1].weight = module[0].weight
    before = module[0].weight
    array = np.full((2, 2), 1 / 3)
    apply([SetTensor("0.weight", array)], module)
    assert module[0].weight is module[1].weight is before
    assert torch.equal(before, torch.from_numpy(array).half())


def test_a_bias_is_made_like_the_weight():
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False).bfloat16())
    module[0].weight.requires_grad = False
    apply([NewBias("0", np.asarray([1.0, 2.0]))], module)
    assert list(module.state_dict()) == ["0.weight", "0.bias"]
    assert (module[0].bias.dtype, module[0].bias.requires_grad) == (torch.bfloat16, False)


def test_a_module_gives_way_everywhere_and_keeps_its_mode():
    norm = nn.BatchNorm2d(2).eval()
    module = nn.Sequential(norm, nn.Sequential(norm)).train()
    norm.eval()
    apply([Replace("0")], module)
    assert isinstance(module[0], nn.Identity)
    assert module[1][0] is module[0]
    assert not module[0].training


def test_children_keep_their_names_and_new_parts_get_free_ones():
    old = nn.Module()
    old.conv, old.act = nn.Conv2d(2, 2, 1), nn.PReLU()
    module = nn.Sequential(old)
    array = np.ones((2, 2, 3, 3))
    kernel = Convolution(array, None, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=1)
    apply([Replace("0", (kernel, "act", Relu(), "conv"))], module)
    assert [name for name, _ in module[0].named_children()] == ["conv_", "act", "act_", "conv"]
    expected = nn.functional.conv2d(image(1, 2, 6, 6), torch.ones(2, 2, 3, 3), None, (2, 1), (1, 0), (1, 2))
    assert torch.equal(module[0].conv_(image(1, 2, 6, 6)), expected)
    assert module[0].conv is old.conv


def test_numbers_come_before_modules():
    module = nn.Sequential(nn.Sequential(nn.PReLU(2), nn.BatchNorm2d(2)))
    apply([Replace("0", ("0",)), SetTensor("0.0.weight", np.asarray([1.0, 2.0]))], module)
    assert module[0][0].weight.tolist() == [1, 2]
