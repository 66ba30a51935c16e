"""Reading ONNX files: every way in which one can be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import ModelError
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
from tests.files.models import SIZE, add_model, weight_of


def change_location(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())


def refused(path: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_onnx(path)
    error = caught.value
    assert error.exit_code == 2
    assert "\n" not in error.problem
    assert error.fix
    return error.problem


@pytest.mark.parametrize("version", [3, 4, 8, 10])
def test_load_ir_versions(tmp_path, version):
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model(ir_version=version).SerializeToString())
    model = load_onnx(path)
    assert model.ir_version == version
    save_onnx(model, tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    after.graph.ClearField("value_info")  # onnx_ir tells the types of initializers there
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"not a model\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (bytes(range(255, 0, -1)), "other kind of file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x08\x08", "no graph"),
    ],
)
def test_not_onnx(tmp_path, content, expected):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert expected in refused(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no such device")
def test_a_device_is_no_model() -> None:
    with pytest.raises(ModelError, match="is a device"):
        load_onnx("/dev/zero")


def test_not_a_file(tmp_path):
    assert "not there" in refused(tmp_path / "absent.onnx")
    assert "a folder" in refused(tmp_path)
    assert "no path" in refused("a\0b")


def test_ir_2_is_refused(tmp_path):
    model = add_model()
    model.ir_version = 2
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "IR version 2" in refused(tmp_path / "m.onnx")


def test_every_truncation_is_refused(tmp_path):
    data = add_model(size=2).SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        refused(path)


def test_external_data_stays_on_disk_until_read(external):
    model = load_onnx(external)
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    assert weight.raw is None
    np.testing.assert_array_equal(weight.numpy(), weight_of(external))


def test_external_data_from_another_working_folder(external, monkeypatch):
    monkeypatch.chdir(external.parent)
    weight = load_onnx("model.onnx").graph.initializers["w"].const_value
    monkeypatch.chdir("/")
    assert weight is not None
    assert weight.numpy().sum() == SIZE * SIZE


def test_external_data_missing(external):
    (external.parent / "weights.bin").unlink()
    assert "not there" in refused(external)


def test_external_data_too_short(external):
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    assert "too short" in refused(external)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", ""])
def test_external_data_outside(external, location):
    (external.parent.parent / "secret.bin").write_bytes(bytes(SIZE * SIZE * 4))
    change_location(external, location)
    assert "outside" in refused(external)


def test_external_data_behind_a_link_that_leads_out(external, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.bin"
    (external.parent / "weights.bin").rename(secret)
    (external.parent / "weights.bin").symlink_to(secret)
    assert "outside" in refused(external)


def test_external_data_behind_a_link_that_stays_inside(external):
    (external.parent / "weights.bin").rename(external.parent / "real.bin")
    (external.parent / "weights.bin").symlink_to("real.bin")
    assert len(load_onnx(external).graph.initializers) == 1


def test_external_data_as_a_hard_link(external):
    os.link(external.parent / "weights.bin", external.parent / "other.bin")
    assert "hard link" in refused(external)


def test_external_data_of_a_constant_node_is_checked(external):
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.node[0].attribute[0].t.external_data:
        if entry.key == "location":
            entry.value = "../x"
    external.write_bytes(model.SerializeToString())
    assert "outside" in refused(external)
