"""AffineGrid and GridSample against PyTorch in double and ONNX Runtime, inside of images and far outside."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from bnfold.oracle.evaluator import NotEvaluableError
from tests.oracle.ops.nodes import agrees, evaluated, floats

PLANE = {"x": floats(2, 3, 5, 7), "grid": 1.5 * floats(2, 4, 6, 2)}
SPACE = {"x": floats(2, 3, 4, 5, 6), "grid": 1.5 * floats(2, 2, 3, 4, 3)}


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("sizes", [(2, 3, 5, 4), (1, 3, 4, 4), (2, 3, 2, 5, 4), (2, 3, 2, 1, 4)])
def test_affine_grids(sizes: tuple[int, ...], corners: int) -> None:
    batch, rank = sizes[0], len(sizes) - 2
    theta, constants = {"theta": floats(batch, rank, rank + 1)}, {"size": np.array(sizes)}
    y = evaluated("AffineGrid", theta, constants, opset=20, align_corners=corners)
    warnings.filterwarnings("ignore", message="Since version 1.3.0")  # about one element with its corners
    expected = torch.nn.functional.affine_grid(
        torch.from_numpy(theta["theta"]).double(), sizes, align_corners=bool(corners)
    )
    assert np.abs(y - expected.numpy()).max() < 1e-13


def test_the_runtime_has_the_same_affine_grid() -> None:
    agrees("AffineGrid", {"theta": floats(2, 2, 3)}, {"size": np.array([2, 3, 5, 4])}, opset=20)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    ("feeds", "mode"),
    [(PLANE, "linear"), (PLANE, "nearest"), (PLANE, "cubic"), (SPACE, "linear"), (SPACE, "nearest")],
)
def test_it_is_pytorch_in_double(feeds: dict[str, np.ndarray], mode: str, padding: str, corners: int) -> None:
    y = evaluated("GridSample", feeds, opset=20, mode=mode, padding_mode=padding, align_corners=corners)
    expected = torch.nn.functional.grid_sample(
        *(torch.from_numpy(array).double() for array in feeds.values()),
        mode={"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        padding_mode=padding,
        align_corners=bool(corners),
    ).numpy()
    assert y.dtype == np.float64
    assert np.abs(y - expected).max() < 1e-13


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    ("mode", "opset"), [("bilinear", 16), ("bicubic", 16), ("cubic", 20), ("linear", 20)]
)
def test_the_runtime_agrees(mode: str, opset: int, padding: str, corners: int) -> None:
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    agrees("GridSample", PLANE, opset=opset, tolerance=2e-5, **attributes)


def test_one_dimension() -> None:
    x, grid = np.array([[[1.0, 3.0, 7.0]]]), np.array([[[-1.0], [0.5], [1.0]]])
    y = evaluated("GridSample", {"x": x, "grid": grid}, opset=20, align_corners=1)
    assert y.tolist() == [[[1, 5, 7]]]


def test_one_element_reflects_to_itself() -> None:
    feeds = {"x": np.full((1, 1, 1, 1), 4.0), "grid": floats(1, 2, 2, 2)}
    y = evaluated("GridSample", feeds, opset=20, padding_mode="reflection", align_corners=1)
    assert y.tolist() == [[[[4, 4], [4, 4]]]]


def test_positions_that_are_infinite() -> None:
    feeds = {"x": floats(1, 1, 3, 3), "grid": np.full((1, 1, 1, 2), np.inf, np.float32)}
    assert evaluated("GridSample", feeds, opset=20).item() == 0
    assert evaluated("GridSample", feeds, opset=20, padding_mode="border").item() == feeds["x"][0, 0, 2, 2]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(NotEvaluableError, match="lanczos"):
        evaluated("GridSample", PLANE, opset=20, mode="lanczos")
