"""Resize and Upsample: weights that sum to one, on axes along which the affine does not vary."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import weight
from tests.ops.sandwich import above, below, gone, ints, stays

HELD = {
    "twice": np.float32([1, 1, 2, 2]), "sizes": ints(2, 4, 7, 6), "channels": np.float32([1, 2, 1, 1]),
    "nearly": np.float32([1, 1.2, 1, 1]), "roi": np.float32([]),
    "two": np.float32([2, 2]), "three": ints(8, 8),
    "crop": np.float32([0, 0, 0, 0, 1, 1, 1.5, 1.5]),
}  # fmt: skip
SCALAR = {"scale": np.full(4, 1.5), "bias": np.full(4, -2.0), "mean": np.full(4, 0.5), "var": np.full(4, 0.7)}
UNIFORM = {name: array.astype(np.float32) for name, array in SCALAR.items()}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("build", [above, below])
def test_scales_and_sizes(mode: str, build: object) -> None:
    for inputs in ("a, , twice", "a, roi, twice", "a, , , sizes"):
        gone(build(f'b = Resize <mode="{mode}"> ({inputs})', HELD))  # type: ignore[operator]


@pytest.mark.parametrize(
    "transform", ["asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_coordinate_modes(mode: str, transform: str) -> None:
    opset = 19 if transform == "half_pixel_symmetric" else 18
    lines = f'b = Resize <mode="{mode}", coordinate_transformation_mode="{transform}"> (a, , twice)'
    gone(above(lines, HELD, opset=opset))


@pytest.mark.parametrize(
    "attributes",
    ['mode="cubic", exclude_outside=1', 'mode="linear", antialias=1', 'mode="cubic", cubic_coeff_a=-0.5'],
)
def test_weights_that_are_normalised(attributes: str) -> None:
    gone(above(f"b = Resize <{attributes}> (a, , twice)", HELD))


def test_only_some_axes() -> None:
    gone(above("b = Resize <axes=[2,3]> (a, , two)", HELD))
    gone(above("b = Resize <axes=[-2,-1]> (a, , , three)", HELD))
    gone(below('b = Resize <axes=[2,3], keep_aspect_ratio_policy="not_larger"> (a, , , three)', HELD))


def test_channels_that_are_resized_stay() -> None:
    stays(above("b = Resize(a, , channels)", HELD, bn=8), "BN204")
    stays(below("b = Resize(a, , channels)", HELD, w=weight(5, 8, 2, 2)), "BN204")


def test_a_size_that_agrees_does_not_prove_a_scale_of_one() -> None:
    """4 · 1.2 rounds down to 4: the channels keep their number and change their places."""
    stays(
        above(
            'b = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="ceil"> (a, , nearly)',
            HELD,
        ),
        "BN204",
    )
    stays(
        below(
            'b = Resize <coordinate_transformation_mode="asymmetric", nearest_mode="ceil"> (a, , nearly)',
            HELD,
        ),
        "BN204",
    )


def test_one_number_for_all_channels_passes_any_resize() -> None:
    end = "y = Conv(b, w)"
    gone(below("b = Resize(a, , nearly)", HELD, stats=UNIFORM, end=end))


def test_a_crop_writes_a_number_of_its_own() -> None:
    settings = 'mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=3.0'
    lines = f"b = Resize <{settings}> (a, crop, twice)"
    stays(above(lines, HELD), "BN210")
    stays(below(lines, HELD), "BN210")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    gone(above(f'b = Upsample <mode="{mode}"> (a, twice)', HELD, opset=9))
    gone(below(f'b = Upsample <mode="{mode}"> (a, twice)', HELD, opset=9))
    gone(above(f'b = Upsample <mode="{mode}", scales=[1.0,1.0,2.0,2.0]> (a)', opset=8))
    stays(above('b = Upsample <mode="nearest"> (a, channels)', HELD, opset=9, bn=8), "BN204")


def test_resize_of_opset_10() -> None:
    gone(above('b = Resize <mode="nearest"> (a, twice)', HELD, opset=10))
    stays(above('b = Resize <mode="nearest"> (a, channels)', HELD, opset=10, bn=8), "BN204")
