"""TorchScript that could do more than compute is refused before it is compiled."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError, UnsafePickleError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one

Change = Callable[[str, bytes], bytes]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "model.pt"
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()).save(path)
    return path


def rewrite(source: Path, target: Path, change: Change, **extra: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
        for name, data in extra.items():
            new.writestr(f"{root}/{name}", data)
    return target


def in_code(line: str) -> Change:
    """Put a line at the start of the network's forward."""

    def change(name: str, data: bytes) -> bytes:
        if not (name.endswith(".py") and data.startswith(b"class Sequential(")):  # its file may be mangled
            return data
        start = "    input: Tensor) -> Tensor:\n"
        assert start in data.decode()
        return data.decode().replace(start, f"{start}    {line}\n").encode()

    return change


def refused(path: Path) -> str:
    with pytest.raises(UnsafePickleError) as caught:
        bt.load(path)
    return caught.value.problem


def test_a_rewritten_file_still_loads(scripted: Path, tmp_path: Path) -> None:
    path = rewrite(scripted, tmp_path / "m.pt", in_code("_9 = torch.add(1, 1)"))
    x = torch.randn(1, 3, 8, 8)
    loaded = bt.load(path)
    assert (loaded.kind, loaded.was_training) == ("torchscript", False)
    assert torch.equal(loaded.source(x), bt.load(scripted).source(x))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("_9 = torch.save(input, 'TARGET')", "torch.save"),
        ("_9 = ops.aten.save(input, 'TARGET')", "ops.aten.save"),
        ("_9 = input.save('TARGET')", "input.save"),
        ("_9 = getattr(input, 'save')('TARGET')", "'save'"),
        ("_9 = torch.from_file('TARGET', True, 10)", "torch.from_file"),
        ("_9 = 'TARGET'.from_file(True, 10)", "from_file"),
        ("_9 = ops.image.write_file('TARGET', input)", "ops.image"),
        ("_9 = ops.prim.rpc_sync('a', 'b')", "rpc_sync"),
        ("_9 = __torch__.torch.classes.evil.Shell('touch TARGET')", "class of an extension"),
    ],
)
def test_code_that_would_write_or_call(scripted: Path, tmp_path: Path, line: str, named: str) -> None:
    target = tmp_path / "written"
    path = rewrite(scripted, tmp_path / "m.pt", in_code(line.replace("TARGET", str(target))))
    assert named in refused(path)
    assert not target.exists()


class Evil:
    """Pickles to a call of `eval`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, (self.code,)


@pytest.mark.parametrize("where", ["data.pkl", "constants.pkl", "extra.pkl", "code/x.debug_pkl"])
def test_a_pickle_inside(scripted: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "written"
    evil = pickle.dumps(Evil(f"open({str(target)!r}, 'w').close()"), protocol=2)
    there = where in ("data.pkl", "constants.pkl")
    path = rewrite(
        scripted,
        tmp_path / "m.pt",
        lambda name, data: evil if name == where else data,
        **({} if there else {where: evil}),
    )
    text = refused(path)
    assert "builtins.eval" in text
    assert where in text
    assert not target.exists()


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("pickled", "named"),
    [
        (b"\x80\x02X\xff\xff\xff\x7fab.", "damaged"),  # a text of 2 GiB
        (b"\x80\x02Nr\xff\xff\xff\x1f.", "remembered as number"),  # room for as many values
        (b"\x80\x02" + b"(" * 700 + b"t" * 700 + b".", "nested"),
    ],
)
@pytest.mark.parametrize("where", ["data.pkl", "constants.pkl"])
def test_a_pickle_that_asks_for_much(scripted, tmp_path, pickled: bytes, named: str, where: str) -> None:
    path = rewrite(scripted, tmp_path / "m.pt", lambda name, data: pickled if name == where else data)
    with pytest.raises(ModelError, match=named):
        bt.load(path)


@pytest.mark.parametrize("count", [109, 1 << 20, 1 << 29])
def test_a_tensor_larger_than_its_numbers(scripted, tmp_path, count: int) -> None:
    asked = b"K\x6c"  # 108 numbers of the convolution's weight

    def change(name: str, data: bytes) -> bytes:
        assert name != "data.pkl" or data.count(asked) == 1
        return data.replace(asked, _number(count)) if name == "data.pkl" else data

    assert "bytes of numbers" in refused(rewrite(scripted, tmp_path / "m.pt", change))


def test_code_that_is_none(scripted: Path, tmp_path: Path) -> None:
    path = rewrite(scripted, tmp_path / "m.pt", in_code("this is not code"))
    with pytest.raises(ModelError, match="damaged"):
        bt.load(path)


ATTACK = """
import torch
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(2), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "TARGET")
        self.training = state[1]
"""


def test_what_really_writes_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart of the refusals: `torch.jit.load` alone lets a file write another."""
    target = tmp_path / "written"
    (tmp_path / "attack_for_test.py").write_text(ATTACK.replace("TARGET", str(target)))
    monkeypatch.syspath_prepend(tmp_path)
    torch.jit.script(__import__("attack_for_test").Net()).save(tmp_path / "m.pt")
    assert "torch.save" in refused(tmp_path / "m.pt")
    assert not target.exists()
    torch.jit.load(tmp_path / "m.pt")
    assert target.exists()
