"""The stopwatch's own test: its pair is what it says, and its table counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import stopwatch
from bnfold.latency.footprint import Footprint
from bnfold.latency.results import Benchmark, Row
from bnfold.oracle.multiply_adds import multiply_adds


def test_the_known_difference_is_exactly_a_tenth() -> None:
    same, tenth = stopwatch.pairs()
    assert same.original is same.folded
    feeds = {"x0": np.zeros((1, 32, 20, 20), np.float32)}
    more, fewer = (multiply_adds(model, feeds) for model in (tenth.original, tenth.folded))
    assert more * 10 == fewer * 11


@pytest.mark.parametrize(
    ("which", "verdicts", "failed"),
    [
        (0, {"no measurable difference": 12, "too noisy to say": 7, "faster": 1}, False),
        (0, {"no measurable difference": 18, "slower": 1, "faster": 1}, True),
        (1, {"faster": 18, "too noisy to say": 2}, False),
        (1, {"faster": 17, "too noisy to say": 3}, True),
        (1, {"faster": 18, "slower": 2}, True),
    ],
)
def test_what_counts_as_failed(which: int, verdicts: dict[str, int], failed: bool) -> None:
    assert stopwatch.pairs()[which].failed(Counter(verdicts)) is failed


def timed(ratio: float) -> Benchmark:
    rows = tuple(
        Row(optimizer, 8, 1, ratio, ratio, 1.0, 1.0, ratio, ratio - 0.01, ratio + 0.01, loads=8, pinned=4)
        for optimizer in ("default", "basic", "off")
    )
    return Benchmark("cpu", 1, 0, {}, rows, Footprint(1, 1, 1, 11), Footprint(1, 1, 1, 10), 2)


def test_the_page_counts_the_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    ratios = {"10 blocks against themselves": 1.0, "11 blocks against 10": 1.1}
    monkeypatch.setattr(stopwatch, "measure", lambda pair, runs, _: [timed(ratios[pair.name])] * runs)
    page = tmp_path / "page.md"
    assert stopwatch.main(["--runs", "20", "--markdown", str(page)]) == 0
    written = page.read_text(encoding="utf-8")
    assert written in capsys.readouterr().out
    assert "| 10 blocks against themselves | off | 1.00 ms | 0 | 0 | 20 | 0 | 1.000 | 0.020 | 0% |" in written
    assert "| 11 blocks against 10 | default | 1.10 ms | 20 | 0 | 0 | 0 | 1.100 | 0.020 | 0% |" in written
    assert "20 runs of each pair. A block" in written
    assert "takes 11 multiply-adds, the other 10." in written
    assert f"$ python -m benchmarks.stopwatch --runs 20 --markdown {page}" in written
    ratios["10 blocks against themselves"] = 1.2
    assert stopwatch.main(["--runs", "20"]) == 1
