"""Files that are broken in one way are not said to be broken in another."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.gate.rules import RULES
from bnfold.gate.settings import Limits
from tests.gate.models import asked, layers, save

SOME = Limits(opset=1, bytes=1, nodes=0)


@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut", "folder", "pipe", "dangling"])
def test_of_a_file_that_cannot_be_read_nothing_else_is_said(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    match damage:
        case "empty":
            path.touch()
        case "text":
            path.write_text("no model")
        case "cut":
            path.write_bytes(layers().SerializeToString()[:-50])
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
    assert asked(path, *RULES, limits=SOME) == ["M302" if damage == "cut" else "M301"]


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    """Two files `w.bin`, all of each used."""
    model = layers()
    path = save(model, tmp_path / "net.onnx", data="w.bin")
    stored = onnx.load(path, load_external_data=False)
    for place, tensor in enumerate(stored.graph.initializer):
        folder = tmp_path / str(place)
        folder.mkdir()
        data = np.random.default_rng(place).normal(0, 1, 30_000 * (place + 1)).astype(np.float32).tobytes()
        (folder / "w.bin").write_bytes(data)
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=f"{place}/w.bin")
        tensor.ClearField("dims")
        tensor.dims.append(30_000 * (place + 1))
    onnx.save(stored, path)
    assert asked(path, "M306") == []
    with (tmp_path / "1" / "w.bin").open("ab") as stream:
        stream.write(bytes(1 << 17))
    from bnfold.gate.work import answer
    from tests.gate.models import job

    (finding,) = answer(job(path, "M306"))
    assert finding.found.sites == ("1/w.bin",)


def test_gaps_that_align_tensors_are_not_unused(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "net.onnx", data="net.bin")
    with (tmp_path / "net.bin").open("ab") as stream:
        stream.write(bytes(1 << 16))
    assert asked(path, "M306") == []
