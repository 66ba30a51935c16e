"""Which files are checked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bnfold.errors import FileAccessError, InputError
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
    return [path.as_posix() for path in discover(given, Settings(**settings)).files]


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
    (tree / "self.onnx").symlink_to("self.onnx")
    assert found(".") == [
        *("a.onnx", "b.pt", "link.onnx", "nowhere.onnx", "self.onnx"),
        *("sub/d.onnx", "sub/deep/e.safetensors"),
    ]
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


def test_paths_may_be_path_objects() -> None:
    assert [path.name for path in discover([Path("a.onnx"), Path("sub/*.onnx")], Settings()).files] == [
        *("a.onnx", "d.onnx")
    ]


def test_a_path_that_the_system_refuses_is_an_error() -> None:
    with pytest.raises(FileAccessError, match="too long"):
        found("x" * 300)


# --- exclusions -------------------------------------------------------------------------------------------


def test_a_pattern_with_a_slash_is_about_the_path_and_others_about_names() -> None:
    assert found(".", extend_exclude=("sub/deep",)) == ["a.onnx", "b.pt", "sub/d.onnx"]
    assert found(".", extend_exclude=("sub/",)) == ["a.onnx", "b.pt"]
    assert found(".", extend_exclude=("sub/*.onnx",)) == ["a.onnx", "b.pt", "sub/deep/e.safetensors"]
    assert found(".", extend_exclude=("**/d.onnx", "./a.onnx")) == ["b.pt", "sub/deep/e.safetensors"]
    assert found(".", extend_exclude=("deep/e.safetensors",)) == found(".")
    assert found("sub", extend_exclude=("sub/deep",)) == ["sub/d.onnx"]


def test_patterns_are_relative_to_the_folder_of_the_settings(tree: Path, monkeypatch) -> None:
    monkeypatch.chdir(tree / "sub")
    settings = Settings(extend_exclude=("sub/deep",))
    assert [path.as_posix() for path in discover(["."], settings, tree).files] == ["d.onnx"]


def test_what_is_named_is_excluded_where_that_is_forced() -> None:
    given = ("a.onnx", "sub/d.onnx", "sub/deep/e.safetensors", ".g.onnx", "c.txt")
    assert found(*given, extend_exclude=("sub",)) == sorted(given)
    forced = Settings(extend_exclude=("sub",), force_exclude=True)
    assert [path.as_posix() for path in discover(given, forced).files] == ["a.onnx", "c.txt"]
    forced = Settings(extend_exclude=("sub/deep",), force_exclude=True)
    assert [path.as_posix() for path in discover(["sub/deep/e.safetensors", "sub/*.onnx"], forced).files] == [
        "sub/d.onnx"
    ]


# --- what git ignores -------------------------------------------------------------------------------------


@pytest.fixture
def repository(tree: Path) -> Path:
    """What git ignores: a folder, a pattern, of which one file is tracked nevertheless."""
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tree / ".gitignore").write_text("/sub/deep/\n*.pt\n*.onnx\n")
    (tree / "kept.pth").touch()
    subprocess.run(["git", "add", "--force", "a.onnx", "kept.pth"], check=True)
    return tree


@pytest.mark.usefixtures("repository")
def test_what_git_ignores_is_passed_over_and_counted() -> None:
    everything = ["a.onnx", "b.pt", "kept.pth", "sub/d.onnx", "sub/deep/e.safetensors"]
    assert found(".") == ["a.onnx", "kept.pth"]
    assert discover(["."], Settings()).ignored == 3
    assert found(".", respect_gitignore=False) == everything
    assert discover(["."], Settings(respect_gitignore=False)).ignored == 0


@pytest.mark.usefixtures("repository")
def test_what_is_named_is_taken_whatever_git_ignores() -> None:
    """Also a folder: somebody has named it."""
    assert found("b.pt", "*.pt") == ["b.pt"]
    assert found("sub/deep") == ["sub/deep/e.safetensors"]
    assert discover([".", "b.pt"], Settings()).ignored == 2


@pytest.mark.usefixtures("repository")
def test_where_git_ignores_all_that_there_is_that_is_said() -> None:
    """A gate that looks at nothing would look as if all were well."""
    with pytest.raises(InputError, match="git ignores all 2 models here") as caught:
        found("sub")
    assert "--no-respect-gitignore" in caught.value.fix


def test_where_git_cannot_say_nothing_is_ignored(repository: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert len(found(".")) == 5
