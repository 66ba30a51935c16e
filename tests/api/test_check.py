"""`bnfold.check` takes every kind of model, and settings as keywords."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import bnfold
from bnfold.api.check import _several
from bnfold.errors import InputError
from bnfold.gate import run
from bnfold.gate.baseline import write
from bnfold.gate.configuration import Configuration
from bnfold.gate.settings import Settings
from tests.gate.models import answering, layers, save

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the files that rules were asked about, in this process; no settings are near."""
    names: list[str] = []
    monkeypatch.setattr(run, "_answers", answering(names))
    monkeypatch.chdir(tmp_path)
    return names


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).train()


def found(checked: bnfold.Checked) -> list[tuple[str, str]]:
    return [(one.path, one.code) for one in checked.findings]


def test_models_of_every_kind_are_checked_at_once(tmp_path: Path) -> None:
    proto, net = layers(), network()
    before = proto.SerializeToString(deterministic=True)
    save(proto, tmp_path / "net.onnx")
    models = ["net.onnx", proto, ir.from_proto(proto), net]
    checked = bnfold.check(models, select="M101", example_inputs=X)
    assert sorted(found(checked)) == [
        (name, "M101") for name in ("Sequential.onnx", "g-2.onnx", "g.onnx", "net.onnx")
    ]
    assert not checked
    assert len(repr(checked)) < 1500
    assert proto.SerializeToString(deterministic=True) == before
    assert net.training
    assert [path.exists() for path in checked.paths if path.name != "net.onnx"] == [False] * 3


@pytest.mark.parametrize("make", [layers, lambda: ir.from_proto(layers())])
def test_one_model_is_not_taken_apart(make: Callable[[], Any], asked: list[str]) -> None:
    assert bnfold.check(make(), ignore=["M1"])
    assert asked == ["g.onnx"]


def test_a_network_is_one_model_though_it_is_a_sequence_of_some() -> None:
    net = network()
    assert _several(net) == [net]
    assert _several(iter([net, "net.onnx"])) == [net, "net.onnx"]


def test_a_broken_model_in_memory_is_a_finding() -> None:
    proto = layers()
    del proto.opset_import[:]
    assert found(bnfold.check(proto)) == [("g.onnx", "M302")]


def test_the_name_of_a_graph_is_only_a_name(tmp_path: Path) -> None:
    proto = layers()
    for name in ("../../up", "/root", "a b\nc", "..", "x" * 5000):
        proto.graph.name = name
        (file,) = bnfold.check(proto, select="M101").files
        assert "/" not in file
        assert "\n" not in file
        assert len(file) < 100
    assert not list(tmp_path.iterdir())


def test_a_model_in_memory_is_compared_with_the_file_that_it_was(tmp_path: Path) -> None:
    save(layers(), tmp_path / "old.onnx")
    for seed, codes in ((0, []), (1, [("g.onnx", "M402")])):
        checked = bnfold.check(layers(seed=seed), select="M402", earlier=tmp_path / "old.onnx")
        assert found(checked) == codes
    for earlier in (tmp_path, "git:main"):
        with pytest.raises(InputError, match="has no place in"):
            bnfold.check(layers(), earlier=earlier)


def test_a_baseline_knows_a_model_in_memory_by_its_name(tmp_path: Path) -> None:
    first = bnfold.check(layers())
    write(first.all, tmp_path / "accepted.json")
    again = bnfold.check(layers(), accepted=str(tmp_path / "accepted.json"))
    assert again
    assert again.accepted == len(first.findings) == 1


def test_settings_are_keywords(tmp_path: Path) -> None:
    save(layers(), tmp_path / "net.onnx")
    (tmp_path / "bnfold.toml").write_text('ignore = ["M101"]\n')
    assert bnfold.check("net.onnx")
    assert found(bnfold.check(["net.onnx"], ignore=())) == [("net.onnx", "M101")]
    own = Configuration(Settings(), tmp_path)
    assert found(bnfold.check("net.onnx", own)) == [("net.onnx", "M101")]
    assert bnfold.check("net.onnx", own, ignore="M3, M101")


WRONG: Mapping[str, tuple[Any, dict[str, Any], str]] = {
    "a code": ("net.onnx", {"select": "M9"}, "'M9' is not the code of a rule"),
    "a target": ("net.onnx", {"targets": "tensorflight"}, "tensorflight"),
    "a number": (3, {}, "This is a int, and not a model"),
    "a number among others": (["net.onnx", 3], {}, "This is a int, and not a model"),
    "example inputs for a file": ("net.onnx", {"example_inputs": X}, "are for a torch"),
    "no example inputs": (network(), {}, r"such as torch\.randn\(1, 3"),
    "another revision": ("net.onnx", {"earlier": "nothing"}, "to earlier=."),
}


@pytest.mark.parametrize(("models", "options", "message"), WRONG.values(), ids=WRONG)
def test_errors_speak_of_keywords(models: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(layers(), tmp_path / "net.onnx")
    with pytest.raises(InputError, match=message):
        bnfold.check(models, **options)


def test_wrong_arguments_say_what_was_meant() -> None:
    with pytest.raises(TypeError, match=r"no keyword 'selct'\. Did you mean select"):
        bnfold.check("net.onnx", selct="M1")
    with pytest.raises(InputError, match="Give example inputs by their name"):
        bnfold.check(network(), X)  # type: ignore[arg-type]


def test_progress_goes_to_the_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(layers(), tmp_path / "net.onnx")
    seen: list[tuple[str, int, int]] = []
    bnfold.check("net.onnx", progress=lambda *report: seen.append(report))
    assert seen[0] == ("check", 0, 1)
    assert {stage for stage, *_ in seen} == {"check"}
    bnfold.check("net.onnx", progress=False)
    assert capsys.readouterr() == ("", "")
