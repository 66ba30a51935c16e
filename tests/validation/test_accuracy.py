"""Accuracy is counted on every labelled row, and its interval covers as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnfold.errors import InputError
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import Port
from bnfold.validation.accuracy import Accuracy, Score, interval, measure

SCORES = Port("scores", "float32", ("N", 4))
ROWS = np.random.default_rng(5).normal(size=(60, 4)).astype(np.float32)
CLASSES = np.random.default_rng(6).integers(0, 4, 60)


def samples(classes=CLASSES, size: int = 7) -> Samples:
    """The rows a few at a time."""
    feeds = tuple({"x": ROWS[start : start + size]} for start in range(0, len(ROWS), size))
    return Samples(feeds, classes=np.asarray(classes, np.int64))


def same(feeds):
    return [feeds["x"]]


def noisy(feeds):
    return [feeds["x"] + np.sin(37 * feeds["x"])]


def test_rows_are_counted_in_both_models():
    found = measure(same, noisy, samples(), [SCORES], top=2)
    assert (found.output, found.rows, [score.k for score in found.scores]) == ("scores", 60, [1, 2])
    for score in found.scores:
        before, after = (
            np.array([row in best[: score.k] for row, best in zip(CLASSES, np.argsort(-made), strict=True)])
            for made in (ROWS, ROWS + np.sin(37 * ROWS))
        )
        assert score.gained == np.sum(~before & after) > 0
        assert score.lost == np.sum(before & ~after) > 0
        assert (score.original, score.folded) == (before.mean(), after.mean())
        assert (score.low, score.high) == interval(score.gained, score.lost, 60)
        assert score.low < score.folded - score.original < score.high


@pytest.mark.parametrize(("top", "ks"), [(1, [1]), (3, [1, 3]), (4, [1]), (5, [1])])
def test_top_k_is_left_out_where_it_says_nothing(top: int, ks: list[int]):
    assert [score.k for score in measure(same, same, samples(), [SCORES], top=top).scores] == ks


def test_equal_scores_and_nan_are_not_right_by_themselves():
    def flat(feeds):
        return [np.zeros_like(feeds["x"])]

    def broken(feeds):
        return [np.full_like(feeds["x"], math.nan)]

    (score,) = measure(flat, broken, samples(), [SCORES], top=1).scores
    assert score.original == np.mean(CLASSES == 0)  # as argmax chooses
    assert score.folded == 0


def test_the_output_of_the_classifier_is_found():
    def several(feeds):
        x = feeds["x"]
        return [x.argmax(axis=1), x[:1], x[:, :1], x.reshape(-1, 4, 1, 1)]

    ports = [Port(name, "float32", None) for name in ("index", "one row", "one column", "maps")]
    found = measure(several, several, samples(), ports, top=1)
    assert (found.output, found.rows) == ("maps", 60)


def test_labels_that_suit_no_output_are_an_error():
    for classes in (CLASSES + 1, CLASSES[:-1], [*CLASSES, 0]):
        with pytest.raises(InputError, match="No output has a score for each class") as caught:
            measure(same, same, samples(classes), [SCORES], top=1)
        assert "scores: float32 [N, 4]" in caught.value.fix


def test_a_folded_model_that_does_not_run_has_no_accuracy():
    assert measure(same, lambda _: None, samples(), [SCORES], top=1) is None


def test_the_sentence():
    scores = (Score(1, 0.75, 0.7, 1, 6, -0.1, 0.01), Score(5, 0.9, 0.9, 0, 0, -0.02, 0.02))
    assert Accuracy("y", 1000, scores).sentence == (
        "Accuracy on 1,000 labelled rows: top-1 70.00%, original 75.00%, difference −5.00 points (95 % "
        "interval −10.00 to +1.00); top-5 90.00%, original 90.00%, difference +0.00 points (95 % interval "
        "−2.00 to +2.00)."
    )


def test_the_interval_is_wald_s_with_half_a_row_more_in_each_cell():
    gained, lost, rows = 86, 150, 1600
    differences = np.repeat([1.0, -1.0, 0.0], [2 * gained + 1, 2 * lost + 1, 2 * (rows - gained - lost) + 2])
    margin = 1.959964 * differences.std() / math.sqrt(rows + 2)
    assert interval(gained, lost, rows) == pytest.approx(
        (differences.mean() - margin, differences.mean() + margin), abs=1e-7
    )


def test_the_interval_stays_within_what_a_difference_can_be_and_never_vanishes():
    assert interval(3, 0, 3)[1] == 1.0
    assert interval(0, 3, 3)[0] == -1.0
    low, high = interval(0, 0, 50)
    assert low == -high < 0


@pytest.mark.parametrize("rows", [30, 200])
@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.1)])
def test_the_interval_covers_the_true_difference(rows: int, up: float, down: float):
    """Exactly, over every outcome: by the trinomial distribution of gained and lost rows."""
    covered = 0.0
    for gained in range(rows + 1):
        for lost in range(rows + 1 - gained):
            rest = rows - gained - lost
            log = math.lgamma(rows + 1) - sum(math.lgamma(n + 1) for n in (gained, lost, rest))
            log += gained * math.log(up) + lost * math.log(down) + rest * math.log(1 - up - down)
            low, high = interval(gained, lost, rows)
            covered += math.exp(log) * (low <= up - down <= high)
    assert 0.93 < covered < 1
