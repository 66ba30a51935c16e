"""Reading ONNX files: every way in which one can be wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import Message

from bnfold.errors import BnfoldError, ModelError
from bnfold.files import load
from bnfold.files.external_data import tensors
from bnfold.files.load import load_onnx
from bnfold.files.protobuf_scan import WireError
from bnfold.files.save import save_onnx
from bnfold.tensors.file_tensor import FileTensor
from tests.files import mutations
from tests.files.models import SIZE, add_model, weight_of

FILES = int(os.environ.get("BNFOLD_FUZZ_FILES", "2000"))


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
    after.graph.ClearField("value_info")  # onnx_ir writes the types of initializers there
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"not a model\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (bytes(range(255, 0, -1)), "unknown kind"),
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
    assert "not a path" in refused("a\0b")


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
    assert isinstance(weight, FileTensor)
    assert weight.external
    assert weight.file.path == external.parent / "weights.bin"
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


def test_external_data_in_a_place_that_cannot_be(external):
    change_location(external, "x" * 300)
    assert "not there" in refused(external)
    external.write_bytes(external.read_bytes().replace(b"x" * 300, b"\xff" * 300))
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


def test_larger_tensors_stay_in_the_file_until_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model(scale=3.0).SerializeToString())
    model = load_onnx(path)
    initializer = model.graph.initializers["w"]
    constant = model.graph.node(0).attributes["value"].as_tensor()
    for tensor, expected in ((initializer.const_value, 3.0), (constant, 6.0)):
        assert isinstance(tensor, FileTensor)
        assert not tensor.external
        path.unlink(missing_ok=True)  # the open file outlasts its name
        np.testing.assert_array_equal(tensor.numpy(), np.full((SIZE, SIZE), expected, np.float32))
    assert initializer.shape == [SIZE, SIZE]
    assert initializer.shape.frozen
    assert ir.to_proto(model).graph.initializer[0].raw_data == np.full(SIZE * SIZE, 3, "<f4").tobytes()


def test_small_tensors_are_read_at_once(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model(size=8).SerializeToString())
    assert not any(isinstance(tensor, FileTensor) for tensor in tensors(load_onnx(path)))


def test_a_hard_link_is_a_model_like_any(tmp_path):
    (tmp_path / "m.onnx").write_bytes(add_model().SerializeToString())
    os.link(tmp_path / "m.onnx", tmp_path / "other.onnx")
    weight = load_onnx(tmp_path / "other.onnx").graph.initializers["w"].const_value
    assert isinstance(weight, FileTensor)
    assert weight.numpy().sum() == SIZE * SIZE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
def test_a_pipe_is_no_model(tmp_path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    assert "a pipe" in refused(tmp_path / "m.onnx")


def test_a_file_beyond_two_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model().SerializeToString())
    os.truncate(path, 2**31)  # a hole
    assert "larger than 2 GB" in refused(path)


def test_a_file_that_changes_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(add_model(1.0).SerializeToString())
    replaced = load.replaced

    def disturbed(*args):
        pieces = replaced(*args)
        path.write_bytes(add_model(5.0).SerializeToString())
        os.utime(path, ns=(0, 0))
        return pieces

    monkeypatch.setattr(load, "replaced", disturbed)
    weight = load_onnx(path).graph.initializers["w"].const_value
    assert weight is not None
    assert not isinstance(weight, FileTensor)
    assert weight.numpy().mean() == 5


@pytest.mark.parametrize("location", ["weights.bin", "../secret.bin"])
def test_external_data_of_a_subgraph_in_a_function_is_checked(tmp_path, location):
    model = mutations.rich_model()
    branches = model.functions[0].node[1].attribute
    for attribute in branches:
        tensor = attribute.g.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert ("outside" if ".." in location else "not there") in refused(path)


@pytest.mark.parametrize(("kind", "dims"), [("STRING", [4]), ("UNDEFINED", [4]), ("FLOAT", [-2, -2])])
def test_external_data_of_no_size(external, kind, dims):
    model = onnx.load(external, load_external_data=False)
    model.graph.initializer[0].data_type = onnx.TensorProto.DataType.Value(kind)
    model.graph.initializer[0].dims[:] = dims
    external.write_bytes(model.SerializeToString())
    refused(external)


def test_tensors_that_contradict_themselves_are_refused(tmp_path):
    path = tmp_path / "m.onnx"
    model = add_model()
    model.graph.node[0].attribute[0].t.dims[0] += 1
    path.write_bytes(model.SerializeToString())
    assert "'c' has 16384 bytes where its type and the shape [65, 64] need 16640" in refused(path)


def test_mutated_files_are_refused_or_the_same_as_plainly_parsed(tmp_path, monkeypatch):
    """The tensors that stay in the file may be of any size here, so that small files have many."""
    monkeypatch.setattr(load, "_LEFT_FROM", 16)
    path = tmp_path / "m.onnx"
    seeds, rng = mutations.seeds(), random.Random(7)
    (tmp_path / "beside.bin").write_bytes(bytes(range(200)))
    figures = {"refused": 0, "parsed plainly": 0, "left in the file": 0}
    for count in range(FILES):
        data = mutations.mutated(rng.choice(seeds), rng)
        path.write_bytes(data)
        found = outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(load, "raw_data", no_scan)
            assert found[:2] == outcome(path)[:2], f"file {count}: {data.hex()}"
        figures[found[2]] += 1
    print(figures)
    assert min(figures.values()) > FILES / 40


def no_scan(*_: object) -> None:
    raise WireError("not today")


def outcome(path: Path) -> tuple[object, object, str]:
    """All that a reader of the file can learn, and how it was learnt."""
    try:
        model = load_onnx(path)
    except BnfoldError as error:
        return str(error), None, "refused"
    lazy = any(isinstance(tensor, FileTensor) and not tensor.external for tensor in tensors(model))
    described = [description_of(tensor) for tensor in tensors(model)]
    try:
        proto = canonical(ir.to_proto(model))
    except Exception as error:  # onnx_ir's, for what it read without a look
        proto = type(error)
    return described, proto, "left in the file" if lazy else "parsed plainly"


def description_of(tensor: ir.TensorProtocol) -> tuple[object, ...]:
    questions = (
        lambda: tensor.name or "",
        lambda: tensor.dtype,
        lambda: tuple(tensor.shape),
        lambda: dict(tensor.metadata_props),
        lambda: tensor.tobytes(),
        lambda: (array := tensor.numpy()).dtype.str + str(array.shape) + array.tobytes().hex(),
    )
    return tuple(map(answer, questions))


def answer(question: Callable[[], object]) -> str:
    """As text, in which NaN equals itself."""
    try:
        return repr(question())
    except Exception as error:  # onnx_ir's, for what it read without a look
        return type(error).__name__


def canonical(message: Any) -> Any:
    """Empty names left out, and no metadata given twice, as onnx_ir does when it copies a tensor."""
    if isinstance(message, onnx.TensorProto):
        for name in ("name", "doc_string"):
            if not getattr(message, name):
                message.ClearField(name)
        props = {entry.key: entry.value for entry in message.metadata_props}
        message.ClearField("metadata_props")
        for key, value in props.items():
            message.metadata_props.add(key=key, value=value)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if isinstance(value, Message) else value:
                canonical(part)
    return message.SerializeToString(deterministic=True) if isinstance(message, onnx.ModelProto) else message
