"""The whole check: processes that end, names, order, and what is accepted."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

import bnfold
from bnfold.errors import BnfoldError, InputError, MissingExtraError, ModelError, OutOfMemoryError
from bnfold.gate import baseline, work
from bnfold.gate.configuration import Configuration
from bnfold.gate.pool import NotAnswered
from bnfold.gate.run import Checked, check, named
from bnfold.gate.settings import Settings, Source
from bnfold.gate.work import ask
from tests.gate import dying
from tests.gate.models import codes, job, layers, save


def at(root: Path, **settings: object) -> Configuration:
    return Configuration(Settings(**settings), root)  # type: ignore[arg-type]


def said(checked: Checked) -> list[tuple[str, str]]:
    return [(one.path, one.code) for one in checked.findings]


def test_a_process_that_ends_is_a_finding_and_costs_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, two at once: one is killed, one exits, one is too slow, one answers."""
    for name in ("ended", "killed", "other", "slow"):
        (tmp_path / f"{name}.onnx").touch()
    monkeypatch.setattr("bnfold.gate.run.ask", dying.ask)
    done: list[tuple[int, int]] = []
    checked = check(
        str(tmp_path), at(tmp_path), jobs=2, time_limit=3, progress=lambda *pair: done.append(pair)
    )
    assert said(checked) == [
        ("ended.onnx", "M300"),
        ("killed.onnx", "M300"),
        ("other.onnx", "M307"),
        ("slow.onnx", "M300"),
    ]
    messages = [one.found.headline for one in checked.findings]
    assert messages[0] == "the file could not be checked: its process ended with 7"
    assert "its process ended with" in messages[1]
    assert messages[3] == "the file could not be checked: it took more than 3 s"
    assert done == [(count, 4) for count in range(5)]
    assert not checked


def test_a_process_that_is_too_slow_for_the_limit_is_said_with_the_limit(tmp_path: Path) -> None:
    save(layers(), tmp_path / "net.onnx")
    checked = check(str(tmp_path), at(tmp_path), jobs=1, time_limit=0.001)
    assert said(checked) == [("net.onnx", "M300")]
    assert checked.findings[0].found.headline.endswith("it took more than 0.001 s")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "there was not enough memory"),
        (OutOfMemoryError("too large."), "there was not enough memory"),
        (ModelError("net.onnx is strange.", "Do something."), "net.onnx is strange"),
        (ValueError("first\nsecond"), "bnfold did not foresee ValueError: first"),
        (RecursionError(), "bnfold did not foresee RecursionError: RecursionError"),
    ],
)
def test_whatever_is_raised_is_an_answer(tmp_path, monkeypatch, error: Exception, why: str) -> None:
    """Not every exception survives the way to another process."""

    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr(work, "answer", raising)
    assert ask(job(tmp_path / "net.onnx", "M101")) == NotAnswered(why)


def test_a_rule_that_runs_out_of_memory_does_not_say_so_of_the_model(tmp_path, monkeypatch) -> None:
    def raising(*_: object) -> None:
        raise OutOfMemoryError("too large.")

    monkeypatch.setattr("bnfold.gate.subject.Subject._compared", lambda *_: raising(None))
    path = save(layers(), tmp_path / "net.onnx")
    assert isinstance(ask(job(path, "M401", source=Source(path))), NotAnswered)


def test_a_package_that_is_missing_ends_the_check_with_what_to_type(tmp_path, monkeypatch) -> None:
    def raising(*_: object) -> None:
        raise MissingExtraError("torch", "torch", "read the source")

    monkeypatch.setattr(work, "answer", raising)
    outcome = ask(job(tmp_path / "net.onnx", "M401"))
    assert outcome == NotAnswered(
        "torch is needed to read the source, and is not installed.", 'Type: pip install "bnfold[torch]"'
    )
    from bnfold.gate.run import _failed

    with pytest.raises(BnfoldError, match="torch is needed"):
        _failed(job(tmp_path / "net.onnx", "M401"), outcome)


def test_an_earlier_model_that_is_not_here_ends_the_check_with_what_to_type(tmp_path, monkeypatch) -> None:
    from bnfold.gate.against import Earlier

    def pointer(*_: object) -> None:
        raise InputError("net.onnx of main is kept in Git LFS.", "Type: git lfs fetch origin main")

    monkeypatch.setattr(Earlier, "of", pointer)
    asked = job(save(layers(), tmp_path / "net.onnx"), "M402", before=Earlier(tmp_path, tmp_path))
    assert ask(asked) == NotAnswered(
        "net.onnx of main is kept in Git LFS.", "Type: git lfs fetch origin main"
    )


def test_what_could_not_be_checked_can_be_ignored_by_its_code(tmp_path) -> None:
    from bnfold.gate.run import _failed

    outcome = NotAnswered("it took more than 3 s")
    assert codes(_failed(job(tmp_path / "net.onnx", "M101", "M300"), outcome)) == ["M300"]
    assert _failed(job(tmp_path / "net.onnx", "M101"), outcome) == []


