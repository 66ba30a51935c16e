"""Two modules side by side: what counts as the same."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import DisagreementError, ModelError  # noqa: E402
from bnfold.torch.write_back.verify_eager import TOLERANCE, compare, relative_error  # noqa: E402
from tests.torch.modules import image, made  # noqa: E402

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [2.0, -4.0], 0.25),
        ([0.0], [1e-30], INF),
        ([INF, 2.0], [INF, 1.0], 0.5),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [0.0, 2.0], INF),
        ([1.0], [1.0, 1.0], INF),
        ([], [], 0.0),
    ],
)
def test_relative_error(expected, actual, error):
    assert relative_error(torch.tensor(expected), torch.tensor(actual)) == error


def test_types_and_integers_have_to_be_the_same():
    assert relative_error(torch.ones(2), torch.ones(2).double()) == INF
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 3])) == INF
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0


def scaled(factor):
    return made(lambda _, x: x * factor)


def test_the_largest_error_of_all_inputs_counts():
    x = torch.zeros(2, 3, dtype=torch.float64)  # on which all scales are right
    assert compare(scaled(1.0), scaled(1.0), (x,), {}) == 0
    assert 0 < compare(scaled(1.0), scaled(1 + TOLERANCE / 2), (x,), {}) < TOLERANCE
    with pytest.raises(DisagreementError, match=r"differs from the module by 1\.0e-08"):
        compare(scaled(1.0), scaled(1 + 1e-8), (x,), {})


def test_indices_stay_in_their_range():
    table, wrong = nn.Embedding(4, 3).double(), nn.Embedding(4, 3).double()
    index = torch.tensor([3, 0, 0, 3])
    assert compare(table, table, (), {"input": index}) == 0
    with pytest.raises(DisagreementError):
        compare(table, wrong, (), {"input": index})


def test_another_number_of_outputs_and_a_copy_that_does_not_run():
    pair, broken = made(lambda _, x: (x, x)), nn.Linear(5, 5).double()
    with pytest.raises(DisagreementError, match="number of outputs"):
        compare(scaled(1.0), pair, (image().double(),), {})
    with pytest.raises(ModelError, match="does not run"):
        compare(scaled(1.0), broken, (image().double(),), {})
