"""Files from before PyTorch 1.6 hold the same, and can ask for no more, than an archive of today."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError, UnsafePickleError  # noqa: E402
from tests.torch.trainer_nets import Net, trained  # noqa: E402

ALLOWED = ["tests.torch.trainer_nets.Net", "tests.torch.trainer_nets.Block"]


def saved(path: Path, content: Any) -> bytes:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_module_of_the_users_own_needs_the_same_permission(tmp_path: Path) -> None:
    network = trained()
    network.__dict__["seen"] = {"scores": [np.float64(1), np.arange(3)], "best": np.float32(2)}
    saved(tmp_path / "m.pt", {"model": network, "epoch": 3})
    with pytest.raises(UnsafePickleError) as caught:
        bt.load(tmp_path / "m.pt")
    assert "--allow tests.torch.trainer_nets.Block" in caught.value.fix
    loaded = bt.load(tmp_path / "m.pt", allow=ALLOWED).source
    x = torch.randn(1, 3, 9, 9)
    assert isinstance(loaded, Net)
    assert torch.equal(loaded(x), network(x))
    assert loaded.seen["scores"][1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool])
def test_every_type_and_shared_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(12).reshape(3, 4).to(dtype)
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].register_buffer("whole", values)
    network[0].register_buffer("part", values[1:, ::2])
    saved(tmp_path / "m.pt", network)
    found = bt.load(tmp_path / "m.pt").source[0]
    assert torch.equal(found.whole, values)
    assert torch.equal(found.part, values[1:, ::2])
    assert found.part.untyped_storage().data_ptr() == found.whole.untyped_storage().data_ptr()


def test_a_length_beyond_the_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = saved(tmp_path / "m.pt", {"w": torch.arange(5.0)})
    place = data.rindex(struct.pack("<q", 5))
    for count in (1 << 40, -1, 6):
        (tmp_path / "m.pt").write_bytes(data[:place] + struct.pack("<q", count) + data[place + 8 :])
        with pytest.raises(ModelError):
            bt.load(tmp_path / "m.pt", arch="torch.nn:Identity")


def test_numbers_that_are_parts_of_others_are_refused(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, one: Any) -> Any:
            identity = ("storage", torch.FloatStorage, "1", "cpu", 4, ("2", 0, 4))
            return identity if isinstance(one, torch.Tensor) else None

    into = io.BytesIO(saved(tmp_path / "m.pt", {}))
    for _ in range(3):
        pickle.load(into)
    head = into.getvalue()[: into.tell()]
    into = io.BytesIO()
    Pickler(into, protocol=2).dump({"w": torch.zeros(4)})
    (tmp_path / "m.pt").write_bytes(head + into.getvalue() + pickle.dumps(["1"], protocol=2))
    with pytest.raises(ModelError, match=r"before 0\.4"):
        bt.load(tmp_path / "m.pt", arch="torch.nn:Identity")


class Evil:
    """Pickles to a call that makes a folder."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return os.mkdir, self.arguments


@pytest.mark.parametrize("beside", [True, False])
def test_harm_is_refused_wherever_it_is(tmp_path: Path, beside: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    evil = Evil(str(tmp_path / "harm"))
    if not beside:
        network[0].__dict__["about"] = evil
    saved(tmp_path / "m.pt", {"model": network, "optimizer": evil if beside else 0})
    with pytest.raises(UnsafePickleError, match="mkdir"):
        bt.load(tmp_path / "m.pt")
    assert not (tmp_path / "harm").exists()