@pytest.mark.usefixtures("in_process")
def test_findings_come_in_the_order_of_paths_and_codes(tmp_path: Path) -> None:
    """Whatever the order in which the files are looked at: the largest first."""
    (tmp_path / "a.onnx").write_text("no model")
    save(layers(opset=17), tmp_path / "b" / "net.onnx")
    save(layers(x="9,3,99,99"), tmp_path / "b.onnx")
    settings = at(tmp_path, extend_select=("M107",))
    checked = check([str(tmp_path)], settings)
    assert said(checked) == [("a.onnx", "M301"), ("b.onnx", "M101"), ("b/net.onnx", "M101")]
    assert checked.files == ("a.onnx", "b.onnx", "b/net.onnx")
    assert checked.paths == tuple(tmp_path / name for name in checked.files)
    assert checked == check([str(tmp_path)], settings)


@pytest.mark.usefixtures("in_process")
def test_notes_do_not_fail(tmp_path: Path) -> None:
    path = save(layers("b = Tanh(a)  y = BatchNormalization(b, scale, bias, mean, var)"), tmp_path / "n.onnx")
    checked = check(str(path), at(tmp_path, extend_select=("M107",)))
    assert codes(checked.findings) == ["M107"]
    assert checked


@pytest.mark.usefixtures("in_process")
def test_what_a_baseline_accepts_does_not_fail(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "net.onnx")
    first = check(str(path), at(tmp_path))
    baseline.write(first.all, tmp_path / "baseline.json")
    again = check(str(path), at(tmp_path), accepted=tmp_path / "baseline.json")
    assert (again.findings, again.accepted, again.gone, bool(again)) == ((), 1, (), True)
    assert again.all == first.findings
    save(layers("y = Relu(a)"), path)
    mended = check(str(path), at(tmp_path), accepted=tmp_path / "baseline.json")
    assert mended.gone == (("net.onnx", "M101", "y"),)


@pytest.mark.usefixtures("in_process")
def test_against_a_folder_only_what_changed_is_found(tmp_path: Path) -> None:
    for name in ("same", "changed"):
        save(layers(), tmp_path / "old" / f"{name}.onnx")
        save(layers(seed=name == "changed"), tmp_path / "new" / f"{name}.onnx")
    save(layers(), tmp_path / "new" / "fresh.onnx")
    settings = at(tmp_path / "new", select=("M4",), ignore=("M405",))
    checked = check(str(tmp_path / "new"), settings, earlier=str(tmp_path / "old"))
    assert said(checked) == [("changed.onnx", "M402")]


@pytest.mark.usefixtures("in_process")
def test_a_source_is_of_the_files_that_its_pattern_fits(tmp_path: Path) -> None:
    source = save(layers(seed=3), tmp_path / "source.bin")
    for name in ("a", "b"):
        save(layers(seed=name == "b" and 3), tmp_path / f"{name}.onnx")
    checked = check(str(tmp_path), at(tmp_path, select=("M401",), sources={"*.onnx": Source(source)}))
    assert said(checked) == [("a.onnx", "M401")]


def test_a_named_pipe_is_unreadable_and_does_not_hang(tmp_path: Path, in_process: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    started = time.monotonic()
    named_alone = check(str(tmp_path / "pipe.onnx"), at(tmp_path), cache=tmp_path / "cache")
    assert said(named_alone) == [("pipe.onnx", "M301")]
    assert check(str(tmp_path), at(tmp_path), cache=tmp_path / "cache").files == ()
    assert time.monotonic() - started < 30
    assert in_process == ["pipe.onnx"]


def test_a_link_that_leads_nowhere_is_a_model_that_cannot_be_read(tmp_path: Path, in_process) -> None:
    """git-annex leaves such links where a content was not fetched."""
    (tmp_path / "gone.onnx").symlink_to("objects/gone")
    (tmp_path / "self.onnx").symlink_to("self.onnx")
    checked = check(str(tmp_path), at(tmp_path), cache=tmp_path / "cache")
    assert said(checked) == [("gone.onnx", "M301"), ("self.onnx", "M301")]
    assert in_process == ["gone.onnx", "self.onnx"]


def test_a_broken_file_is_found_whatever_is_selected(tmp_path: Path, in_process: list[str]) -> None:
    (tmp_path / "net.onnx").write_text("no model")
    checked = check(str(tmp_path), at(tmp_path, select=("M101",)))
    assert codes(checked.findings) == ["M301"]
    assert in_process == ["net.onnx"]


@pytest.mark.usefixtures("in_process")
def test_the_settings_are_those_nearest_to_the_current_folder(tmp_path, monkeypatch) -> None:
    save(layers(), tmp_path / "below" / "net.onnx")
    (tmp_path / "bnfold.toml").write_text('ignore = ["M101"]\n[limits]\nnodes = 1\n')
    monkeypatch.chdir(tmp_path / "below")
    checked = bnfold.check("net.onnx")
    assert said(checked) == [("below/net.onnx", "M313")]


def test_names_are_relative_to_the_root_where_they_are_in_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "root" / "sub")
    root = tmp_path / "root"
    assert named(Path("net.onnx"), root) == "sub/net.onnx"
    assert named(Path("../a/net.onnx"), root) == "a/net.onnx"
    assert named(root / "net.onnx", root) == "net.onnx"
    assert named(Path("../../net.onnx"), root) == "../../net.onnx"


@pytest.mark.usefixtures("in_process")
def test_all_of_a_finding_is_plain(tmp_path: Path) -> None:
    checked = check(str(save(layers(), tmp_path / "net.onnx")), at(tmp_path))
    (finding,) = checked.findings
    assert type(finding).of_plain(json.loads(json.dumps(finding.plain()))) == finding
