"""Which models sources name, and what is known of each before it is read."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import InputError
from bnfold.fleet import sources
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Model, Plan
from bnfold.gate.settings import Settings


def found(*given: str, command: str = "check", names: tuple[str, ...] = ()) -> list[Model]:
    """As a run gets them: each once, largest first."""
    with Ledger(Plan(command, ""), sources.models(given, command, Settings(), names)) as ledger:
        return list(ledger)


def test_a_folder(zoo: Path) -> None:
    """Its models and those below, largest first, with what changes when they do."""
    models = found(str(zoo))
    assert [Path(model.url).name for model in models] == ["stays.onnx", "folds.onnx", "broken.onnx"]
    assert [model.size for model in models] == sorted((model.size for model in models), reverse=True)
    assert [model.name for model in models] == ["b/stays.onnx", "a/folds.onnx", "b/broken.onnx"]
    assert len({model.identity for model in models}) == 3


def test_the_identity_changes_with_the_content(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"one")
    [before] = found(str(file))
    os.utime(file, ns=(1, 1))
    [touched] = found(str(file))
    assert touched.identity != before.identity
    assert sources.identity(str(file)) == touched.identity
    assert sources.identity(str(tmp_path / "absent.onnx")) == ""


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("memory://zoo", {"a/one.onnx", "b/two.onnx", "b/c/three.pt"}),
        ("memory://zoo/", {"a/one.onnx", "b/two.onnx", "b/c/three.pt"}),
        ("memory://zoo/?/*.onnx", {"a/one.onnx", "b/two.onnx"}),
        ("memory://zoo/**/*.onnx", {"a/one.onnx", "b/two.onnx", ".hidden/four.onnx"}),
        ("memory://zoo/b/two.onnx", {"two.onnx"}),
    ],
)
def test_a_store(memory: Any, given: str, names: set[str]) -> None:
    for name in ("a/one.onnx", "b/two.onnx", "b/c/three.pt", "b/notes.txt", ".hidden/four.onnx"):
        memory.pipe_file(f"/zoo/{name}", name.encode())
    models = found(given)
    assert {model.name for model in models} == names
    assert all(model.url.startswith("memory://") and model.identity for model in models)
    assert {model.size for model in models} == {
        len(Path(model.url).relative_to("memory:/zoo").as_posix()) for model in models
    }


def test_an_archive(tmp_path: Path) -> None:
    """Also one that is in a store."""
    archive = tmp_path / "zoo.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a/one.onnx", b"one")
        written.writestr("notes.txt", b"no model")
    [model] = found(str(archive))
    assert (model.url, model.name, model.size) == (f"zip://a/one.onnx::{archive}", "a/one.onnx", 3)
    [same] = found(f"zip://**/*.onnx::{archive}")
    assert same.url == model.url


def test_a_local_path_is_whole_since_workers_are_elsewhere(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zoo)
    [model] = found("a/*.onnx")
    assert model.url == (zoo / "a" / "folds.onnx").as_posix()


def test_names_one_by_one(zoo: Path) -> None:
    """One that is not there is a model like any other: what comes of it is a result."""
    there, absent = str(zoo / "a" / "folds.onnx"), str(zoo / "absent.onnx")
    first, second = found(names=(there, absent))
    assert (first.url, first.identity) == (there, sources.identity(there))
    assert (second.url, second.size, second.identity) == (absent, 0, "")


def test_a_name_with_the_marks_of_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is meant itself, and a web address may have a query."""
    (tmp_path / "net[1].onnx").write_bytes(b"one")
    assert [model.name for model in found(str(tmp_path / "net[1].onnx"))] == ["net[1].onnx"]
    monkeypatch.chdir(tmp_path)
    [model] = found(names=("net[1].onnx",))
    assert model.url == (tmp_path / "net[1].onnx").as_posix()
    assert not sources.is_pattern("https://host/net.onnx?version=2")
    assert sources.is_pattern("s3://zoo/net?.onnx")


