"""The data file next to a model: where tensors are in it, its name, and that none is ever overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.files import external_writer
from bnfold.files.external_writer import move_out, own_files
from bnfold.tensors.block_tensor import BLOCK


def model_of(*arrays: np.ndarray) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="g")
    for index, array in enumerate(arrays):
        graph.register_initializer(ir.Value(name=f"w{index}", const_value=ir.Tensor(array, name=f"w{index}")))
    return ir.Model(graph, ir_version=10)


def constants(model: ir.Model) -> list[ir.TensorProtocol | None]:
    return [value.const_value for value in model.graph.initializers.values()]


def moved_out(model: ir.Model, target: Path) -> tuple[Path, bool]:
    """The data file, and whether it is new."""
    made: list[Path] = []
    file = move_out(model, target, made)
    assert made in ([], [file])
    return file, bool(made)


def random(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def test_tensors_are_aligned_and_large_ones_begin_at_pages(tmp_path: Path) -> None:
    arrays = [random(count) for count in (255, 256, 300, 2**18 - 1, 257, 2**18, 400, 2**18 + 3)]
    model = model_of(*arrays)
    file, is_new = moved_out(model, tmp_path / "m.onnx")
    assert is_new
    content = file.read_bytes()
    small, *moved = constants(model)
    assert isinstance(small, ir.Tensor)  # less than a kilobyte
    end = 0
    for array, tensor in zip(arrays[1:], moved, strict=True):
        assert isinstance(tensor, ir.ExternalTensor)
        assert tensor.location == file.name
        begin, length = tensor.offset or 0, tensor.length or 0
        assert begin % (65536 if array.nbytes >= 2**20 else 64) == 0
        assert begin >= end
        assert content[begin : begin + length] == array.tobytes()
        assert not any(content[end:begin])
        np.testing.assert_array_equal(tensor.numpy(), array)
        end = begin + length
    assert len(content) == end


def test_the_description_goes_with_the_tensor(tmp_path: Path) -> None:
    model = model_of()
    tensor = ir.Tensor(random(500), name="other", doc_string="d", metadata_props={"k": "v"})
    model.graph.register_initializer(ir.Value(name="w", const_value=tensor))
    tensor.name = "other"
    moved_out(model, tmp_path / "m.onnx")
    moved = model.graph.initializers["w"].const_value
    assert moved is not None
    assert (moved.name, moved.doc_string, moved.metadata_props) == ("w", "d", {"k": "v"})
    assert tensor.name == "other"


def test_the_same_content_has_the_same_name_and_is_kept(tmp_path: Path) -> None:
    first, is_new = moved_out(model_of(random(9000)), tmp_path / "m.onnx")
    assert is_new
    state = first.stat()
    again, is_new = moved_out(model_of(random(9000)), tmp_path / "m.onnx")
    assert (again, is_new) == (first, False)
    assert again.stat().st_ino == state.st_ino
    assert again.stat().st_mtime_ns == state.st_mtime_ns
    other, is_new = moved_out(model_of(random(9000, seed=1)), tmp_path / "m.onnx")
    assert is_new
    assert not other.name.startswith(first.stem)  # not the same digits with a number after them
    assert len(list(tmp_path.iterdir())) == 2


def test_other_content_in_no_sample_gets_another_name(tmp_path: Path) -> None:
    arrays = [random(1_000_000) for _ in range(3)]
    arrays[1][100_000] += 1
    arrays[2][-100_000] += 1
    names = []
    for array in arrays:
        file, is_new = moved_out(model_of(array), tmp_path / "m.onnx")
        assert is_new
        names.append(file.name)
        assert file.read_bytes() == array.tobytes()
    stem = names[0].removesuffix(".data")
    assert names[1:] == [f"{stem}-2.data", f"{stem}-3.data"]
    for name, array in zip(names, arrays, strict=True):
        assert (tmp_path / name).read_bytes() == array.tobytes()
        assert moved_out(model_of(array), tmp_path / "m.onnx") == (tmp_path / name, False)


FIELDS = ("st_ino", "st_mode", "st_nlink", "st_size", "st_mtime_ns")  # all but when it was last read


@pytest.mark.parametrize(
    "kind", [0, 511, 3 * BLOCK // 8, -1, "length", "folder", "link", "dead link", "hard link"]
)
def test_what_has_the_name_already_is_left_alone(tmp_path: Path, kind: str | int) -> None:
    """A number is where the content differs."""
    array = random(BLOCK)
    place, _ = moved_out(model_of(array), tmp_path / "m.onnx")
    content = bytearray(place.read_bytes())
    elsewhere = tmp_path / "elsewhere"
    if isinstance(kind, int):
        content[4 * kind] ^= 1
        place.write_bytes(content)
    elif kind == "length":
        place.write_bytes(content + b"x")
    elif kind == "hard link":
        os.link(place, elsewhere)
    else:
        place.rename(elsewhere)
        if kind == "folder":
            place.mkdir()
        else:
            place.symlink_to(elsewhere)
        if kind == "dead link":
            elsewhere.unlink()
    before = [getattr(place.lstat(), field) for field in FIELDS]
    other, is_new = moved_out(model_of(array), tmp_path / "m.onnx")
    assert is_new
    assert other.name == place.name.removesuffix(".data") + "-2.data"
    assert other.read_bytes() == array.tobytes()
    assert [getattr(place.lstat(), field) for field in FIELDS] == before


def test_the_name_does_not_depend_on_where_the_model_is_or_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one, _ = moved_out(model_of(random(900)), tmp_path / "m.onnx")
    two, _ = moved_out(model_of(random(900)), tmp_path / "sub" / "n.onnx")
    assert one.name.split(".")[2:] == two.name.split(".")[2:]
    assert (one.name.split(".")[0], two.name.split(".")[0]) == ("m", "n")


def test_own_files_are_those_that_the_model_mentions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    names = [f"m.onnx.{digit * 16}.data" for digit in "0123456"] + [f"m.onnx.{'7' * 16}-12.data"]
    strange = [
        f"other.onnx.{'0' * 16}.data",
        f"m.onnx.{'g' * 16}.data",
        "m.onnx.data",
        f"m.onnx.{'0' * 15}.data",
    ]
    for name in names + strange:
        (tmp_path / name).touch()
    assert own_files(path) == set()
    for filler in range(70):
        path.write_bytes(bytes(filler) + b"".join(name.encode() for name in [names[0], names[3], names[7]]))
        monkeypatch.setattr(
            external_writer, "BLOCK", 32
        )  # names lie across the borders of what is read at once
        assert own_files(path) == {names[0], names[3], names[7]}
    path.write_bytes("".join(strange).encode())
    assert own_files(path) == set()
    (tmp_path / names[0]).unlink()
    path.write_bytes(names[0].encode())
    assert own_files(path) == set()  # it is not there


def test_nothing_stays_when_a_tensor_cannot_be_had(tmp_path: Path) -> None:
    def fail() -> ir.Tensor:
        raise RuntimeError("no tensor")

    lazy = ir.LazyTensor(fail, ir.DataType.FLOAT, ir.Shape([900]))
    model = model_of(random(900))
    model.graph.register_initializer(ir.Value(name="lazy", const_value=lazy))
    with pytest.raises(RuntimeError, match="no tensor"):
        moved_out(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
