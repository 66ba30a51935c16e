"""Damaged and mutated files are read or refused: no other exception, no long wait, no gigabytes."""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import random
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import BnfoldError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = {"program": 500, "safetensors": 500}
OTHERS = 200  # files of each other kind
OPCODES = b"RbsuteaNK0.2]}()hqXcQ\x80\x81\x85\x86\x87\x88\x8a"
_READ = (".pkl", ".py", ".json", ".pt")  # what is in an archive and not the numbers of a tensor
NUMBERS = [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x10"]


def network() -> nn.Sequential:
    torch.manual_seed(2)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.LSTM(4, 4)).eval()
    made.__dict__["about"] = [np.float64(0.5), np.arange(4.0), pathlib.Path("a"), collections.deque([1], 3)]
    return made


def saved(content: object, **options: object) -> bytes:
    into = io.BytesIO()
    torch.save(content, into, **options)
    return into.getvalue()


def script(change: Callable[[nn.Module], nn.Module]) -> bytes:
    into = io.BytesIO()
    torch.jit.save(change(network()[:3].eval()), into)
    return into.getvalue()


def program() -> bytes:
    into = io.BytesIO()
    torch.export.save(torch.export.export(network()[:3].eval(), (torch.randn(1, 3, 8, 8),)), into)
    return into.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "module": lambda: saved(network()),
    "protocol 4": lambda: saved(network(), pickle_protocol=4),
    "checkpoint": lambda: saved({"model": network(), "best": np.float32(1)}),
    "before 1.6": lambda: saved(network().state_dict(), _use_new_zipfile_serialization=False),
    "module before 1.6": lambda: saved(network(), _use_new_zipfile_serialization=False),
    "plain pickle": lambda: pickle.dumps(
        {"model": {name: value.numpy() for name, value in network().state_dict().items()}}
    ),
    "safetensors": lambda: safetensors.save(network().state_dict(), metadata={"format": "pt"}),
    "program": lambda: program(),
    "traced": lambda: script(lambda module: torch.jit.trace(module, torch.randn(1, 3, 8, 8))),
    "scripted": lambda: script(torch.jit.script),
    "frozen": lambda: script(lambda module: torch.jit.freeze(torch.jit.script(module))),
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change, remove, repeat and overwrite some bytes."""
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        place, kind = chance.randrange(max(1, len(found))), chance.random()
        if kind < 0.4:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 0.6:
            found[place : place + 1] = bytes([chance.choice(OPCODES)])
        elif kind < 0.75:
            del found[place : place + chance.randrange(1, 9)]
        elif kind < 0.9:
            found[place:place] = found[max(0, place - chance.randrange(1, 60)) : place]
        else:
            found[place : place + 4] = chance.choice(NUMBERS)
    return bytes(found)


def mutated_within(data: bytes, chance: random.Random) -> bytes:
    """Mutate one pickle or code file of an archive, whose checksums are right again."""
    into = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(into, "w") as new:
        target = chance.choice([name for name in old.namelist() if name.endswith(_READ)])
        for name in old.namelist():
            new.writestr(name, mutated(old.read(name), chance) if name == target else old.read(name))
    return into.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    chance, original, refused = random.Random(kind), KINDS[kind](), 0
    arch = f"{__name__}:network" if kind in ("before 1.6", "plain pickle", "safetensors") else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = FILES.get(kind, OTHERS)
    for _ in range(count):
        within = original.startswith(b"PK") and chance.random() < 0.9
        (tmp_path / "m.pt").write_bytes((mutated_within if within else mutated)(original, chance))
        begun = time.monotonic()
        try:
            bt.load(tmp_path / "m.pt", arch=arch)
        except BnfoldError:
            refused += 1
        assert time.monotonic() - begun < 10
    assert refused > count // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB: 1 GiB
