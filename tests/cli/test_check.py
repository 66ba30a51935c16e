"""`bnfold check`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from bnfold.errors import DisagreementError
from bnfold.gate import fix
from bnfold.gate import run as gate
from bnfold.gate.rules import RULES
from bnfold_cli import main
from tests.gate.models import answering, here, layers, save
from tests.graphs import operators

BATCHNORM = "BatchNormalization(b, scale, bias, mean, var)"


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that rules are asked about, in this process; the current folder has a file of settings."""
    (tmp_path / "bnfold.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNFOLD_CACHE_DIR", raising=False)
    names: list[str] = []
    monkeypatch.setattr(gate, "_answers", answering(names))
    monkeypatch.setattr(fix, "outcomes", here)
    return names


@pytest.fixture
def foldable(tmp_path: Path) -> Path:
    return save(layers(), tmp_path / "models" / "net.onnx")


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    return save(layers("y = Relu(a)"), tmp_path / "models" / "fine.onnx")


LINE = "models/net.onnx: M101 1 BatchNorm can be folded: y [*]\n"


# --- how it ends ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fine")
def test_0_where_nothing_is_found(run) -> None:
    result = run("check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "No findings in 1 model.\n", "")


@pytest.mark.usefixtures("fine", "foldable")
def test_1_where_something_is(run) -> None:
    result = run("check")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == f"{LINE}1 finding in 2 models, 1 fixable with --fix.\n"
    assert run("check", "--exit-zero").exit_code == 0
    assert run("check", "--exit-zero").stdout == result.stdout


def test_0_where_only_notes_are(run, tmp_path) -> None:
    save(layers(f"b = Tanh(a)  y = {BATCHNORM}"), tmp_path / "net.onnx")
    result = run("check", "--extend-select", "M107")
    assert (result.exit_code, "M107 1 BatchNorm stays" in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.onnx",), "absent.onnx is not there."),
        (("*.zip",), "Nothing fits *.zip."),
        (("--select", "M110"), "Did you mean M"),
        (("--ignore", "M101,X2"), "'X2' is not the code of a rule"),
        (("--extend-select", "m110"), "Did you mean M"),
        (("--output-format", "jsn"), "Did you mean json?"),
        (("--output-format", "xml"), "known are concise, full, github"),
        (
            ("--output-format", "json", "--output-format", "github"),
            "Only one format can go to standard output",
        ),
        (("--output-format", "json=absent/out.json"), "The folder of absent/out.json does not exist"),
        (("--output-format", "json=out", "--output-format", "sarif=out"), "already"),
        (("--output-format", "json=out", "--write-baseline", "out"), "already"),
        (("--write-baseline", "absent/baseline.json"), "The folder of absent/baseline.json does not exist"),
        (("--baseline", "absent.json"), "absent.json cannot be read"),
        (("--config", "absent.toml"), "absent.toml is not there."),
        (("--against", "absent"), "absent is not there."),
        (("--fix", "--diff"), "take one"),
        (("--jobs", "0"), "--jobs"),
        (("--time-limit", "0"), "--time-limit"),
    ],
)
@pytest.mark.usefixtures("foldable")
def test_2_where_the_check_cannot_be_done(run, asked, arguments: tuple[str, ...], said: str) -> None:
    result = run("check", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert asked == []


@pytest.mark.usefixtures("foldable")
def test_a_wrong_setting_ends_it(run, tmp_path) -> None:
    (tmp_path / "bnfold.toml").write_text("[limits]\nopsett = 3\n")
    result = run("check")
    assert (result.exit_code, "Did you mean opset?" in result.stderr) == (2, True)
    (tmp_path / "other.toml").write_text('ignore = ["M101"]')
    assert run("check", "--config", "other.toml").exit_code == 0


# --- what is asked ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("foldable")
def test_the_command_line_goes_before_the_file(run, tmp_path) -> None:
    (tmp_path / "bnfold.toml").write_text('ignore = ["M101"]\nselect = ["M1"]\n[limits]\nopset = 3\n')
    assert run("check").exit_code == 0
    assert "M307" in run("check", "--select", "M307").stdout
    assert run("check", "--ignore", "M102").stdout.startswith(LINE)
    result = run("check", "--ignore", "M103", "--select", "M101 M307", "--no-cache")
    assert re.findall(r"M\d{3}", result.stdout) == ["M101", "M307"]
    assert run("check", "--ignore", "M1,M3", "--ignore", "M2", "--extend-select", "M307").exit_code == 0


@pytest.mark.usefixtures("foldable", "fine")
def test_names_come_from_standard_input(asked) -> None:
    result = CliRunner().invoke(main, ["check", "-"], input="models/fine.onnx\n\n")
    assert (result.exit_code, asked) == (0, ["models/fine.onnx"])
    result = CliRunner().invoke(main, ["check", "models/net.onnx", "-"], input="models/fine.onnx\n")
    assert result.stdout.endswith("1 finding in 2 models, 1 fixable with --fix.\n")
    result = CliRunner().invoke(main, ["check", "-"], input="")
    assert (result.exit_code, result.stdout) == (0, "No findings in 0 models.\n")


@pytest.mark.usefixtures("foldable")
def test_names_with_a_nul_between_them_may_hold_any_character(asked, tmp_path) -> None:
    """As `git diff -z` writes them; a line may end as it does on Windows."""
    strange = os.fsencode(tmp_path) + b"/models/a\n\xff\x0c.onnx"
    Path(os.fsdecode(strange)).write_bytes((tmp_path / "models" / "net.onnx").read_bytes())
    result = CliRunner().invoke(main, ["check", "-"], input=b"models/net.onnx\0" + strange + b"\0")
    assert (result.exit_code, len(asked)) == (1, 1)  # they have the same content
    assert "2 findings in 2 models" in result.stdout
    result = CliRunner().invoke(main, ["check", "-"], input=b"models/net.onnx\r\n")
    assert "1 finding in 1 model" in result.stdout


@pytest.mark.usefixtures("foldable", "fine")
def test_what_is_passed_over(run, tmp_path) -> None:
    (tmp_path / "bnfold.toml").write_text('exclude = ["fine.*"]\n')

    def shown(*arguments: str) -> list[str]:
        result = run("check", "--show-files", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()

    both = ["models/fine.onnx", "models/net.onnx"]
    assert shown() == ["models/net.onnx"]
    assert shown("--exclude", "net*") == ["models/fine.onnx"]
    assert shown("--extend-exclude", "models") == []
    assert shown(*both) == both
    assert shown(*both, "--force-exclude") == ["models/net.onnx"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / ".gitignore").write_text("net.onnx")
    assert shown("--exclude", "none") == ["models/fine.onnx"]
    assert shown("--exclude", "none", "--no-respect-gitignore") == both
    result = run("check", "--exclude", "none")
    assert result.stdout == "No findings in 1 model. 1 model that git ignores passed over.\n"
    assert run("check").exit_code == 2
    (tmp_path / "bnfold.toml").write_text("respect-gitignore = false\n")
    assert shown() == both
    assert shown("--respect-gitignore") == ["models/fine.onnx"]


@pytest.mark.usefixtures("foldable")
def test_answers_are_kept_in_a_folder_unless_they_are_not_wanted(run, asked, tmp_path) -> None:
    for _ in range(2):
        run("check", "--no-cache")
    assert (len(asked), (tmp_path / ".bnfold_cache").exists()) == (2, False)
    first, second = run("check"), run("check")
    assert (len(asked), first.stdout, (tmp_path / ".bnfold_cache").is_dir()) == (3, second.stdout, True)
    run("check", "--cache-dir", "elsewhere")
    CliRunner().invoke(main, ["check"], env={"BNFOLD_CACHE_DIR": str(tmp_path / "elsewhere")})
    assert len(asked) == 4


def test_against_a_file(run, foldable, tmp_path) -> None:
    before = save(layers(seed=1), tmp_path / "before.bin")
    result = run("check", foldable, "--select", "M402", "--against", before)
    assert result.exit_code == 1
    assert "M402 the model does not compute what what it was before computes" not in result.stdout
    assert "M402 the model does not compute what it computed before" in result.stdout


# --- what is printed and written --------------------------------------------------------------------------


@pytest.mark.usefixtures("foldable")
def test_several_formats_at_once(run, tmp_path) -> None:
    result = run(
        *("check", "--output-format", "github", "--output-format", "json=out.json"),
        *("--output-format", "gitlab=quality.json"),
    )
    assert result.exit_code == 1
    assert result.stdout.startswith("::warning file=models/net.onnx,title=M101 foldable-batchnorm::")
    assert len(result.stdout.splitlines()) == 1
    assert json.loads((tmp_path / "out.json").read_text())["findings"][0]["code"] == "M101"
    assert json.loads((tmp_path / "quality.json").read_text())[0]["check_name"] == "M101"


@pytest.mark.usefixtures("foldable")
def test_verbose_is_full_in_place_of_concise(run) -> None:
    verbose = run("check", "-v")
    assert verbose.exit_code == 1
    assert verbose.stdout == run("check", "--output-format", "full").stdout
    assert RULES["M101"].advice in " ".join(verbose.stdout.split())
    assert verbose.stdout != run("check").stdout
    assert run("check", "-v", "--json", "-").stdout == run("check", "--json", "-").stdout
    assert run("check", "-v", "-q").output == ""


@pytest.mark.usefixtures("foldable")
@pytest.mark.parametrize("given", ["json", "json=", "json=-"])
def test_a_format_without_a_file_is_printed(run, given: str) -> None:
    result = run("check", "--output-format", given)
    assert json.loads(result.stdout)["passed"] is False
    assert result.stderr == ""


@pytest.mark.usefixtures("foldable")
def test_quiet_prints_nothing_and_writes_files(run, tmp_path) -> None:
    for more in ((), ("--statistics",), ("--diff",)):
        result = run("check", "-q", *more, "--output-format", "concise=out.txt")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "")
        assert (tmp_path / "out.txt").read_text().startswith(LINE)
    result = run("check", "-q", "--write-baseline", "baseline.json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_statistics_are_in_place_of_findings(run, foldable, tmp_path) -> None:
    save(layers(seed=1), tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_text("no model")
    result = run("check", "--statistics")
    assert result.exit_code == 1
    assert result.stdout == f"    2  M101  {RULES['M101'].title}\n    1  M301  {RULES['M301'].title}\n"
    assert foldable.is_file()


@pytest.mark.usefixtures("foldable")
def test_a_file_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out.json"
    out.write_text("what was there")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("check", "--output-format", "json=out.json")
    assert (result.exit_code, "No space left on device" in result.stderr) == (2, True)
    assert out.read_text() == "what was there"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"bnfold.toml", "out.json"}


# --- baseline ---------------------------------------------------------------------------------------------


def test_what_is_accepted_does_not_fail_and_what_is_new_does(run, foldable, tmp_path) -> None:
    result = run("check", "--write-baseline", "baseline.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Wrote baseline.json: 1 finding is accepted.\n"
    result = run("check", "--baseline", "baseline.json")
    assert (result.exit_code, result.stdout) == (0, "No findings in 1 model, 1 accepted by the baseline.\n")
    save(layers(seed=1), tmp_path / "new.onnx")
    result = run("check", "--baseline", "baseline.json")
    assert (result.exit_code, result.stdout.count("M101")) == (1, 1)
    assert result.stdout.startswith("new.onnx: M101")
    save(layers("y = Relu(a)"), foldable)
    result = run("check", "--baseline", "baseline.json", "--ignore", "M101")
    assert result.stdout.startswith(
        "models/net.onnx: M101 is in the baseline and not in the model any more: y\n"
    )
    assert result.exit_code == 0


@pytest.mark.usefixtures("foldable")
def test_a_baseline_can_be_written_anew_over_the_one_that_is_read(run, tmp_path) -> None:
    run("check", "--write-baseline", "baseline.json")
    before = (tmp_path / "baseline.json").read_bytes()
    assert run("check", "--baseline", "baseline.json", "--write-baseline", "baseline.json").exit_code == 0
    assert (tmp_path / "baseline.json").read_bytes() == before


@pytest.mark.usefixtures("foldable")
def test_a_baseline_that_is_written_again_keeps_what_was_not_looked_at(run, tmp_path) -> None:
    other = save(layers(seed=1), tmp_path / "other.onnx")
    run("check", "--write-baseline", "baseline.json")
    before = (tmp_path / "baseline.json").read_bytes()
    again = ("check", "models", "--baseline", "baseline.json", "--write-baseline", "baseline.json")
    assert run(*again).exit_code == 0
    assert (tmp_path / "baseline.json").read_bytes() == before
    other.unlink()
    result = run("check", "models", "--baseline", "baseline.json")
    assert result.stdout.startswith("other.onnx: M101 is in the baseline and not in the model any more: y\n")
    run(*again)
    assert json.loads((tmp_path / "baseline.json").read_text())["accepted"].keys() == {"models/net.onnx"}


@pytest.mark.usefixtures("foldable")
def test_formats_are_written_with_a_baseline_as_it_will_be(run, tmp_path) -> None:
    run("check", "--write-baseline", "baseline.json", "--output-format", "json=out.json")
    out = json.loads((tmp_path / "out.json").read_text())
    assert (out["passed"], out["findings"], out["accepted"]) == (True, [], 1)


# --- mending ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fine")
def test_fix_mends_and_says_what_is_left(run, foldable, asked) -> None:
    result = run("check", "--fix")
    assert (result.exit_code, result.stdout) == (0, "No findings in 2 models.\n")
    assert result.stderr == "Folded and proved: models/net.onnx.\n"
    assert operators(onnx.load(foldable)) == ["Conv"]
    assert asked == ["models/net.onnx", "models/fine.onnx", "models/net.onnx"]


def test_fix_leaves_what_it_cannot_mend(run, foldable, tmp_path) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    result = run("check", "--fix")
    assert (result.exit_code, re.findall(r"M\d{3}", result.stdout)) == (1, ["M301"])
    assert operators(onnx.load(foldable)) == ["Conv"]


def test_fix_leaves_what_is_accepted_or_not_asked(run, foldable) -> None:
    before = foldable.read_bytes()
    run("check", "--write-baseline", "baseline.json")
    assert run("check", "--baseline", "baseline.json", "--fix").exit_code == 0
    assert run("check", "--ignore", "M101", "--fix").exit_code == 0
    assert foldable.read_bytes() == before


def test_diff_shows_and_changes_nothing(run, foldable, tmp_path) -> None:
    before = foldable.read_bytes()
    result = run("check", "--diff", "--output-format", "json=out.json")
    assert result.exit_code == 1
    assert "-BatchNormalization y: a, scale, bias, mean, var -> y" in result.stdout.splitlines()
    assert "M101" not in result.stdout
    assert foldable.read_bytes() == before
    assert json.loads((tmp_path / "out.json").read_text())["findings"]


def test_diff_ends_with_1_only_if_a_model_would_be_folded(run, foldable, tmp_path) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    result = run("check", "--diff")
    assert (result.exit_code, result.stderr) == (1, "1 model would be folded.\n")
    assert run("check", "--diff", "--exit-zero").exit_code == 0
    foldable.unlink()
    result = run("check", "--diff")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No models would be folded.\n")


def test_a_model_that_cannot_be_mended_is_said_and_fails(run, foldable, monkeypatch) -> None:
    before = foldable.read_bytes()

    def export(*_: object, **__: object) -> None:
        raise DisagreementError("It does not agree\x1b.")

    monkeypatch.setattr("bnfold.pipeline.export.export", export)
    result = run("check", "--fix")
    assert (result.exit_code, result.stdout) == (1, f"{LINE}1 finding in 1 model, 1 fixable with --fix.\n")
    assert result.stderr == "models/net.onnx is as it was: It does not agree␛.\n"
    assert foldable.read_bytes() == before


# --- as it is ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("foldable", "fine")
def test_with_processes_of_its_own_it_is_the_same(tmp_path) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    program = [sys.executable, "-m", "bnfold_cli", "check", "--jobs", "1"]
    program = [sys.executable, "-c", "from bnfold_cli import main; main()", "check", "--jobs", "1"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "broken.onnx: M301 it is a text file, not an ONNX model",
        LINE.strip(),
        "2 findings in 3 models, 1 fixable with --fix.",
    ]
