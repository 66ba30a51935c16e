"""A model that only needs an option is not a failure: the option is said, and the line that works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bnfold.errors import InputError, MissingShapeError, UnsafePickleError
from bnfold.fleet import advice, alone
from bnfold.fleet.process_server import Ended
from bnfold_cli import main

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (MissingShapeError("No shape.", ["--input-shape", "1x3x8x8"]), {"input-shape": ["1x3x8x8"]}),
        (
            InputError("Two.", "Say which, add: --key model --arch p:f; or: --key ema --arch p:f"),
            {"key": "model", "arch": "p:f"},
        ),
        (
            InputError("Two inputs.", "It takes a, b. Add: --input-shape a=<shape> --input-shape b=<shape>"),
            {"input-shape": ["a=<shape>", "b=<shape>"]},
        ),
        (
            UnsafePickleError("Classes.", "If you trust them, add: --allow a.B --allow a.C"),
            {"allow": ["a.B", "a.C"]},
        ),
        (InputError("Wrong.", "Leave --arch out."), {}),
        (InputError("Code.", "If you trust the file, add: --trust now"), {}),
    ],
)
def test_what_a_message_asks_for(error: Any, options: dict[str, Any]) -> None:
    assert advice.asked(error) == options


@pytest.mark.parametrize(
    "said",
    [{"trust": True}, {"out": "/etc"}, {"key": 3}, {"key": []}, {"allow": [["a"]]}, ["key"], "key", None],
)
def test_what_a_hostile_process_may_not_say(said: Any) -> None:
    assert advice.options(said) == {}


def test_classes_are_added_and_all_else_is_replaced() -> None:
    before = {"allow": ["a.B"], "input-shape": ["1x3"], "seed": 1}
    further = {"allow": ["a.C"], "input-shape": ["1x4"]}
    assert advice.added(before, further) == {"allow": ["a.B", "a.C"], "input-shape": ["1x4"], "seed": 1}


def run(*words: object) -> Any:
    return CliRunner().invoke(main, ["fleet", *map(str, words)], prog_name="bnfold")


@pytest.mark.usefixtures("opened")
def test_a_pytorch_file_in_a_folder_to_fold(tmp_path: Path) -> None:
    """It is no failure, and the line that is shown exports it."""
    pytest.importorskip("torch")
    words = ("fold", MODELS / "convnet.pt", "--keep", "bn1", "--out", tmp_path / "out")
    done = run(*words)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "1 model: 1 needing an option or another command."
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["states"], report["failures"], report["needs_left_out"]) == ({"needs": 1}, [], 0)
    [needed] = report["needs"]
    assert needed["again"] == (
        f"bnfold fleet export {MODELS}/convnet.pt --out again --jobs 1 --time-limit 600 --keep bn1"
        " --input-shape 1x1x32x32"
    )
    line = shlex.split(needed["again"].replace("--out again", f"--out {tmp_path}/again"))
    done = run(*line[2:], "--samples", 1, "--oracle", "off")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "1 model: 1 exported and proved.")


@pytest.mark.usefixtures("opened")
def test_an_option_for_pytorch_files_leaves_others_alone(zoo: Path, tmp_path: Path) -> None:
    words = ("export", zoo / "a", "--input-shape", "1x3x8x8", "--expect", "x=1x3x8x8", "--samples", 1)
    done = run(*words, "--oracle", "off", "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "1 model: 1 exported and proved.")


@pytest.mark.usefixtures("opened")
def test_the_line_repeats_everything(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed, it gives the same record of the same model: every option that was given is in it."""
    seen: list[dict[str, Any]] = []

    def ends(_: str, job: Any, **limits: Any) -> Ended:
        seen.append({"job": (job.options, job.inputs, job.settings, job.cache, job.command), **limits})
        return Ended(None, "killed", "was ended by SIGSEGV")

    monkeypatch.setattr(alone, "run", ends)
    settings = tmp_path / "own settings.toml"
    settings.write_text("[limits]\nopset = 17\n")
    common = ["--time-limit", 7, "--memory-limit", "1GB", "--expect", "x=1x3", "--cache-dir", tmp_path / "c"]
    for command, own in {
        "export": [
            "--input-shape",
            "a b=1x3",
            "--arch-args",
            '{"n": 1}',
            "--keep",
            "x",
            "--keep=-y",
            "--bench",
        ],
        "fold": ["--no-merge", "--keep", "$(name)"],
        "check": ["--select", "M1,M2", "--config", settings],
    }.items():
        out = tmp_path / command
        assert run(command, zoo / "a", "--out", out, *common, *own).exit_code == 1
        [failure] = json.loads((out / "report.json").read_text())["failures"]
        line = shlex.split(failure["again"].replace("--out again", f"--out '{tmp_path}/again {command}'"))
        assert run(*line[2:]).exit_code == 1
        first, again = seen[-2:]
        assert first == again, command
