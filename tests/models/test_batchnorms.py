"""Seeded statistics are random, repeatable and far from the identity."""

from __future__ import annotations

import torch
from torch import nn

import models


def test_no_channel_stays_near_the_identity() -> None:
    layer = models.seeded_statistics(nn.BatchNorm2d(200))
    assert layer.running_mean is not None
    assert layer.running_var is not None
    for values in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
        assert len(values.unique()) > 190
    assert 0.25 <= float(layer.running_var.min()) < float(layer.running_var.max()) <= 2
    assert float(layer.weight.detach().abs().min()) >= 0.5
    assert 20 < int((layer.weight < 0).sum()) < 80
    assert float(layer.running_mean.min()) < 0 < float(layer.running_mean.max())


def test_the_seed_alone_decides() -> None:
    first, again, other = (
        models.seeded_statistics(models.Generator(), seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(first["1.running_var"], again["1.running_var"])
    assert not torch.equal(first["1.running_var"], other["1.running_var"])


def test_other_parameters_and_the_mode_stay() -> None:
    network = models.ConvNet().train()
    before = network.conv1.weight.clone()
    assert models.seeded_statistics(network) is network
    assert torch.equal(network.conv1.weight, before)
    assert network.training


def test_layers_without_parameters_or_statistics_are_taken() -> None:
    layers = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm3d(3, track_running_stats=False))
    models.seeded_statistics(layers)
    assert models.batchnorms(layers) == list(layers)
    assert not torch.equal(layers.state_dict()["0.running_mean"], torch.zeros(3))
    assert not torch.equal(layers.state_dict()["1.weight"], torch.ones(3))
