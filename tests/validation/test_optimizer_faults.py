"""An optimizer that changes the original beyond rounding is found and named; one that rounds is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bnfold.validation import optimizer_faults
from bnfold.validation.deviation import Deviation
from bnfold.validation.optimizer_faults import changed_outputs, with_optimizers
from bnfold.validation.output_check import NOISE_CAP, OutputCheck
from bnfold.validation.results import Fault

UNIT = 2.0**-24
TRUTH = np.linspace(-1.0, 1.0, 7)


def compared(*own: float, folded: float = 1e-6, natural: float | None = 5e-5) -> OutputCheck:
    """Runs in which the original is 1e-6 from the truth, optimizer off, and so much at the default."""
    made = OutputCheck(natural, UNIT, None)
    for error in own:
        made.add(TRUTH, *(TRUTH + np.eye(7)[3] * one for one in (1e-6, error, 1e-6, folded)))
    return made


def test_what_is_beyond_rounding_is_a_fault() -> None:
    checks = [compared(1e-6), compared(1e-6, 0.5, 0.1, folded=2e-6), compared(0.99 * NOISE_CAP * 1e-6)]
    ((number, fault),) = changed_outputs("cuda", ["a", "b", "c"], checks)
    assert number == 1
    assert (fault.provider, fault.output, fault.optimizers) == ("cuda", "b", ())
    assert [fault.error, fault.off, fault.folded] == pytest.approx([0.5, 1e-6, 2e-6], rel=1e-6)


def test_an_output_that_must_be_equal_has_no_rounding() -> None:
    assert list(changed_outputs("cpu", ["top"], [compared(0.5, natural=None)])) == []


def test_chaos_is_no_fault() -> None:
    found = compared(0.5)
    found.set_conditioning(0, Deviation(1e-3))
    assert list(changed_outputs("cpu", ["y"], [found])) == []


def test_the_optimizers_are_asked_for_at_the_output_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def culprits(
        model: object, feeds: object, wrong: Callable[[list[Any]], bool], **how: object
    ) -> tuple[str, ...]:
        outputs = [TRUTH + 100, TRUTH + np.eye(7)[0] * 1e-4]
        seen.append((model, feeds, how, wrong(outputs), wrong([outputs[0], outputs[1] + 2e-4])))
        return ("Some_Fusion",)

    monkeypatch.setattr(optimizer_faults.optimizers, "culprits", culprits)
    fault = Fault("cuda", "y", 0.5, 1e-6, 1e-6)
    check = OutputCheck(5e-5, UNIT, None)
    check.add(TRUTH, *(TRUTH + error * np.eye(7)[0] for error in (2e-5, 0.5, 2e-5, 2e-5)))
    assert check.rounding_limit(check.worst_original_run) == pytest.approx(2e-4)
    found = with_optimizers(fault, check, 1, "m.onnx", {"x": TRUTH}, TRUTH, 3)
    assert found == Fault("cuda", "y", 0.5, 1e-6, 1e-6, ("Some_Fusion",))
    ((model, feeds, how, below, above),) = seen
    assert (model, list(feeds), how) == ("m.onnx", ["x"], {"provider": "cuda", "threads": 3})
    assert (below, above) == (False, True)
