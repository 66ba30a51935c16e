"""The trained files: small, true to the README, loadable without our code; and how they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import models
from models import files
from models.digits import digits
from models.train import CLASSIFIERS, KEPT, TARGET, held_out_accuracy

TRAINED = [pytest.param(files.FOLDER / file, name, id=name) for name, file in KEPT.items()]


@pytest.mark.parametrize(("path", "name"), TRAINED)
def test_holds_torchs_own_layers_only(path: Path, name: str) -> None:
    layers: list[type[nn.Module]] = [
        nn.Sequential,
        nn.Conv2d,
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.MaxPool2d,
        nn.Flatten,
        nn.Linear,
    ]
    with torch.serialization.safe_globals(list(layers)):
        network = torch.load(path, weights_only=True)
    assert type(network) is nn.Sequential
    assert not any(layer.training for layer in network.modules())
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    # The same layers under the same names as in the class.
    assert repr(network).splitlines()[1:] == repr(CLASSIFIERS[name]()).splitlines()[1:]
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize(("path", "name"), TRAINED)
def test_reaches_the_accuracy_that_the_readme_states(path: Path, name: str) -> None:
    accuracy = held_out_accuracy(files.load(path), digits(CLASSIFIERS[name].input_shape))
    row = next(
        line for line in (files.FOLDER / "README.md").read_text().splitlines() if f"`{path.name}`" in line
    )
    assert accuracy >= TARGET == 0.97
    assert f"| {accuracy:.2%} | {path.stat().st_size:,} |" in row


def test_saving_twice_gives_the_same_bytes_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = models.CNNWithBatchNorm().train()
    files.save(network, tmp_path / "a.pt")
    files.save(network, tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert all(layer.training for layer in network.modules())
    assert torch.equal(files.load(tmp_path / "a.pt").state_dict()["conv.weight"], network.conv.weight)


def test_a_failed_save_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(b"the old file")

    def full_disk(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        files.save(models.ConvNet(), path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


class WritesAFile:
    """A pickle of this would write a file when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_what_is_no_trained_file_is_refused(tmp_path: Path) -> None:
    evil, text, weights = tmp_path / "evil.pt", tmp_path / "text.pt", tmp_path / "weights.pt"
    torch.save(WritesAFile(tmp_path / "written"), evil)
    text.write_text("no model")
    torch.save(nn.Linear(2, 2).state_dict(), weights)
    with pytest.raises(ValueError, match=r"evil\.pt is no whole"):
        files.load(evil)
    with pytest.raises(ValueError, match=r"text\.pt is no whole"):
        files.load(text)
    with pytest.raises(ValueError, match="holds a OrderedDict, not a module"):
        files.load(weights)
    assert not (tmp_path / "written").exists()
