"""Both models timed in another runtime."""

from __future__ import annotations

import pytest

import bnfold
from bnfold.engines import known
from bnfold.errors import InputError
from bnfold.latency.benchmark import benchmark
from tests.engines.fake import Fake, network


def test_runs_are_timed_and_conversions_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setitem(known.ENGINES, "fake", fake)
    original = network(channels=4)
    folded = bnfold.fold(original).model
    result = benchmark(original, folded, runtime="fake", rounds=2, seconds=0.1, batches=(1, 2))
    assert result.provider == "Fake"
    assert [(row.optimizer, row.measures, row.batch) for row in result.rows] == [
        ("default", "end to end", 1),
        ("default", "end to end", 2),
    ]
    assert len(fake.converted) == 2, "each model once, however often it is loaded"
    assert len(fake.threads) == 1 + 2 * 3 * 2
    assert result.original is not None
    assert result.original.peak_memory is None
    assert result.placement == ()
    assert all(row.original_load_ms > 0 for row in result.rows)
    assert "ONNX Runtime" not in result.sentence


def test_an_unknown_runtime_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="'openvin' is not a runtime"):
        benchmark(network(), network(), runtime="openvin")
