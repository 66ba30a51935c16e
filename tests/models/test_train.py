"""Training: it learns, it repeats itself, and it keeps what is good enough."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from models import files
from models.digits import digits
from models.train import CLASSIFIERS, KEPT, held_out_accuracy, main, train, train_and_keep


def test_training_learns_and_repeats_itself() -> None:
    data = digits((32, 32))
    losses: list[float] = []
    first = train(models.SequenceNet, data, epochs=3, on_epoch=lambda _, loss: losses.append(loss))
    again = train(models.SequenceNet, data, epochs=3)
    other = train(models.SequenceNet, data, epochs=1, seed=1)
    assert len(losses) == 3
    assert losses[2] < losses[0] / 3
    assert held_out_accuracy(first, data) > 0.9
    assert not first.training
    assert torch.equal(first.state_dict()["0.weight"], again.state_dict()["0.weight"])
    assert not torch.equal(first.state_dict()["0.weight"], other.state_dict()["0.weight"])


@pytest.mark.parametrize("name", ["ConvNet", "RepVGGNet"])
@pytest.mark.parametrize("target", [0.0, 1.1])
def test_keeps_what_reached_the_target_only(
    target: float, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.train.TARGET", target)
    monkeypatch.setattr("models.train.train", lambda network, _, **__: network().eval())
    accuracy = train_and_keep(name, tmp_path)
    kept = tmp_path / KEPT[name]
    assert kept.exists() == (accuracy >= target)
    if kept.exists():
        assert held_out_accuracy(files.load(kept), digits((1, 32, 32))) == accuracy


@pytest.mark.parametrize(
    ("arguments", "trained"),
    [
        ([], ["ConvNet", "CNNWithBatchNorm", "RepVGGNet", "MobileOneNet", "PreActResNet", "DenseNet"]),
        (["SmallResNet"], ["SmallResNet"]),
        (["--all"], list(CLASSIFIERS)),
    ],
)
def test_command_line_chooses_the_networks(
    arguments: list[str], trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("models.train.train_and_keep", lambda name: asked.append(name) or 0.99)
    assert main(arguments) == 0
    assert asked == trained


def test_command_line_says_when_the_target_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.train.train_and_keep", lambda _: 0.96)
    assert main(["ConvNet"]) == 1
    assert "96.00%  below 97%" in capsys.readouterr().out


def test_command_line_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["LeNet"])
    assert stop.value.code == 2
    assert "no classifier is called LeNet; choose from ConvNet" in capsys.readouterr().err
