"""Where windows lie, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.oracle.ops.call import Call, Refusal
from bnfold.oracle.ops.windows import strided, windows_of


def call(operator: str = "MaxPool", **attributes: Any) -> Call:
    return Call(onnx.helper.make_node(operator, ["x"], ["y"]), 18, attributes)


# Worked by hand: size, kernel, attributes, padding before and after, number of windows
@pytest.mark.parametrize(
    ("size", "kernel", "attributes", "before", "after", "outputs"),
    [
        (7, 3, {"strides": [2]}, 0, 0, 3),
        (8, 3, {"strides": [2]}, 0, 0, 3),
        (8, 3, {"strides": [2], "ceil_mode": 1}, 0, 0, 4),
        (8, 3, {"dilations": [3]}, 0, 0, 2),
        (6, 3, {"strides": [2], "auto_pad": "SAME_UPPER"}, 0, 1, 3),
        (6, 3, {"strides": [2], "auto_pad": "SAME_LOWER"}, 1, 0, 3),
        (6, 3, {"auto_pad": "VALID", "pads": [5, 5]}, 0, 0, 4),
        (4, 1, {"strides": [2], "pads": [0, 1], "ceil_mode": 1}, 0, 1, 2),  # the third would be all padding
    ],
)
def test_where_windows_lie(
    size: int, kernel: int, attributes: dict[str, Any], before: int, after: int, outputs: int
) -> None:
    windows = windows_of(call(**attributes), [size], [kernel])
    assert (windows.before, windows.after, windows.outputs) == ((before,), (after,), (outputs,))


def test_padding_is_no_more_than_windows_reach() -> None:
    x = np.ones((1, 1, 5))
    assert windows_of(call(strides=[4], pads=[0, 3]), [5], [1]).padded(x, 0.0) is x
    reaching = windows_of(call(strides=[2], ceil_mode=1), [5], [4])
    assert reaching.padded(x, 7.0)[0, 0].tolist() == [1, 1, 1, 1, 1, 7]


def test_taps_see_what_they_should() -> None:
    windows = windows_of(call(strides=[2], dilations=[3]), [8], [2])
    x = np.arange(8.0)[None, None]
    assert [windows.seen(x, tap)[0, 0].tolist() for tap in windows.taps()] == [[0, 2, 4], [3, 5, 7]]
    assert np.arange(5)[strided([1], [0], [1], [1])].size == 0


def test_pools_that_the_runtime_shifts_are_refused() -> None:
    with pytest.raises(Refusal, match="auto_pad"):
        windows_of(call(strides=[3], auto_pad="SAME_UPPER"), [9], [1])
    assert windows_of(call("Conv", strides=[3], auto_pad="SAME_UPPER"), [9], [1]).before == (0,)
