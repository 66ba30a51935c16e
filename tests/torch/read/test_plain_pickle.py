"""Weights by `pickle.dump`: arrays open as tensors, tensors are asked for otherwise, code never runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import InputError, ModelError, UnsafePickleError  # noqa: E402
from bnfold.torch.read.raw_weights import raw_weights  # noqa: E402

ARCH = f"{__name__}:network"


def network() -> nn.Module:
    torch.manual_seed(3)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    made[1].running_mean.normal_()
    return made


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Weights as Detectron2 keeps them; one is in Fortran's order."""
    drawn = np.random.default_rng(0)
    found = {
        name: drawn.uniform(0.5, 2, tuple(value.shape)).astype(np.float32)
        for name, value in network().state_dict().items()
    }
    found["1.num_batches_tracked"] = np.array(7)
    return found | {"0.weight": np.asfortranarray(found["0.weight"])}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_weights(tmp_path: Path, protocol: int, trust: bool) -> None:
    content = {"model": arrays(), "__author__": "a laboratory", "matching_heuristics": True}
    path = write(tmp_path / "R-50.pkl", content, protocol)
    loaded = bt.load(path, arch=ARCH, trust=trust)
    assert loaded.kind == "state_dict"
    assert "It was found under the key model." in loaded.notes
    for name, value in loaded.source.state_dict().items():
        assert np.array_equal(value.numpy(), content["model"][name]), name


def test_what_python_2_wrote(tmp_path: Path) -> None:
    """Its bytes are text of the same numbers."""
    numbers = np.linspace(-1, 1, 8, dtype=np.float32)
    (tmp_path / "w.pkl").write_bytes(
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x04\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x20" + numbers.tobytes() + b"tbs."
    )
    [found] = raw_weights(tmp_path / "w.pkl")
    assert found.name == "w"
    assert np.array_equal(found.numpy(), numbers.reshape(2, 4))


@pytest.mark.parametrize(
    ("kind", "opens"),
    [("f2", True), ("f8", True), ("b1", True), ("u1", True), (">f4", False), ("u4", False), ("S3", False)],
)
def test_types_of_arrays(tmp_path: Path, kind: str, opens: bool) -> None:
    path = write(tmp_path / "w.pkl", {"w": np.zeros((2, 3, 1, 1), kind)})
    with pytest.raises((InputError, ModelError)) as caught:
        bt.load(path)
    assert ("--arch package.module:factory --input-shape 1x3x<height>x<width>" in str(caught.value)) is opens
    assert ("without weights" in str(caught.value)) is not opens


@pytest.mark.parametrize("content", [network(), network().state_dict()], ids=["module", "weights"])
def test_tensors_in_a_plain_pickle_are_asked_for_in_another_form(tmp_path: Path, content: object) -> None:
    path = write(tmp_path / "m.pkl", content)
    with pytest.raises(ModelError, match=r"plain pickle with tensors[^$]*--trust"):
        bt.load(path)
    arch = None if isinstance(content, nn.Module) else ARCH
    loaded = bt.load(path, trust=True, arch=arch)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded.source(x), network()(x))


class Harm:
    """A call that would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_beside_the_arrays_is_refused_and_never_runs(tmp_path: Path) -> None:
    for content in ({"model": arrays(), "x": Harm(tmp_path / "x")}, [arrays(), Harm(tmp_path / "x")]):
        with pytest.raises(UnsafePickleError, match="mkdir"):
            bt.load(write(tmp_path / "m.pkl", content), arch=ARCH)
    assert not (tmp_path / "x").exists()


def test_arrays_of_other_lengths_are_not_tensors(tmp_path: Path) -> None:
    whole = pickle.dumps({"w": np.zeros((4, 4), np.float32)}, protocol=4)
    sizes = b"K\x04K\x04\x86"
    assert sizes in whole
    (tmp_path / "m.pkl").write_bytes(whole.replace(sizes, b"K\xffK\xff\x86"))
    with pytest.raises(ModelError, match="without weights"):
        bt.load(tmp_path / "m.pkl")


def test_weights_without_their_network(tmp_path: Path) -> None:
    found = {one.name: one.numpy() for one in raw_weights(write(tmp_path / "m.pkl", {"model": arrays()}))}
    assert found.keys() == arrays().keys()
    assert np.array_equal(found["0.weight"], arrays()["0.weight"])
