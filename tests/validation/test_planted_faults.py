"""Every planted fault is caught, and named at the right layer; no right fold is accused."""

from __future__ import annotations

import os
import random
from functools import cache

import numpy as np
import pytest

import bnfold
from bnfold.validation.results import Validation
from tests.planted_faults import FAULTS, Case
from tests.random_graphs import random_feeds, random_model
from tests.small_networks import NETWORKS, Draft

RANDOM_GRAPHS = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "20"))
# A network that can have the fault; benchmarks/faults.py plants each in all networks and at several layers.
NETWORK = {
    "one output channel 1 % off": "sequence",
    "weights rounded to float16": "CNNWithBatchNorm",
    "two output channels swapped": "pointnet",
    "two input channels swapped": "half",
    "one weight is NaN": "quantized",
    "one weight with the wrong sign": "preactivated",
    "kernel mirrored": "generator",
    "groups in another order": "MobileOneNet",
    "bias dropped": "inverted",
    "bias rounded to bfloat16": "levit",
    "scaled along the wrong axis": "siamese",
    "two layers' weights exchanged": "residual",
    "shared weight written over": "siamese",
    "ε omitted": "ConvNet",
    "ε of another framework": "pointnet",
    "batch statistics used": "PreActResNet",
    "removed, not folded": "half",
    "folded twice": "quantized",
    "shift with the wrong sign": "sequence",
    "γ left out": "preactivated",
    "running mean left out": "levit",
    "sign of γ lost": "inverted",
    "square root forgotten": "CNNWithBatchNorm",
    "layer's own bias not scaled": "ConvNet",
    "statistics one channel off": "DenseNet",
    "another BatchNorm's statistics": "RepVGGNet",
    "branch dropped in a merge": "MobileOneNet",
    "branch off the kernel's centre": "RepVGGNet",
    "shift folded through zero padding": "preactivated",
    "float16 overflow": "overflowing",
    "output renamed": "siamese",
    "symbolic size frozen": "overflowing",
}


@cache
def case(network: str) -> Case:
    """A network and its right fold."""
    return Case.of(network, NETWORKS[network](0))


def test_every_fault_is_planted_and_every_network_has_one() -> None:
    assert set(NETWORK) == set(FAULTS)
    assert set(NETWORK.values()) == set(NETWORKS)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_caught_and_named(kind: str) -> None:
    faulty = case(NETWORK[kind])
    planted = next(FAULTS[kind](faulty))
    validation = bnfold.validate(faulty.original, planted.model, threads=1, strict=True)
    assert not validation.passed
    assert planted.is_named(validation), (planted.node, planted.site, validation.failures)


def test_a_fault_in_what_only_large_inputs_reach_is_named() -> None:
    """The first sample leaves the layer without anything to work on."""
    draft = Draft(0)
    x = draft.node("Relu", "relu", draft.node("Sub", "less", "x", draft.constant("many", np.float32(50))))
    faint = Case.of(
        "faint", draft.model(["N", 3, 8, 8], draft.norm("bn", draft.conv("conv", x, (4, 3, 3, 3)), 4))
    )
    planted = next(FAULTS["two output channels swapped"](faint))
    validation = bnfold.validate(faint.original, planted.model, threads=1)
    assert not validation.passed
    assert planted.is_named(validation), validation.failures


@pytest.mark.parametrize("network", NETWORKS)
def test_a_right_fold_is_not_accused(network: str) -> None:
    original = NETWORKS[network](1)
    result = bnfold.fold(original)
    assert result.folded
    acquitted(bnfold.validate(original, result.model, threads=1))


@pytest.mark.parametrize("seed", range(RANDOM_GRAPHS))
def test_a_right_fold_of_a_random_graph_is_not_accused(seed: int) -> None:
    model = random_model(random.Random(seed).randrange)
    if not model.graph.output:
        pytest.skip("this graph came out empty")
    inputs = [random_feeds(model, number) for number in range(2)]
    acquitted(bnfold.validate(model, bnfold.fold(model).model, inputs=inputs, threads=1))


def acquitted(validation: Validation) -> None:
    """Demand that a validation against the oracle finds nothing."""
    assert validation.passed, validation.failures
    assert validation.blame is None
    assert "float64" in validation.oracle
    assert all(layer.agrees for layer in validation.layers)
