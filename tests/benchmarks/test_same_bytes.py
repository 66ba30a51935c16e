"""The comparison of two versions says that one is like itself, and finds a planted difference."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from benchmarks import same_bytes
from tests.small_networks import pointnet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model, and a file that is not one."""
    onnx.save(pointnet(0), tmp_path / "model.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    return tmp_path


def test_a_version_writes_what_it_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert same_bytes.main([sys.executable, str(folder), "--random", "2"]) == 0
    assert capsys.readouterr().out == "4 models, 3 files written, 0 differences.\n"
    assert sorted(folder.iterdir()) == before


def test_a_difference_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second version writes one byte more; of what is not a model both write nothing."""
    planted = same_bytes.FOLD.replace("digest = hashlib.sha256()", "digest = hashlib.sha256(b'x')")
    fold_all = same_bytes.fold_all

    def other(python: str, models: list[Path]) -> same_bytes.Outcomes:
        monkeypatch.setattr(same_bytes, "FOLD", programs.pop(0))
        return fold_all(python, models)

    programs = [same_bytes.FOLD, planted]
    monkeypatch.setattr(same_bytes, "fold_all", other)
    assert same_bytes.main([sys.executable, str(folder)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder / 'model.onnx'}: folded.onnx: ")
    assert last == "2 models, 1 files written, 1 differences."


def test_a_file_that_only_one_version_writes_and_another_exit_code() -> None:
    old = {"m": {"exit code": "0", "folded.onnx": "a" * 64}}
    new = {"m": {"exit code": "2"}}
    assert list(same_bytes.differences(old, new)) == [
        "m: exit code: 0 before, 2 now",
        f"m: folded.onnx: {'a' * 16} before, missing now",
    ]


def test_models_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        same_bytes.main([sys.executable, "nowhere.onnx"])
    assert stop.value.code == 2
    assert "not found: nowhere.onnx" in capsys.readouterr().err
