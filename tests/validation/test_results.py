"""What a validation says: which checks count, and in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnfold.validation.layers import Blame, Layer
from bnfold.validation.results import Check, Fault, Validation

GOOD = Check("cpu", "off", "y", "float32", ((1, 6),), None, 1e-7, 1e-7, 1.0, None, None)
BAD = replace(GOOD, optimizer="default", problem="It is off.")
LAYER = Layer("c", 3, 0.25, 1e-6, site="features.bn1", nodes=("conv",), originals=("conv", "bn1"))


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


def test_one_input_is_one() -> None:
    assert Validation((GOOD,), samples=1).headline == "The models compute the same, on 1 input."
