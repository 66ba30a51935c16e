"""What is said of a value inside, and of the first that is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

from bnfold.validation.layers import Blame, Layer

LAYER = Layer(
    "c", 3, 0.25, 1e-6, site="features.bn1, features.bn2", nodes=("conv",), originals=("conv", "bn1")
)


def test_blame_names_the_value_the_nodes_and_the_fold() -> None:
    assert Blame(LAYER).sentence == (
        "The first value that differs is 'c', by 0.25 of its scale: conv differs from conv, bn1 in the "
        "original. It comes from the fold of features.bn1, features.bn2."
    )
    assert "the fold of" not in Blame(replace(LAYER, site=None)).sentence
    runtime = Blame(LAYER, runtime=True, provider="cuda").sentence
    assert "'c', on cuda: conv in the folded model, conv, bn1 in the original." in runtime
    assert "The fold of features.bn1, features.bn2 is right in float64 there." in runtime


def test_long_lists_are_cut() -> None:
    many = replace(LAYER, nodes=tuple(f"n{number}" for number in range(9)))
    assert "n0, n1, n2, n3 and 5 more differs from" in Blame(many).sentence


def test_a_layer_agrees_up_to_its_bound() -> None:
    assert replace(LAYER, fold_error=1e-6).agrees
    assert not replace(LAYER, fold_error=1.01e-6).agrees


def test_a_value_without_a_scale_is_off_by_no_number() -> None:
    said = Blame(replace(LAYER, fold_error=math.inf)).sentence
    assert "'c', which is zero, not finite or of another shape in one of them: " in said
    assert "by 0.5 of its scale: " in Blame(replace(LAYER, fold_error=0.5)).sentence
