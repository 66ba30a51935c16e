"""`bnfold fleet` as people type it; test_docs.py runs it with real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bnfold.fleet.options import OPTIONS
from bnfold.fleet.run import Shard
from bnfold_cli import main


def invoke(*words: object, given: str = "") -> Result:
    return CliRunner().invoke(main, ["fleet", *map(str, words)], prog_name="bnfold", input=given)


@pytest.mark.usefixtures("opened")
def test_metrics_and_resuming(zoo: Path, tmp_path: Path) -> None:
    """Afterwards nothing is left to do, and the metrics say so."""
    out, metrics = tmp_path / "out", tmp_path / "fleet.prom"
    words = ("check", zoo, "--out", out, "--jobs", 1, "--metrics", metrics, "--memory-limit", "4GB")
    done = invoke(*words)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "3 models: 1 passed, 2 with findings.")
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["folds.onnx", "broken.onnx", "stays.onnx"]
    assert 'bnfold_fleet_models_ended{command="check",state="done"} 3' in metrics.read_text()
    again = invoke(*words, "--resume", "--exit-zero")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    assert again.stdout.splitlines()[-1] == "Nothing to do: all 3 results are there."
    assert 'bnfold_fleet_models_known{command="check"} 3' in metrics.read_text()


@pytest.mark.usefixtures("opened")
def test_names_on_standard_input(zoo: Path, tmp_path: Path) -> None:
    done = invoke("fold", "-", "--out", tmp_path / "out", given=f"{zoo}/a/folds.onnx\n\n")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "1 model: 1 folded.")
    assert (tmp_path / "out" / "models" / "folds.onnx").exists()


@pytest.mark.usefixtures("opened")
def test_a_part(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of: dict[str, int] = {}
    monkeypatch.setattr(
        Shard, "has", lambda shard, name: part_of.setdefault(name, 1 + len(part_of) % 2) == shard.number
    )
    said = [
        invoke("fold", zoo, "--out", tmp_path / "out", "--shard", f"{number}/2", "--exit-zero").stdout
        for number in (1, 2)
    ]
    assert "of this part have a result" in said[0]
    assert said[1].startswith("3 models: 1 folded, 1 with nothing to fold")


@pytest.mark.usefixtures("opened")
def test_the_report_for_programs(zoo: Path, tmp_path: Path) -> None:
    done = invoke("fold", zoo, "--out", tmp_path / "out", "--json", "-", "--exit-zero")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_only_if_faster_needs_a_time(zoo: Path, tmp_path: Path) -> None:
    done = invoke("export", zoo, "--out", tmp_path / "out", "--only-if-faster")
    assert (done.exit_code, "add --bench" in done.stderr) == (2, True)


@pytest.mark.usefixtures("opened")
def test_codes_with_commas(zoo: Path, tmp_path: Path) -> None:
    done = invoke("check", zoo / "a", "--out", tmp_path / "out", "--select", "M101,M302", "--ignore", "M1")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "1 model: 1 passed.")
    [line] = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["options"] == {"select": ["M101", "M302"], "ignore": ["M1"]}


@pytest.mark.usefixtures("opened")
def test_quiet(zoo: Path, tmp_path: Path) -> None:
    done = invoke("fold", zoo, "--out", tmp_path / "out", "-q")
    assert (done.exit_code, done.output) == (1, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engine", "slurm"), "'slurm' is not an engine"),
        (("--engine", "local://host"), "is not an engine"),
        (("--shard", "3/2"), "3/2 is not a shard"),
        (("--shard", "half"), "not a shard"),
        (("--memory-limit", "much"), "not a size"),
        (("--expect", "1x3x8x8"), "has no name"),
        (("--select", "Z9"), "not the code of a rule"),
        (("--json", "/nowhere/at/all.json"), "does not exist"),
    ],
)
def test_what_is_wrong_is_said(zoo: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = invoke("check", zoo, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_standard_input_without_names(tmp_path: Path) -> None:
    done = invoke("fold", "-", "--out", tmp_path / "out", given="\n")
    assert (done.exit_code, "Standard input names no models" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_help_has_groups_and_says_what_options_take(name: str) -> None:
    said = invoke(name, "--help").stdout
    assert "TEXT" not in said
    assert "INTEGER" not in said
    assert [line for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")][:3] == [
        "Where results go:",
        "Who does it:",
        "Each model:",
    ]


def test_every_option_is_one_of_the_command_for_a_single_model() -> None:
    for name, options in OPTIONS.items():
        command: Any = main.get_command(None, name)  # type: ignore[arg-type]
        known = {
            flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        extra = {"export": {"--bench"}}.get(name, set())
        assert {f"--{option}" for option in options} - extra <= known
