"""What models were before: in a folder, in a file, in a revision of git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnx
import pytest

from bnfold.errors import InputError
from bnfold.gate.against import Earlier, earlier
from tests.gate.models import layers, save

IDENTITY = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models in a folder of a repository, one with external data; both are changed after the commit."""
    root = tmp_path / "repository"
    models = root / "project" / "models"
    save(layers(seed=1), models / "whole.onnx")
    save(layers(seed=1), models / "apart.onnx", data="apart.bin")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Models")
    save(layers(seed=2), models / "whole.onnx")
    (models / "apart.bin").unlink()
    save(layers(seed=2), models / "apart.onnx", data="renamed.bin")
    save(layers(seed=3), models / "new.onnx")
    return root


def weight(path: Path) -> onnx.TensorProto:
    """The first weight with its data."""
    return onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])


def test_a_folder_stands_for_the_root(tmp_path: Path) -> None:
    before = save(layers(), tmp_path / "old" / "models" / "net.onnx")
    with earlier(str(tmp_path / "old"), tmp_path / "now") as found:
        assert found.of(tmp_path / "now" / "models" / "net.onnx") == before
        assert found.of(tmp_path / "now" / "net.onnx") is None
        assert found.of(tmp_path / "elsewhere" / "models" / "net.onnx") is None


def test_a_file_stands_for_any_model(tmp_path: Path) -> None:
    before = save(layers(), tmp_path / "old.onnx")
    with earlier(str(before), tmp_path) as found:
        assert found == Earlier(None, tmp_path, before)
        assert found.of(tmp_path / "net.onnx") == before


def test_a_revision_of_git_has_a_model_with_its_data(repository: Path) -> None:
    """The root may be a folder of the repository, as where its settings are."""
    root = repository / "project"
    with earlier("git:main", root) as found:
        for name in ("whole.onnx", "apart.onnx"):
            before = found.of(root / "models" / name)
            assert before is not None
            expected = save(layers(seed=1), repository / "expected.onnx")
            assert (weight(before) == weight(expected)).all()
            assert found.of(root / "models" / name) == before
        folder = found.folder
    assert folder is not None
    assert not folder.exists()


def test_a_new_model_has_no_earlier_one(repository: Path) -> None:
    with earlier("git:HEAD", repository) as found:
        assert found.of(repository / "project" / "models" / "new.onnx") is None
        assert found.of(repository.parent / "outside.onnx") is None


def test_what_has_not_changed_has_no_earlier_one_and_costs_no_copy(repository: Path) -> None:
    """Whether it is known which files are its data, or only that nothing in its folder has changed."""
    models = repository / "project" / "models"
    other = save(layers(seed=1), repository / "elsewhere" / "net.onnx", data="net.bin")
    git(repository, "add", "elsewhere")
    git(repository, "commit", "--quiet", "-m", "Elsewhere")
    with earlier("git:main", repository) as found:
        assert found.changed == {
            f"project/models/{name}" for name in ("whole.onnx", "apart.onnx", "apart.bin")
        }
        assert found.is_same(other, None)
        assert found.is_same(models / "new.onnx", [models / "new.onnx"])
        assert not found.is_same(models / "whole.onnx", [models / "whole.onnx"])
        assert not found.is_same(models / "new.onnx", None)
        assert found.alone().of(models / "new.onnx") is None
        assert found.alone().of(other) is None
        assert found.folder is not None
        assert list(found.folder.iterdir()) == []
        data = other.with_suffix(".bin")
        data.write_bytes(bytes(data.stat().st_size))
        assert found.alone().of(other) is not None
    with earlier("git:main", repository) as found:
        assert not found.is_same(other, [other, data])
        assert found.is_same(other, [other])


def test_a_name_with_signs_of_git_is_a_name(repository: Path) -> None:
    strange = repository / "project" / "models" / ":(glob)*é .onnx"
    save(layers(seed=4), strange)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "More")
    committed = strange.read_bytes()
    save(layers(seed=5), strange)
    with earlier("git:HEAD", repository) as found:
        before = found.of(strange)
        assert before is not None
        assert before.read_bytes() == committed != strange.read_bytes()


@pytest.mark.parametrize("revision", ["absent", "", "--all", "HEAD:project", "main..main", "-h"])
def test_a_revision_that_is_none_is_said(repository: Path, revision: str) -> None:
    with (
        pytest.raises(InputError, match="is not a revision that git knows") as caught,
        earlier(f"git:{revision}", repository),
    ):
        pass
    assert "git fetch" in caught.value.fix


def test_a_folder_that_is_no_repository_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="needs a git repository") as caught, earlier("git:HEAD", tmp_path):
        pass
    assert "git fetch" not in caught.value.fix


def test_without_git_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="not installed"), earlier("git:HEAD", tmp_path):
        pass


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"), earlier(str(tmp_path / "absent"), tmp_path):
        pass


def test_a_pointer_of_git_lfs_is_not_taken_for_a_model(repository: Path) -> None:
    pointer = repository / "pointer.onnx"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "A pointer")
    save(layers(), pointer)
    with (
        earlier("git:HEAD", repository) as found,
        pytest.raises(InputError, match="kept in Git LFS") as caught,
    ):
        found.of(pointer)
    assert "git lfs fetch" in caught.value.fix


def test_data_of_an_earlier_model_is_not_written_outside_its_folder(repository: Path) -> None:
    model = onnx.load(repository / "project" / "models" / "apart.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value="../../../escaped.bin")
    hostile = repository / "project" / "models" / "hostile.onnx"
    onnx.save(model, hostile)
    (repository / "escaped.bin").write_bytes(b"x")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Hostile")
    save(layers(), hostile)
    with earlier("git:HEAD", repository) as found:
        before = found.of(hostile)
        assert before is not None
        assert found.folder is not None
        assert [path.name for path in found.folder.rglob("*") if path.is_file()] == ["hostile.onnx"]
    assert not list(repository.parent.glob("escaped.bin"))
