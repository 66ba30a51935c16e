"""Pad in every mode, with amounts of both signs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracle.ops.nodes import agrees, evaluated, floats

AMOUNTS = {
    "both added": [1, 2, 0, 1],
    "cut off at the beginning": [-2, 0, 1, 3],
    "cut off at the end": [0, 1, -1, -2],
    "cut off at both": [-1, -1, -1, -2],
}


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("amounts", AMOUNTS)
def test_every_mode(mode: str, amounts: str) -> None:
    constants = {"pads": np.array(AMOUNTS[amounts])}
    agrees("Pad", {"x": floats(5, 7)}, constants, opset=19, mode=mode)


def test_value_and_axes() -> None:
    constants = {"pads": np.array([-1, 2]), "value": np.float32(0.3), "axes": np.array([-2])}
    agrees("Pad", {"x": floats(2, 5, 3)}, constants, opset=18)
    found = evaluated("Pad", {"x": floats(2, 5, 3)}, constants, opset=18)
    assert found.shape == (2, 6, 3)
    assert np.all(found[:, -2:] == np.float64(np.float32(0.3)))


def test_amounts_as_attributes() -> None:
    agrees("Pad", {"x": floats(4, 5)}, opset=9, pads=[-1, 1, 2, 0], value=0.5)
