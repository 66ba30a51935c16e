"""`validate X X` over the node models of the package onnx: the machinery, on a few of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import node_models
from benchmarks.node_models import MARKS, Verdict

GOOD = Verdict("test_relu", True, 0, 0, "", 0.1, 100.0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first models of those that are wanted."""
    every = node_models.models
    wanted = {"test_abs", "test_affine_grid_2d", "test_castlike_FLOAT_to_UINT4", "test_adagrad"}
    monkeypatch.setattr(node_models, "models", lambda folder: [p for p in every(folder) if p.stem in wanted])


@pytest.mark.usefixtures("few")
def test_models_are_judged_with_their_own_inputs_where_random_ones_do_not_do(tmp_path: Path) -> None:
    page, rows = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text("\n".join(["# Title", *MARKS]), encoding="utf-8")
    assert node_models.main(["--rows", str(rows), "--page", str(page)]) == 0
    found = {one["name"]: Verdict(**one) for one in map(json.loads, rows.read_text().splitlines())}
    assert (found["test_abs"].code, found["test_abs"].last) == (0, 0)
    assert (found["test_affine_grid_2d"].code, found["test_affine_grid_2d"].last) == (2, 0)
    assert (found["test_castlike_FLOAT_to_UINT4"].last, found["test_adagrad"].loads) == (2, False)
    assert "1 of them agree with themselves on random inputs, and 1 more on" in page.read_text()
    assert "| 2 | ONNX Runtime computes the output …, but returns no uint… to Python" in page.read_text()


def test_a_model_that_ends_or_stops_its_process_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is a shell here: it answers for the first model, hangs at the second, dies at the fourth."""
    script = """
    answers=$1; shift
    for path in "$@"; do
        name=$(basename "$path" .onnx)
        case $name in hangs) sleep 60;; dies) exit 3;; esac
        echo "{\\"name\\": \\"$name\\", \\"loads\\": true, \\"code\\": 0, \\"last\\": 0}" >> "$answers"
    done
    """
    honest = subprocess.Popen

    def shell(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return honest(["sh", "-c", script, "sh", *command[4:]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(node_models.subprocess, "Popen", shell)
    monkeypatch.setattr(node_models, "SECONDS", 1.0)
    paths = [Path(f"{name}.onnx") for name in ("one", "hangs", "two", "dies", "three")]
    found = list(node_models.verdicts(paths, tmp_path / "answers.jsonl"))
    assert [one.name for one in found] == ["one", "hangs", "two", "dies", "three"]
    assert [one.code for one in found] == [0, None, 0, None, 0]
    assert found[1].why == "Its process was stopped after 1 seconds."
    assert found[3].why == "Its process was ended with 3."
    assert len(node_models.unexpected(found)) == 2


def test_only_what_has_no_named_cause_counts() -> None:
    disagrees = replace(
        GOOD, code=1, last=1, why="A does not compute what B computes: Nothing could be compared"
    )
    empty = replace(GOOD, code=2, last=2, why="Nothing could be compared: on every input, …")
    rejected = replace(
        GOOD, code=2, last=2, why="The model rejects all values … ONNX Runtime could not run it"
    )
    absent = replace(rejected, loads=False)
    assert node_models.unexpected([GOOD, empty, absent, replace(rejected, last=0)]) == []
    assert len(node_models.unexpected([disagrees, rejected])) == 2


def test_complaints_are_one_kind_whatever_their_names() -> None:
    whys = ("The input 'a' is uint4, which NumPy cannot.", "The input 'b' is float8e5m2, which NumPy cannot.")
    assert len({node_models.kind(replace(GOOD, why=why)) for why in whys}) == 1
