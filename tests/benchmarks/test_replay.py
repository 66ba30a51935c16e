"""Recorded timings are drawn as they were taken, and the table counts what the replays say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import replay, stopwatch
from benchmarks.replay import Recording, Score
from tests.graphs import build

RNG = np.random.default_rng(0)
CALM = RNG.normal(1.0, 0.005, (16, 1, 3)) * RNG.lognormal(0, 0.01, (16, replay.FIXED_ROUNDS, 3))


def test_a_draw_keeps_rounds_together_and_leaves_no_difference_but_the_true_one() -> None:
    series = np.arange(4 * 96 * 3, dtype=float).reshape(4, 96, 3) + 1
    times = replay.drawn(series, 50, 20, 2.0, np.random.default_rng(0)) * np.array([1, 2, 1])
    assert times.shape == (50, 20, 3)
    assert (np.diff(times, axis=1) == 3).all(), "rounds in a row, and no contestant changes its place within"
    assert {tuple(order) for order in np.argsort(times[:, 0]).tolist()} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)
    }  # fmt: skip


def test_both_ways_find_a_difference_and_claim_none() -> None:
    rng = np.random.default_rng(1)
    for truth, verdict in ((1.0, "no measurable difference"), (1.2, "faster")):
        scores = replay.replayed(CALM, truth, 5, rng)
        assert [score.verdicts[verdict] for score in scores.values()] == [5, 5]
        fixed, sequential = scores.values()
        assert (fixed.loads, fixed.early) == ([8] * 5, 0)
        assert (sequential.loads, sequential.early) == ([8] * 5, 5)


def test_a_score_is_written_as_shares() -> None:
    score = Score(loads=[8, 16], early=1, covered=2)
    score.verdicts.update(["faster", "too noisy to say"])
    assert score.cells() == ("50.0%", "0.0%", "0.0%", "50.0%", "12.0", "50%", "100.0%")
    assert score.wrong == 1


def test_what_was_recorded_becomes_a_part_of_the_page(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(replay, "FIXED_ROUNDS", 2)
    monkeypatch.setattr(replay, "SHORT_ROUNDS", 2)
    model, file = tmp_path / "small.onnx", tmp_path / "series.npz"
    model.write_bytes(build("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }").SerializeToString())
    arguments = [str(model), "--output", str(file), "--parts", "1", "--conditions", "for a test"]
    assert replay.main(arguments) == 0
    recording = Recording.load(file)
    assert {name: series.shape for name, series in recording.series.items()} == {"small": (8, 2, 3)}
    assert recording.conditions.startswith("for a test, load average ")
    page, _ = replay.section([recording], 3)
    assert sum(line.startswith("| small |") for line in page) == 6
    assert f"Recorded on {recording.date}, 8 loads of each model, for a test, load" in "\n".join(page)


@pytest.mark.parametrize(("claims", "code"), [(0, 0), (1, 1)])
def test_a_difference_that_is_claimed_too_often_fails(claims: int, code: int, monkeypatch, tmp_path) -> None:
    score = Score(loads=[8] * 10)
    score.verdicts.update(["faster"] * claims + ["no measurable difference"] * (10 - claims))
    monkeypatch.setattr(replay, "replayed", lambda *_: {"a given time": score})
    monkeypatch.setattr(stopwatch, "pairs", lambda _: ())
    monkeypatch.setattr(stopwatch, "conditions", lambda *_: "")
    monkeypatch.setattr(stopwatch, "markdown", lambda *parts: "\n".join(parts[-1]))
    file = tmp_path / "series.npz"
    Recording({"calm": CALM}, "1 May 2026", "quiet").save(file)
    assert stopwatch.main(["--recorded", str(file)]) == code


def test_without_a_recording_there_is_no_such_part() -> None:
    assert replay.section([], 10) == ([], False)
