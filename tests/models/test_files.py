"""The trained files: small, true to the README, loadable without our code; and how they are written."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bnfold
import models
from bnfold.pipeline.read import read_model
from bnfold.runtime import sessions
from models import files
from models.branches import Branches
from models.digits import digits
from models.train import CLASSIFIERS, KEPT, TARGET, held_out_accuracy

TRAINED = [pytest.param(files.FOLDER / file, name, id=name) for name, file in KEPT.items()]
LAYERS = [param for param in TRAINED if param.values[0].suffix == ".pt"]
PROGRAMS = [param for param in TRAINED if param.values[0].suffix == ".pt2"]
BATCHNORMS_LEFT = {"RepVGGNet": 0, "MobileOneNet": 0, "PreActResNet": 0, "DenseNet": 10}


@pytest.mark.parametrize(("path", "name"), LAYERS)
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


@pytest.mark.parametrize(("path", "name"), PROGRAMS)
def test_a_program_needs_no_code_and_tells_nothing_of_where_it_was_made(path: Path, name: str) -> None:
    content = path.read_bytes()
    assert len(content) < 2_000_000
    assert b".py" not in content
    with zipfile.ZipFile(path) as archive:
        assert not any(path.suffix == ".so" for path in map(Path, archive.namelist()))
    weights, expected = files.load(path).state_dict(), CLASSIFIERS[name]().state_dict()
    assert {key: value.shape for key, value in weights.items()} == {
        key: value.shape for key, value in expected.items()
    }


@pytest.mark.parametrize(("path", "name"), PROGRAMS)
def test_a_folded_program_keeps_no_parallel_branches_and_predicts_the_same(path: Path, name: str) -> None:
    original = read_model(path).model
    result = bnfold.fold(original)
    counts = [Counter(node.op_type for node in model.graph) for model in (original, result.model)]
    network = CLASSIFIERS[name]()
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    blocks = sum(isinstance(layer, Branches) for layer in network.modules())
    assert counts[0]["BatchNormalization"] == len(models.batchnorms(network))
    assert counts[0]["Conv"] == convolutions
    assert counts[1]["BatchNormalization"] == BATCHNORMS_LEFT[name]
    assert len(result.merges) == blocks
    if blocks:
        assert (counts[1]["Conv"], counts[1]["Add"]) == (blocks, 0)
    else:  # a stream keeps its sums, and no fold adds one
        assert (counts[1]["Conv"], counts[1]["Add"]) == (convolutions, counts[0]["Add"])
    images = digits(network.input_shape).test_images
    session = sessions.session(result.model, optimized="off", threads=1)
    with torch.no_grad():
        expected = files.load(path)(images).numpy()
    (actual,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.abs(actual - expected).max() < 5e-5 * np.abs(expected).max()
    assert (actual.argmax(axis=1) == expected.argmax(axis=1)).all()


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


def test_a_program_takes_any_batch_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = models.seeded_statistics(models.RepVGGNet()).train()
    files.save_program(network, network.input_shape, tmp_path / "a.pt2")
    files.save_program(network, network.input_shape, tmp_path / "b.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    assert all(layer.training for layer in network.modules())
    program = files.load(tmp_path / "a.pt2")
    network.eval()
    for size in (1, 3):
        images = torch.randn(size, 1, 32, 32)
        torch.testing.assert_close(program(images), network(images))


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
    with pytest.raises(ValueError, match=r"evil\.pt is not a whole"):
        files.load(evil)
    with pytest.raises(ValueError, match=r"text\.pt is not a whole"):
        files.load(text)
    with pytest.raises(ValueError, match="holds a OrderedDict, not a module"):
        files.load(weights)
    assert not (tmp_path / "written").exists()
    for path in (evil, text, weights):
        program = path.rename(path.with_suffix(".pt2"))
        with pytest.raises(ValueError, match=rf"{path.stem}\.pt2 is not a whole torch\.export\.save file"):
            files.load(program)
    torch.save(nn.Linear(2, 2), tmp_path / "layers.pt2")
    with pytest.raises(ValueError, match="holds a Linear, not a program"):
        files.load(tmp_path / "layers.pt2")
    assert not (tmp_path / "written").exists()
