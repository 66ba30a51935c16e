"""Which files are checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.errors import InputError
from bnfold.gate.discover import discover
from bnfold.gate.settings import Settings

FILES = ("a.onnx", "b.pt", "c.txt", "sub/d.onnx", "sub/deep/e.safetensors", ".hidden/f.onnx", ".g.onnx")


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*given: str, **settings: tuple[str, ...]) -> list[str]:
    return [path.as_posix() for path in discover(given, Settings(**settings))]


def test_of_a_folder_the_models_are_taken_and_nothing_hidden() -> None:
    assert found(".") == ["a.onnx", "b.pt", "sub/d.onnx", "sub/deep/e.safetensors"]
    assert found("sub") == ["sub/d.onnx", "sub/deep/e.safetensors"]


def test_the_settings_say_what_is_a_model_and_what_is_passed_over() -> None:
    assert found(".", include=("*.txt", "*.pt")) == ["b.pt", "c.txt"]
    assert found(".", exclude=("deep", "a.*")) == [".g.onnx", ".hidden/f.onnx", "b.pt", "sub/d.onnx"]


def test_what_is_named_is_taken_as_it_is() -> None:
    assert found("c.txt", ".hidden/f.onnx", ".g.onnx") == [".g.onnx", ".hidden/f.onnx", "c.txt"]
    assert found(".hidden") == [".hidden/f.onnx"]


def test_patterns_are_for_shells_that_do_not_expand_them() -> None:
    assert found("*.onnx") == ["a.onnx"]
    assert found("**/*.onnx") == ["a.onnx", "sub/d.onnx"]
    assert found("su?") == ["sub/d.onnx", "sub/deep/e.safetensors"]


def test_a_name_with_the_signs_of_a_pattern_is_a_name(tree: Path) -> None:
    (tree / "net[1].onnx").touch()
    assert found("net[1].onnx") == ["net[1].onnx"]


def test_each_is_taken_once_however_often_and_however_it_is_named(tree: Path) -> None:
    assert found("a.onnx", "./a.onnx", "sub/../a.onnx", str(tree / "a.onnx"), "*.onnx", ".") == found(".")
    assert found(str(tree / "a.onnx"), "a.onnx") == [str(tree / "a.onnx")]


def test_links_are_files_of_their_own_and_folders_are_not_followed_through_them(tree: Path) -> None:
    (tree / "link.onnx").symlink_to("a.onnx")
    (tree / "nowhere.onnx").symlink_to("absent.onnx")
    (tree / "sub" / "loop").symlink_to(tree)
    assert found(".") == ["a.onnx", "b.pt", "link.onnx", "sub/d.onnx", "sub/deep/e.safetensors"]
    assert found("nowhere.onnx") == ["nowhere.onnx"]


@pytest.mark.parametrize(("given", "problem"), [("absent.onnx", "is not there"), ("*.zip", "Nothing fits")])
def test_what_is_not_there_is_said(given: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        found("a.onnx", given)


def test_a_pipe_in_a_folder_is_passed_over_among_many_files_and_one_that_is_named_is_not(tree: Path) -> None:
    many = tree / "many"
    many.mkdir()
    for number in range(2_000):
        os.close(os.open(many / f"{number}.onnx", os.O_CREAT))
    os.mkfifo(many / "pipe.onnx")
    assert len(found("many")) == 2_000
    assert found("many/pipe.onnx") == ["many/pipe.onnx"]


def test_a_folder_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed over in silence would look as if all were well."""
    real = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match="deep cannot be read: Permission denied"):
        found(".")


def test_nothing_is_found_in_nothing() -> None:
    assert found() == []
