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

RANDOM_GRAPHS = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "40"))
SEEDS = range(3)
MOST = (
    "ConvNet", "residual", "generator", "pointnet", "inverted", "levit", "preactivated",
    "CNNWithBatchNorm", "RepVGGNet", "sequence", "siamese",
)  # fmt: skip
# the networks that have what some faults need
ONLY = {
    "two input channels swapped": ("ConvNet", "half", "levit"),
    "one weight is NaN": ("quantized", "half", "RepVGGNet"),
    "kernel mirrored": ("residual", "generator", "sequence"),
    "groups in another order": ("inverted", "generator", "MobileOneNet"),
    "scaled along the wrong axis": ("residual", "levit", "siamese"),
    "two layers' weights exchanged": ("residual", "levit", "RepVGGNet"),
    "shared weight written over": ("siamese",),
    "folded twice": ("quantized", "half", "generator"),
    "removed, not folded": ("ConvNet", "half", "inverted"),
    "sign of γ lost": ("residual", "inverted", "quantized"),
    "layer's own bias not scaled": ("ConvNet", "generator", "pointnet"),
    "another BatchNorm's statistics": ("residual", "levit", "RepVGGNet"),
    "branch dropped in a merge": ("RepVGGNet", "MobileOneNet"),
    "branch off the kernel's centre": ("RepVGGNet", "MobileOneNet"),
    "shift folded through zero padding": ("preactivated",),
    "float16 overflow": ("overflowing",),
    "symbolic size frozen": ("residual", "RepVGGNet", "overflowing"),
}
PLANTED = [
    (kind, network)
    for number, kind in enumerate(FAULTS)
    for network in ONLY.get(kind, [MOST[(3 * number + step) % len(MOST)] for step in range(3)])
]


@cache
def case(network: str) -> Case:
    """A network and its right fold."""
    return Case.of(network, NETWORKS[network](0))


def test_enough_is_planted() -> None:
    assert len(PLANTED) >= 40
    assert len({kind for kind, _ in PLANTED}) >= 12
    assert {network for _, network in PLANTED} == set(NETWORKS), "every network has one"
    assert len(NETWORKS) * len(SEEDS) >= 40


@pytest.mark.parametrize(("kind", "network"), PLANTED)
def test_a_planted_fault_is_caught_and_named(kind: str, network: str) -> None:
    planted = next(FAULTS[kind](case(network)))
    validation = bnfold.validate(case(network).original, planted.model, threads=1)
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


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_right_fold_is_not_accused(network: str, seed: int) -> None:
    original = NETWORKS[network](seed)
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
