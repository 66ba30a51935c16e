"""Files of PyTorch have weights and no graph: what is asked of weights is asked of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnfold.gate.rules import RULES
from bnfold.gate.settings import Limits
from bnfold.gate.work import answer
from tests.gate.models import asked, job

torch = pytest.importorskip("torch")


def saved(path: Path, *, trained: bool = True, special: float = 1.0) -> Path:
    """The weights of a Conv and a BatchNorm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    if trained:
        weights["1.running_mean"].normal_(generator=generator)
        weights["1.running_var"].uniform_(0.5, 2, generator=generator)
    weights["0.weight"][0, 0, 0, 0] = special
    torch.save(weights, path)
    return path


def test_whole_weights_break_no_rule(tmp_path: Path) -> None:
    limits = Limits(opset=1, nodes=0, parameters=0, bytes=10**6)
    assert asked(saved(tmp_path / "net.pt"), *RULES, limits=limits) == []


def test_statistics_that_were_never_updated(tmp_path: Path) -> None:
    (finding,) = answer(job(saved(tmp_path / "net.pt", trained=False), *RULES))
    assert (finding.code, finding.found.sites) == ("M103", ("1",))


@pytest.mark.parametrize(("number", "code"), [(float("nan"), "M201"), (float("inf"), "M202"), (1e5, "M204")])
def test_numbers(tmp_path: Path, number: float, code: str) -> None:
    (finding,) = answer(job(saved(tmp_path / "net.pt", special=number), *RULES))
    assert (finding.code, finding.found.sites) == (code, ("0.weight",))


def test_size(tmp_path: Path) -> None:
    assert asked(saved(tmp_path / "net.pt"), "M311", limits=Limits(bytes=100)) == ["M311"]


def test_a_broken_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt")
    path.write_bytes(path.read_bytes()[:-200])
    assert asked(path, *RULES, limits=Limits(bytes=1)) == ["M302"]
