"""Weights in several files: all of them, or an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError  # noqa: E402
from tests.torch import trainers  # noqa: E402

ARCH = "tests.torch.trainer_nets:Net"


@pytest.mark.parametrize("make", [trainers.index, trainers.shard_folder, trainers.pickled_shards])
def test_every_weight_is_loaded(tmp_path: Path, make: trainers.Maker) -> None:
    path, network = make(tmp_path)
    loaded = bt.load(path, arch=ARCH).source
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_file_that_lacks_what_the_index_says(tmp_path: Path) -> None:
    path, _ = trainers.index(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(ModelError, match=r"00002.*lacks weights"):
        bt.load(path, arch=ARCH)


@pytest.mark.parametrize("content", [b"text", b"PK\x03\x04", bytes(20)])
def test_a_file_that_is_something_else(tmp_path: Path, content: bytes) -> None:
    path, _ = trainers.index(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="00002"):
        bt.load(path, arch=ARCH)


def test_a_file_of_the_index_is_not_an_index_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"w": path.name}}))
    with pytest.raises(ModelError, match="holds no weights"):
        bt.load(path, arch=ARCH)


def test_a_safetensors_file_whose_length_begins_like_a_pickle(tmp_path: Path) -> None:
    for extra in range(0, 400, 8):
        save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"a": "b" * extra})
        if (tmp_path / "m.safetensors").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("none of them does")
    with pytest.raises(ModelError, match="does not fit"):
        bt.load(tmp_path / "m.safetensors", arch=ARCH)
