"""Checkpoints that hold more than a model: plain data opens without a flag, and nothing else is made."""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib
import itertools
import os
import pathlib
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import BnfoldError, ModelError, UnsafePickleError  # noqa: E402
from bnfold.torch.read.checkpoint import SeveralModelsError  # noqa: E402
from bnfold.torch.read.safety import plain  # noqa: E402

PLAIN: list[Any] = [
    *(np.float64(0.5), np.float32(0.93), np.int64(7), np.bool_(True), np.float16(2)),
    *(np.arange(6.0).reshape(2, 3), np.zeros((3, 0), np.int32), np.asfortranarray(np.eye(4, dtype=np.uint8))),
    *(np.dtype("float32"), np.dtype(">i4"), np.array(["a", "bc"])),
    *(argparse.Namespace(lr=0.1, layers=[1, 2]), pathlib.Path("runs") / "one", pathlib.PurePosixPath("/a")),
    *(datetime.datetime(2024, 5, 1, 12, 30), datetime.date(2024, 5, 1), datetime.timedelta(hours=2)),
    datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    *(collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], maxlen=5)),
    *(collections.defaultdict(list, a=[1]), collections.defaultdict(int, a=1)),
    *(
        {1, 2},
        frozenset({"a"}),
        b"bytes",
        bytearray(b"more"),
        2 + 3j,
        range(5),
        slice(1, 2),
        (),
        None,
        1 << 100,
    ),
]


def small() -> nn.Sequential:
    torch.manual_seed(4)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    layers[1].running_mean.normal_()
    return layers


def _compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


class Evil:
    """Pickles to a call of `function` on `arguments`."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def same_as_small(module: Any) -> bool:
    images = torch.randn(2, 3, 8, 8)
    return torch.equal(module.eval()(images), small()(images))


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_plain_data_needs_no_permission(tmp_path: Path, value: Any, where: str) -> None:
    model = small()
    if where == "inside":
        model[0].__dict__["about"] = [value, {"again": value}]
        torch.save(model, tmp_path / "m.pt")
    else:
        torch.save({"model": model, "best": value, "more": [value]}, tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert same_as_small(loaded.source)


@pytest.mark.parametrize(
    "value",
    [np.float32(0.93), np.arange(6.0).reshape(2, 3), collections.deque([1, 2]), {1: "a"}, b"\xff\x00"],
)
def test_plain_data_in_a_model_is_what_it_was(tmp_path: Path, value: Any) -> None:
    model = small()
    model[0].__dict__["about"] = value
    torch.save(model, tmp_path / "m.pt")
    found = bt.load(tmp_path / "m.pt").source[0].about
    assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    torch.save({"model": small(), "args": PLAIN}, tmp_path / "m.pt", pickle_protocol=protocol)
    assert same_as_small(bt.load(tmp_path / "m.pt").source)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, AveragedModel, lambda model: nn.DataParallel(nn.DataParallel(model)), _compiled],
    ids=["DataParallel", "AveragedModel", "twice", "compiled"],
)
def test_wrappers_are_taken_off(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(small()), tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert isinstance(loaded.source, nn.Sequential)
    assert same_as_small(loaded.source)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_the_model_does_not_need_is_still_searched_for_harm(tmp_path: Path, depth: int) -> None:
    harm: Any = Evil(os.system, f"touch {tmp_path}/ran")
    for _ in range(depth):
        harm = {"inner": [harm]}
    torch.save({"model": small(), "optimizer": harm}, tmp_path / "m.pt")
    with pytest.raises(UnsafePickleError, match="system"):
        bt.load(tmp_path / "m.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("function", [plain.filled, os.getcwd, eval])
def test_functions_inside_a_model_are_refused(tmp_path: Path, function: Any) -> None:
    model = small()
    model[0].__dict__["about"] = Evil(function, *([[], [], []] if function is plain.filled else []))
    torch.save(model, tmp_path / "m.pt")
    with pytest.raises(UnsafePickleError):
        bt.load(tmp_path / "m.pt")


def test_classes_that_only_the_rest_needs_are_not_imported(tmp_path: Path, monkeypatch: Any) -> None:
    _module(tmp_path, monkeypatch, "trainer_state", "class State:\n    pass\n")
    state = sys.modules["trainer_state"].State()  # type: ignore[attr-defined]
    torch.save({"model": small(), "trainer": state}, tmp_path / "m.pt")
    monkeypatch.delitem(sys.modules, "trainer_state")
    loaded = bt.load(tmp_path / "m.pt")
    assert "trainer_state" not in sys.modules
    assert any("trainer_state.State" in note for note in loaded.notes)


def test_all_that_is_missing_is_asked_for_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    _module(
        tmp_path,
        monkeypatch,
        "two_nets",
        """
        from torch import nn
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 1)
            def forward(self, x):
                return self.conv(x)
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block()
            def forward(self, x):
                return self.block(x)
        """,
    )
    nets = {name: sys.modules["two_nets"].Net() for name in ("model", "ema")}  # type: ignore[attr-defined]
    torch.save({**nets, "best": np.float64(1)}, tmp_path / "m.pt")
    with pytest.raises(UnsafePickleError) as caught:
        bt.load(tmp_path / "m.pt")
    words = caught.value.fix.split("add: ")[1].split("; or: ")[0].split()
    allow = [value for option, value in itertools.pairwise(words) if option == "--allow"]
    key = words[words.index("--key") + 1]
    assert {"two_nets.Net", "two_nets.Block"} == set(allow)
    assert "--input-shape" in words
    assert type(bt.load(tmp_path / "m.pt", allow=allow, key=key).source).__name__ == "Net"


def test_several_models_need_a_key(tmp_path: Path) -> None:
    torch.save({"model": small(), "ema": small(), "best": np.float32(1)}, tmp_path / "m.pt")
    with pytest.raises(SeveralModelsError, match="more than one"):
        bt.load(tmp_path / "m.pt")
    assert same_as_small(bt.load(tmp_path / "m.pt", key="ema").source)


@pytest.mark.parametrize(
    "extra",
    [
        {"total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
        {"head.weight": torch.zeros(3, 4)},
        {"1.counter": torch.zeros((), dtype=torch.long)},
    ],
)
def test_unexpected_weights_are_left_out_when_asked(tmp_path: Path, monkeypatch: Any, extra: Any) -> None:
    monkeypatch.setitem(sys.modules, "small_net", type(sys)("small_net"))
    sys.modules["small_net"].small = small  # type: ignore[attr-defined]
    torch.save(small().state_dict() | extra, tmp_path / "m.pt")
    with pytest.raises(ModelError) as caught:
        bt.load(tmp_path / "m.pt", arch="small_net:small")
    assert "--ignore-unexpected" in caught.value.fix
    loaded = bt.load(tmp_path / "m.pt", arch="small_net:small", ignore_unexpected=True)
    assert same_as_small(loaded.source)
    assert any(next(iter(extra)) in note for note in loaded.notes)


def test_missing_weights_stay_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "small_net", type(sys)("small_net"))
    sys.modules["small_net"].small = small  # type: ignore[attr-defined]
    weights = small().state_dict()
    del weights["0.weight"]
    torch.save(weights | {"total_ops": torch.zeros(1)}, tmp_path / "m.pt")
    with pytest.raises(BnfoldError, match="1 missing"):
        bt.load(tmp_path / "m.pt", arch="small_net:small", ignore_unexpected=True)


def _module(folder: Path, monkeypatch: Any, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module(name)
