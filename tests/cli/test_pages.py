"""`--html` of each command: the page is written after the work, says the command, and is refused in time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bnfold.gate import run as gate
from tests.gate.models import answering

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process was started with, which the page shows."""
    monkeypatch.setattr(sys, "argv", ["bnfold", "the command"])


def page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    assert "bnfold &#39;the command&#39;" in text
    assert text.rstrip().endswith("</html>")
    return text


@pytest.mark.parametrize("in_place", [False, True])
def test_of_a_fold(run, model: Path, tmp_path: Path, in_place: bool) -> None:
    where = ["--in-place"] if in_place else ["-o", tmp_path / "out.onnx"]
    result = run("fold", model, *where, "--html", tmp_path / "page.html", "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.stderr
    assert "page.html (" in result.stdout.splitlines()[-1]
    text = page(tmp_path / "page.html")
    assert "<code>batchnormalization_1</code>" in text
    assert "All 1 weights as a table" in text, "the weights before the fold are known"
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["source"]["sha256"] in text
    assert record["output"]["sha256"] in text
    assert record["no_graphs"].startswith("a fold alone runs nothing")


def test_of_a_comparison_that_passes_and_one_that_fails(run, make_model, model: Path, tmp_path: Path) -> None:
    run("fold", model, "-o", tmp_path / "out.onnx")
    pages = [tmp_path / name for name in ("good.html", "bad.html")]
    good = run("validate", model, tmp_path / "out.onnx", "--html", pages[0], "--samples", "1", "--quiet")
    assert (good.exit_code, good.stdout) == (0, "")
    assert "Agrees with the original" in page(pages[0])
    assert "Layer by layer" in page(pages[0])
    other = make_model("other.onnx", ["Conv", "BatchNormalization"], seed=1)
    bad = run("validate", model, other, "--html", pages[1], "--samples", "1", "--oracle", "off")
    assert bad.exit_code == 1
    assert "Disagrees with the original" in page(pages[1])


def test_of_a_replay(run, model: Path, tmp_path: Path) -> None:
    out, report, shown = tmp_path / "out.onnx", tmp_path / "report.json", tmp_path / "page.html"
    run("fold", model, "-o", out)
    given = ("--samples", "1", "--per-layer", "--json", report, "-q")
    assert run("validate", model, out, *given).exit_code == 0
    again = run("validate", "--replay", report, "--html", shown)
    assert again.exit_code == 0, again.stderr
    assert "page.html (" in again.stdout.splitlines()[-1]
    assert "What the report says still holds" in page(shown)
    assert "Agrees with the original" in page(shown)
    assert "Layer by layer" in page(shown)
    assert "model.onnx → out.onnx" in page(shown)
    for place in (model, out, report):
        refused = run("validate", "--replay", report, "--html", place)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "is an input or an output of this command already" in refused.stderr
    out.write_bytes(out.read_bytes() + b"\0")
    changed = run("validate", "--replay", report, "--html", shown, "-q")
    assert changed.exit_code == 1
    assert "What the report says does not hold any more" in page(shown)
    assert f"{out} is not the file that was validated" in page(shown).replace("<wbr>", "")
    assert "were not run against each other" in page(shown)


def test_of_a_latency(run, model: Path, tmp_path: Path) -> None:
    run("fold", model, "-o", tmp_path / "out.onnx")
    result = run("bench", model, tmp_path / "out.onnx", "--seconds", "0.05", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    assert "Distributions of the single timings" in page(tmp_path / "page.html")


def test_of_a_check(run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_answers", answering([]))
    monkeypatch.chdir(tmp_path)
    result = run("check", model.name, "--no-cache", "--html", "page.html", "--statistics")
    assert (result.exit_code, result.stdout.split()[:2]) == (1, ["1", "M101"])
    text = page(tmp_path / "page.html")
    assert "<code>model.<wbr>onnx</code>" in text
    assert "foldable-batchnorm" in text
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("check", model.name, "--no-cache", "--html", "p.html").exit_code == 1, "it has no plots"


def test_statistics_of_nothing_say_so(
    run, make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_answers", answering([]))
    monkeypatch.chdir(tmp_path)
    result = run("check", make_model("fine.onnx", ["Conv", "Relu"]).name, "--no-cache", "--statistics")
    assert (result.exit_code, result.stdout) == (0, "Nothing found in 1 model.\n")


@pytest.mark.parametrize("command", ["fold", "validate", "bench", "check"])
def test_a_page_over_a_model_is_refused_before_any_work(run, model: Path, command: str) -> None:
    before = model.read_bytes()
    others = {"fold": ["-o", model.with_name("out.onnx")], "check": ["--write-baseline", model]}
    given = others.get(command, [model])
    result = run(command, model, *given, "--html", model)
    assert result.exit_code == 2, result.stdout
    assert model.read_bytes() == before
