"""A fixture for tests of people's own: two models must compute the same function.

pytest finds it by itself where bnfold is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from bnfold.validation.results import Validation

AssertSameFunction: TypeAlias = "Callable[..., Validation]"


@pytest.fixture
def assert_same_function() -> AssertSameFunction:
    """A function that fails the test unless two models compute the same.

    It takes two models, each a path, a `ModelProto` or an `onnx_ir.Model`, and the options of
    `bnfold.validate`, and returns what that returns:

        def test_the_release(assert_same_function):
            assert_same_function("models/before.onnx", "models/after.onnx", samples=3)
    """

    def check(original: Any, other: Any, **options: Any) -> Validation:
        from bnfold.validation.validate import validate

        __tracebackhide__ = True
        result = validate(original, other, **options)
        if result.undecided and not result.failures:
            pytest.fail(result.undecided)
        if not result.passed:
            pytest.fail(
                "The second model does not compute what the first computes.\n" + "\n".join(result.failures)
            )
        return result

    return check