def test_a_name_with_two_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which stand between links of a chain in fsspec's addresses, and may be in the name of a file."""
    (folder := tmp_path / "zoo::1").mkdir()
    (folder / "a::b.onnx").write_bytes(b"one")
    (folder / "models.jsonl").write_text('{"model": "a::b.onnx"}')
    monkeypatch.chdir(folder)
    whole = (folder / "a::b.onnx").as_posix()
    for given in (str(folder), whole, "a::b.onnx", "a::*.onnx", f"{folder}/*::*.onnx", "models.jsonl"):
        assert [(model.url, model.name, model.size) for model in found(given)] == [(whole, "a::b.onnx", 3)]
    [model] = found(names=("a::b.onnx",))
    assert (model.url, model.identity) == (whole, sources.identity(whole))
    zipfile.ZipFile("zoo.zip", "w").close()
    with pytest.raises(InputError, match="an archive with :: in its path"):
        found("zoo.zip")


def test_a_model_that_is_named_twice_is_there_once(zoo: Path) -> None:
    assert len(found(str(zoo), str(zoo / "a" / "folds.onnx"), str(zoo / "*" / "*.onnx"))) == 3


def test_what_earlier_runs_wrote_is_no_source(zoo: Path, memory: Any) -> None:
    assert len(list(sources.models([str(zoo)], "fold", Settings(), out=str(zoo / "b")))) == 1
    memory.pipe_file("/zoo/out/models/net.onnx", b"")
    memory.pipe_file("/zoo/other/net.onnx", b"")
    [model] = sources.models(["memory://zoo"], "fold", Settings(), out="memory://zoo/out")
    assert model.name == "other/net.onnx"
    assert len(list(sources.models([str(zoo)], "fold", Settings(), out="memory://zoo/out"))) == 3
    with pytest.raises(InputError, match="where results go"):
        list(sources.models([str(zoo / "b")], "fold", Settings(), out=str(zoo)))


def test_no_two_models_are_written_to_one_file(tmp_path: Path) -> None:
    for place in ("x/net.onnx", "y/net.onnx", "y/net.pt", "y/other.pt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    models = found(str(tmp_path / "x"), str(tmp_path / "y"), command="export")
    names = [model.name for model in models]
    assert len(set(names)) == 4
    assert all(name.endswith(".onnx") for name in names)
    assert "other.onnx" in names, "only where names are the same do they get a hash"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("absent.onnx", "it is not there"),
        ("*.onnx", "has no models"),
        ("memory://nothing", "it is not there"),
        ("nonsense://zoo", "cannot be opened"),
    ],
)
@pytest.mark.usefixtures("memory")
def test_a_source_without_models(tmp_path, monkeypatch, given: str, problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=problem) as error:
        found(given)
    assert error.value.fix


@pytest.mark.parametrize("pattern", ["*.onnx", "?/*", "**/*.onnx", "a/**", "[ab]/c/*.onnx", "a*/c/d.*"])
def test_a_pattern_means_here_what_it_means_in_a_store(tmp_path: Path, memory: Any, pattern: str) -> None:
    """Files of this machine are listed one by one, and not by fsspec."""
    for name in ("x.onnx", "a/y.onnx", "a/c/d.onnx", "b/c/.hidden.onnx", "b/c/d.txt", "ab/c/d.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        memory.pipe_file(f"/zoo/{name}", b"")

    def below(root: str) -> list[str]:
        return sorted(model.url.removeprefix(f"{root}/") for model in found(f"{root}/{pattern}"))

    assert below(str(tmp_path)) == below("memory:///zoo") != []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("empty.jsonl", "empty.jsonl lists no models"),
        ("empty.csv", "empty.csv lists no models"),
        ("empty.zip", "empty.zip has no models"),
        ("empty", "empty has no models"),
    ],
)
def test_an_empty_source(tmp_path: Path, name: str, problem: str) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name == "empty.zip":
        zipfile.ZipFile(tmp_path / name, "w").close()
    else:
        (tmp_path / name).write_text("model\n" if name == "empty.csv" else "\n")
    with pytest.raises(InputError, match=problem) as error:
        found(str(tmp_path / name))
    assert error.value.fix
