"""Which files weights are in, by an index, and which file of a folder has them."""

from __future__ import annotations

import json

import pytest

from bnfold.errors import ModelError
from bnfold.files.weight_index import file_of, is_index, shards


def index(folder, where, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder / name


def test_the_files_of_an_index_and_what_is_in_them(tmp_path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    path = index(tmp_path, {"one": "b.safetensors", "two": "a.safetensors", "three": "b.safetensors"})
    assert is_index(path)
    assert shards(path) == {
        tmp_path / "b.safetensors": ["one", "three"],
        tmp_path / "a.safetensors": ["two"],
    }


@pytest.mark.parametrize(
    "where",
    [
        *({"w": "../a.bin"}, {"w": "/etc/passwd"}, {"w": ".."}, {"w": ""}, {"w": "x\0"}, {"w": "a/b"}),
        *({"w": 3}, {}, [], None, {"w": ["a.bin"]}),
    ],
)
def test_files_elsewhere_and_damage_are_refused(tmp_path, where) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="not an index"):
        shards(index(tmp_path, where))


@pytest.mark.parametrize("text", ["", "{", '{"metadata": {}}', "[1]", '"weight_map"', "[" * 100000])
def test_what_is_no_index_is_refused(tmp_path, text) -> None:
    (tmp_path / "m.index.json").write_text(text)
    with pytest.raises(ModelError, match="not an index"):
        shards(tmp_path / "m.index.json")


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"needs b\.bin, which is not"):
        shards(index(tmp_path, {"w": "b.bin"}))


def test_the_index_of_a_folder_comes_before_a_single_file(tmp_path) -> None:
    assert file_of(tmp_path) == tmp_path
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert file_of(tmp_path) == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert file_of(tmp_path) == tmp_path / "model.safetensors"
    path = index(tmp_path, {"w": "model.safetensors"})
    assert file_of(tmp_path) == path == file_of(path)
    assert not is_index(tmp_path / "model.safetensors")
    assert file_of("\0").name == "\0"
