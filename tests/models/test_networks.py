"""Every reference network has the shapes, layers and BatchNorms that its docstring and the README state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import models
from models.branches import Branches
from models.dense import DenseLayer
from models.preactivated import PreActBlock

NETWORKS = [
    # network, shape of a batch's input and output, BatchNorms
    (models.ConvNet, (5, 1, 32, 32), (5, 10), 4),
    (models.CNNWithBatchNorm, (5, 3, 32, 32), (5, 10), 1),
    (models.SmallResNet, (5, 1, 32, 32), (5, 10), 9),
    (models.InvertedResidualNet, (5, 1, 32, 32), (5, 10), 11),
    (models.SequenceNet, (5, 32, 32), (5, 10), 4),
    (models.RepVGGNet, (5, 1, 32, 32), (5, 10), 15),
    (models.MobileOneNet, (5, 1, 32, 32), (5, 10), 41),
    (models.PreActResNet, (5, 1, 32, 32), (5, 10), 19),
    (models.DenseNet, (5, 1, 32, 32), (5, 10), 18),
    (models.Generator, (5, 16, 1, 1), (5, 1, 32, 32), 3),
]


@pytest.mark.parametrize(("network_class", "taken", "given", "count"), NETWORKS)
def test_shapes_and_batchnorms(
    network_class: type[models.ConvNet], taken: tuple[int, ...], given: tuple[int, ...], count: int
) -> None:
    torch.manual_seed(0)
    network = models.seeded_statistics(network_class()).eval()
    with torch.no_grad():
        output = network(torch.randn(taken))
    assert network_class.input_shape == taken[1:]
    assert output.shape == given
    assert bool(output.isfinite().all())
    assert not torch.equal(output[0], output[1])  # the input reaches the output
    assert len(models.batchnorms(network)) == count


def weights(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (type(layer).__name__, tuple(layer.weight.shape))
        for layer in network.modules()
        if hasattr(layer, "weight")
    ]


def test_convnet_has_the_layers_of_lenet() -> None:
    assert weights(models.ConvNet()) == [
        ("Conv2d", (6, 1, 5, 5)),
        ("BatchNorm2d", (6,)),
        ("Conv2d", (16, 6, 5, 5)),
        ("BatchNorm2d", (16,)),
        ("Linear", (120, 400)),
        ("BatchNorm1d", (120,)),
        ("Linear", (84, 120)),
        ("BatchNorm1d", (84,)),
        ("Linear", (10, 84)),
    ]


def test_cnn_with_batchnorm_has_its_stated_layers() -> None:
    network = models.CNNWithBatchNorm()
    assert weights(network) == [
        ("Conv2d", (16, 3, 3, 3)),
        ("BatchNorm2d", (16,)),
        ("Linear", (10, 4096)),
    ]
    assert network[0].padding == (1, 1)


def test_every_depthwise_convolution_filters_each_channel_by_itself() -> None:
    grouped = [
        layer
        for layer in models.InvertedResidualNet().modules()
        if isinstance(layer, nn.Conv2d) and layer.groups > 1
    ]
    assert len(grouped) == 3
    assert all(layer.groups == layer.in_channels == layer.out_channels for layer in grouped)


def test_generator_holds_a_grouped_transposed_convolution_and_stays_within_one() -> None:
    network = models.seeded_statistics(models.Generator()).eval()
    groups = [layer.groups for layer in network if isinstance(layer, nn.ConvTranspose2d)]
    assert groups == [1, 1, 2, 1]
    with torch.no_grad():
        images = network(torch.randn(4, 16, 1, 1))
    assert float(images.abs().max()) <= 1


def test_resnet_adds_its_shortcuts() -> None:
    network = models.SmallResNet().eval()
    block = network.blocks[0]
    nn.init.zeros_(block.bn2.weight)  # what is left is relu(0 + x)
    nn.init.zeros_(block.bn2.bias)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(x), x)


def test_preactivated_blocks_add_to_a_stream_that_no_activation_changes() -> None:
    blocks = models.seeded_statistics(models.PreActResNet()).eval().blocks
    assert [block.shortcut is None for block in blocks] == [True, True, True, *[False, True, True] * 2]
    x = torch.randn(2, 12, 8, 8)
    for block in blocks[:3]:
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(blocks[:3](x), x)
    strided = blocks[3]
    nn.init.zeros_(strided.conv2.weight)
    assert torch.equal(strided(x), strided.shortcut(torch.relu(strided.bn1(x))))
    assert strided(x).shape == (2, 24, 4, 4)


def test_a_preactivated_block_is_the_equation_of_its_docstring() -> None:
    x = torch.randn(2, 4, 8, 8)
    block = models.seeded_statistics(PreActBlock(4, 4)).eval()
    y = block.conv1(torch.relu(block.bn1(x)))
    torch.testing.assert_close(block(x), x + block.conv2(torch.relu(block.bn2(y))))


def test_a_dense_layer_keeps_its_input_and_adds_channels() -> None:
    x = torch.randn(2, 5, 8, 8)
    layer = models.seeded_statistics(DenseLayer(5, 3)).eval()
    y = layer(x)
    assert torch.equal(y[:, :5], x)
    assert torch.equal(y[:, 5:], layer.grow(layer.bottleneck(x)))
    assert [tuple(part[2].weight.shape) for part in (layer.bottleneck, layer.grow)] == [
        (12, 5, 1, 1),
        (3, 12, 3, 3),
    ]


def test_branches_are_added_and_joined_by_the_input_where_it_fits() -> None:
    x = torch.randn(2, 4, 8, 8)
    block = models.seeded_statistics(Branches(4, 4, (3, 1), groups=4)).eval()
    assert [type(branch).__name__ for branch in block.branches] == ["Sequential", "Sequential", "BatchNorm2d"]
    torch.testing.assert_close(block(x), torch.relu(sum(branch(x) for branch in block.branches)))
    for other in (Branches(4, 4, (3, 1), stride=2), Branches(4, 6, (3, 1))):
        assert len(other.branches) == 2


def test_mobileone_alternates_depthwise_and_pointwise_blocks() -> None:
    blocks = models.MobileOneNet().blocks
    convolutions = [[layer for layer in block.modules() if isinstance(layer, nn.Conv2d)] for block in blocks]
    assert [len(found) for found in convolutions] == [5, 4] * 4
    for depthwise, pointwise in zip(convolutions[::2], convolutions[1::2], strict=True):
        assert all(layer.groups == layer.in_channels for layer in depthwise)
        assert all((layer.groups, layer.kernel_size) == (1, (1, 1)) for layer in pointwise)


def test_public_names_are_the_documented_ones() -> None:
    assert all(hasattr(models, name) for name in models.__all__)
    assert {network.__name__ for network, *_ in NETWORKS} <= set(models.__all__)
