"""The generated fleet has the faults that it is to have, and the page says what was measured and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import fleet_models
from benchmarks.fleet import earlier, records, report, twice
from benchmarks.fleet_page import section
from bnfold.fleet.plan import Plan

RUN = {
    "models": 200,
    "done": 100,
    "workers_processor_seconds": 5.0,
    "coordinator_processor_seconds": 0.5,
    "coordinator_bytes": 10**8,
    "listing_seconds": 0.1,
}


def test_the_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bnfold
    from bnfold.errors import ModelError

    monkeypatch.setattr(fleet_models, "LARGEST", 40_000)
    fleet_models.fleet(tmp_path, 100)
    names = [path.name for path in tmp_path.rglob("*.onnx")]
    kinds = {kind: sum(name.startswith(kind) for name in names) for kind in ("broken", "slow", "killing")}
    assert (len(names), kinds) == (100, {"broken": 2, "slow": 1, "killing": 1})
    assert abs((tmp_path / "000" / "model00000.onnx").stat().st_size / 40_000 - 1) < 0.3
    with pytest.raises(ModelError):
        bnfold.fold(tmp_path / "000" / "broken00003.onnx")
    assert len(bnfold.fold(tmp_path / "000" / "model00005.onnx").kept) == 1


def test_trivial_models_differ() -> None:
    draw = np.random.default_rng(0)
    first, second = (fleet_models.network(0, draw).SerializeToString() for _ in range(2))
    assert first != second
    assert len(first) < 1000


def test_a_result_that_is_there_twice_is_noticed(tmp_path: Path) -> None:
    line = '{"path": "a", "measured": {"seconds": 1}}\n'
    (tmp_path / "results.jsonl").write_text(line)
    assert records(tmp_path) == {"a": {"path": "a"}}
    (tmp_path / "results.jsonl").write_text(line * 2)
    with pytest.raises(AssertionError, match="occurs twice"):
        records(tmp_path)
    assert twice(tmp_path) == 1
    (tmp_path / "report.json").write_text('{"models": 1, "measured": {"seconds": 1}}')
    assert report(tmp_path) == {"models": 1}


def test_the_page_says_what_was_measured() -> None:
    rows = {
        "engines": {"runs": {"local": RUN, "dask": RUN}, "states": {"done": 200}, "largest": 5 * 10**7}
        | {"code": "a"},
        "chaos": {"engine": "local", "models": 200, "workers_killed": 75, "coordinators_killed": 2}
        | {"further_resumes": 0, "missing": 0, "twice": 0, "different": 0, "code": "a"},
        "memory": {"runs": {"1": RUN, "2": {**RUN, "done": 300, "coordinator_bytes": 10**8 + 20_000}}}
        | {"code": "a"},
    }
    said = section(rows)
    assert "| dask | 50 ms | 5 ms |" in said
    assert "| local | 200 | 75 | 2 | 0 | 0 | 0 | 0 |" in said
    assert "grows by 0.10 kB a model" in said
    assert "| 300 | 100 MB |" in said
    assert "Ray" not in said
    assert "On paper" not in said
    process = {"processor_seconds": 1.0, "memory": 10**8}
    large = {"code": "a", "bytes": 10**8, **dict.fromkeys(("check", "fold", "export"), process)}
    assert "| `check` | 10 TB | 0.8 s | 1.0 s | 100 MB | 1.0 h |" in section({**rows, "large": large})


def test_figures_of_several_states_of_the_code_make_no_page() -> None:
    with pytest.raises(ValueError, match="several states of the code: a, b"):
        section({"s3": {"code": "a"}, "ray": {"code": "b"}})


def test_figures_of_another_state_are_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text('{"s3": {"code": "a"}, "ray": {"code": "b"}}')
    assert earlier(tmp_path / "rows.json", "b") == {"ray": {"code": "b"}}
    assert capsys.readouterr().out.startswith("s3: measured again")


def test_planted_faults_go_by_another_name() -> None:
    """Else their results would be taken for those of bnfold."""
    from benchmarks.fleet import UNIT

    assert Plan("check", "out").unit != UNIT
