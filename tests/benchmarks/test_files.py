"""The judge of commands on files in use: what it accepts and what not, and the page that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from benchmarks import converted, files
from benchmarks.converted import ABSENT, MAKERS
from benchmarks.corpus import Network
from benchmarks.files import FEWEST, Outcome, Row, judged, problems, section
from benchmarks.page import MARKS
from tests.graphs import build, statistics, weight


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = build(
        "g (float[N,3,6,6] image) => (float[N,4,4,4] y) { [first] c = Conv(image, w) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    model.producer_name = "toys"
    onnx.save(model, tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


@pytest.mark.parametrize(
    ("code", "message", "is_good"),
    [
        (0, "", True),
        (2, "toy.onnx is truncated or damaged. Save or download it again.", True),
        (2, "Conv (first) is not valid: it has a bias of shape [5] for 4 channels.", True),
        (2, "The input 'image' is too large to be drawn. Give inputs.", True),
        (2, "A size is missing. Add: --dynamic batch", True),
        (1, "toy.onnx does not compute what it should.", True),
        (2, "Something is wrong somewhere. Check the model.", False),
        (2, "toy.onnx: bnfold did not foresee this: KeyError: 'image'.", False),
        (
            2,
            "toy.onnx cannot be read. onnx.checker.check_model says more about what is wrong.",
            False,
        ),
        (-11, "", False),
        (None, "stopped", False),
    ],
)
def test_what_is_good(path: Path, code: int | None, message: str, is_good: bool) -> None:
    assert (judged(Outcome(code, message=message), path) == "") == is_good


def test_commands_on_a_file(path: Path) -> None:
    row = files.measured(Network("toys==1.0", "toy.onnx", path))
    assert row.converter == "toys"
    assert {name: (outcome.code, outcome.problem) for name, outcome in row.outcomes.items()} == {
        "inspect": (0, ""),
        "fold": (0, ""),
        "export": (0, ""),
    }


def test_an_option_that_is_named_is_given_and_has_to_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], _: Path) -> Outcome:
        asked.append(words)
        return Outcome(2, message="Add: --seed 3") if len(asked) % 2 else Outcome(codes.pop())

    codes: list[int | None] = [2, 0]
    monkeypatch.setattr(files, "_run", run)
    done = files.attempt(["export", "toy.onnx"], path)
    assert asked == [["export", "toy.onnx"], ["export", "toy.onnx", "--seed", "3"]]
    assert (done.followed, done.worked, done.problem) == ("--seed 3", True, "")
    assert files.attempt(["export", "toy.onnx"], path).problem.startswith("With --seed 3 it ends with 2")


def test_the_page_says_what_was_refused_and_the_corpus_has_to_be_large() -> None:
    good = Row("a", "one", {"fold": Outcome(0, 1.0)})
    bad = Row("b", "two", {"fold": Outcome(2, 2.0, "b is no model.", problem="It is vague.")})
    for row in (good, bad):
        row.outcomes |= {name: Outcome(0) for name in ("inspect", "export")}
    found = problems([good, bad])
    assert found[0] == "b, fold: It is vague."
    assert f"{FEWEST[0]} of {FEWEST[1]} are needed" in found[1]
    page = section([good, bad], "python -m benchmarks.files")
    assert "| two | 1 | 1 | 0 | 1 | 2 s |" in page
    assert "- b, `fold`: b is no model." in page
    every = [Row(str(n), str(n % FEWEST[1]), {}) for n in range(FEWEST[0])]
    assert problems(every) == []


def test_a_whole_run_without_any_package(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network("made by toys", "toy.onnx", path)
    monkeypatch.setattr(files, "converted", lambda *_: ([network], ["others is not installed."]))
    page, rows = tmp_path / "page.md", tmp_path / "rows.jsonl"
    page.write_text("\n".join(MARKS))
    words = ["--packages", "--folder", str(tmp_path), "--rows", str(rows), "--page", str(page)]
    assert files.main(words) == 1, "one file is too few"
    assert json.loads(rows.read_text())["converter"] == "toys"
    assert "| toys | 1 | 1 | 1 | 1 |" in page.read_text()
    assert "others is not installed." in capsys.readouterr().out
    monkeypatch.setattr(files, "measured", lambda _: pytest.fail("it was measured before"))
    assert files.main(words) == 1


def test_converters_that_are_not_installed_are_skipped_by_name(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexit {ABSENT}\n")
    program.chmod(0o755)
    found, skipped = converted.converted(tmp_path / "out", program)
    assert found == []
    assert skipped == [f"{name} is not installed; nothing of it is tried." for name in MAKERS]
