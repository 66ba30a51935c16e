"""What a validation says: which checks count, and in which words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bnfold.validation.results import Blame, Check, Fault, Layer, Validation

GOOD = Check("cpu", "off", "y", "float32", ((1, 6),), None, 1e-7, 1e-7, 1.0, None, None)
BAD = replace(GOOD, optimizer="default", problem="It is off.")
LAYER = Layer(
    "c", 3, 0.25, 1e-6, site="features.bn1, features.bn2", nodes=("conv",), originals=("conv", "bn1")
)


def test_one_disagreement_fails() -> None:
    assert Validation((GOOD,)).passed
    found = Validation((GOOD, BAD))
    assert not found.passed
    assert found.failures == ("Output 'y' (cpu, optimizer default): It is off.",)


@pytest.mark.parametrize("change", [{"excused": True}, {"row": "tf32"}])
def test_what_is_excused_or_decides_nothing_does_not(change: dict[str, object]) -> None:
    check = replace(BAD, **change)  # type: ignore[arg-type]
    assert not check.passed
    assert not check.fails
    assert Validation((GOOD, check)).passed


def test_nothing_compared_is_not_agreement() -> None:
    assert not Validation(()).passed
    assert not Validation((GOOD,), problems=("It does not load.",)).passed


def test_blame_fails_and_is_said_once() -> None:
    blame = Blame(LAYER)
    assert Validation((GOOD,), blame=blame).failures == (blame.sentence,)
    told = f"The fold is not exact. {blame.sentence}"
    assert Validation((GOOD,), problems=(told,), blame=blame).failures == (told,)


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


def test_a_fault_names_the_optimizer_and_clears_the_folded_model() -> None:
    fault = Fault("cpu", "y", 1.5, 1e-7, 2e-7, ("Some_Fusion",))
    assert not fault.affects_folded
    assert (
        "its optimizer Some_Fusion changes it by 1.5 of its scale (1e-07 with the optimizer off)"
        in fault.sentence
    )
    assert "The other model is not affected (2e-07)." in fault.sentence
    affected = replace(fault, folded=0.2, optimizers=())
    assert affected.affects_folded
    assert "its default optimization changes it" in affected.sentence
    assert "The other model is affected too (0.2)" in affected.sentence


def test_a_value_without_a_scale_is_off_by_no_number() -> None:
    said = Blame(replace(LAYER, fold_error=math.inf)).sentence
    assert "'c', which is zero, not finite or of another shape in one of them: " in said
    assert "by 0.5 of its scale: " in Blame(replace(LAYER, fold_error=0.5)).sentence


def test_one_input_is_one() -> None:
    assert Validation((GOOD,), samples=1).headline == "The models compute the same, on 1 input."
