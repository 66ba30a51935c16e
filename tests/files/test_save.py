"""Writing ONNX files: whole or not at all, also when killed."""

from __future__ import annotations

import errno
import functools
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.errors import ModelError, SaveError
from bnfold.files import atomic, save
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
from bnfold.tensors.block_tensor import BlockTensor
from tests.files.forks import Forks
from tests.files.models import SIZE, add_model, weight_of
from tests.pairwise import pairwise


class Turning(BlockTensor):
    """Does something after its first block."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__(ir.DataType.FLOAT, (SIZE, SIZE))
        self.then = then

    def blocks(self) -> Iterator[bytes]:
        yield bytes(SIZE * SIZE * 2)
        self.then()
        yield bytes(SIZE * SIZE * 2)


def fail() -> None:
    raise RuntimeError("cannot be computed")


@pytest.mark.parametrize("as_external", [False, True])
def test_save_over_its_own_lazily_read_source(external, as_external):
    for _ in range(2):  # the second time over what bnfold itself has written
        model = load_onnx(external)
        save_onnx(model, external, external_data=as_external)
        weight = model.graph.initializers["w"].const_value
        assert weight is not None
        np.testing.assert_array_equal(weight.numpy(), np.ones((SIZE, SIZE), np.float32))
        np.testing.assert_array_equal(weight_of(external), np.ones((SIZE, SIZE), np.float32))
    assert (external.parent / "weights.bin").exists()  # someone else's: never removed
    onnx.checker.check_model(external, full_check=True)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("as_external", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_not_changed_by_a_save(external, tmp_path, exclusive, as_external, fails) -> None:
    for model in (load_onnx(external), ir.from_proto(add_model()), ir.load(external)):
        weight = model.graph.initializers["w"]
        if fails:
            weight.const_value = Turning(fail)
        node = next(iter(model.graph))
        before = weight.const_value, weight.shape, node.attributes["value"].as_tensor()
        save = functools.partial(save_onnx, external_data=as_external, exclusive=exclusive)
        if fails:
            with pytest.raises(RuntimeError, match="cannot be computed"):
                save(model, tmp_path / "out.onnx")
        else:
            save(model, tmp_path / "out.onnx")
            np.testing.assert_array_equal(weight_of(tmp_path / "out.onnx"), weight_of(external))
        after = weight.const_value, weight.shape, node.attributes["value"].as_tensor()
        assert all(one is two for one, two in zip(before, after, strict=True))


@pytest.mark.parametrize("as_external", [False, True])
def test_exclusive_or_not_the_bytes_are_the_same(tmp_path: Path, as_external: bool) -> None:
    written = []
    for exclusive in (False, True, False):
        save_onnx(
            ir.from_proto(add_model()),
            tmp_path / "m.onnx",
            external_data=as_external,
            exclusive=exclusive,
        )
        written.append({file.name: file.read_bytes() for file in tmp_path.iterdir()})
    assert written[0] == written[1] == written[2]


def test_external_data_round_trip_and_cleaning(tmp_path):
    path = tmp_path / "m.onnx"
    for scale in (1.0, 3.0):
        save_onnx(ir.from_proto(add_model(scale)), path, external_data=True)
        data = [file for file in tmp_path.iterdir() if file.suffix == ".data"]
        assert len(data) == 1  # the former one is gone
        np.testing.assert_array_equal(weight_of(path), np.full((SIZE, SIZE), scale, np.float32))
        np.testing.assert_array_equal(
            load_onnx(path).graph.initializers["w"].const_value.numpy(), weight_of(path)
        )
    save_onnx(ir.from_proto(add_model()), path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_own_data_of_initializers_in_a_branch_only(tmp_path: Path) -> None:
    """The model on disk needs its data file, though none of its main graph's initializers is in there."""
    path = tmp_path / "m.onnx"
    inner = add_model().graph
    weight, name = inner.initializer[0], inner.output[0].name
    del inner.input[:]
    inner.node[1].input[0] = "w"
    branches = {"then_branch": inner, "else_branch": inner}
    graph = helper.make_graph(
        [helper.make_node("If", ["cond"], ["Y"], **branches)],
        "outer",
        [helper.make_tensor_value_info("cond", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [SIZE, SIZE])],
    )
    assert name == "Y"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for scale in (1.0, 2.0):
        for branch in proto.graph.node[0].attribute:
            branch.g.initializer[0].raw_data = np.full((SIZE, SIZE), scale, np.float32).tobytes()
        save_onnx(ir.from_proto(proto), path, external_data=True)
        assert sorted(file.suffix for file in tmp_path.iterdir()) == [".data", ".onnx"]
        for attribute in onnx.load(path).graph.node[0].attribute:
            read = numpy_helper.to_array(attribute.g.initializer[0])
            np.testing.assert_array_equal(read, np.full((SIZE, SIZE), scale, np.float32))
    assert weight.name == "w"


def test_external_data_only_near_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "PROTOBUF_LIMIT", save._HEADROOM + SIZE * SIZE * 8)
    save_onnx(ir.from_proto(add_model()), tmp_path / "fits.onnx")
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(save, "PROTOBUF_LIMIT", save._HEADROOM + SIZE * SIZE * 8 - 1)
    save_onnx(ir.from_proto(add_model()), tmp_path / "large.onnx")
    assert len(list(tmp_path.iterdir())) == 3


def test_same_model_same_bytes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        model = add_model()
        for key in ("z", "a", "m"):
            model.metadata_props.add(key=key, value=key)
        save_onnx(ir.from_proto(model), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_permissions_and_links_survive(tmp_path):
    real, link = tmp_path / "real.onnx", tmp_path / "link.onnx"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    save_onnx(ir.from_proto(add_model()), link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert load_onnx(real).graph.name == "g"


@pytest.mark.parametrize("where", ["absent/m.onnx", "."])
def test_no_such_place(tmp_path, where):
    with pytest.raises(SaveError) as caught:
        save_onnx(ir.from_proto(add_model()), tmp_path / where)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("code", "fix"), [(errno.ENOSPC, "space"), (errno.EACCES, "may write"), (errno.EROFS, "may write")]
)
@pytest.mark.parametrize("as_external", [False, True])
def test_what_the_system_refuses(tmp_path, monkeypatch, code, fix, as_external):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(SaveError, match=fix):
        save_onnx(ir.from_proto(add_model()), path, external_data=as_external)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("as_external", [False, True])
def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch, as_external):
    path = tmp_path / "m.onnx"
    save_onnx(ir.from_proto(add_model(1.0)), path, external_data=as_external)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    real, calls = os.fsync, []

    def interrupt(handle: int) -> None:
        calls.append(handle)
        if len(calls) == (3 if as_external else 1):  # data, its folder, then the model
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_onnx(ir.from_proto(add_model(2.0)), path, external_data=as_external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    if not hasattr(os, "fork"):
        pytest.skip("the system has no forks")
    with Forks() as started:
        yield started


@pytest.mark.parametrize("as_external", [False, True])
@pytest.mark.parametrize("old", [None, False, True])
def test_killed_at_every_step(tmp_path, forks, old, as_external) -> None:
    """Where there is no old model yet, and where there is one, without and with external data."""
    source, target = tmp_path / "new.onnx", tmp_path / "out" / "m.onnx"
    save_onnx(ir.from_proto(add_model(2.0)), source)
    target.parent.mkdir()
    for step in range(1, 30):
        for file in target.parent.iterdir():
            file.unlink()
        if old is not None:
            save_onnx(ir.from_proto(add_model(1.0)), target, external_data=old)
        code, _ = forks.run("killed_at", source, target, step, as_external)
        if target.exists():
            value = weight_of(target)
            assert (value == 2.0).all() or (old is not None and (value == 1.0).all())
        else:
            assert old is None
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert step > 3
    assert (weight_of(target) == 2.0).all()
    assert len(list(target.parent.iterdir())) == 1 + as_external


@pytest.mark.parametrize("as_external", [False, True])
def test_killed_at_random_moments(tmp_path, forks, as_external) -> None:
    size = 1500  # 18 MB: writing takes longer than the scheduler's grain
    target = tmp_path / "out" / "m.onnx"
    target.parent.mkdir()
    sources = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for scale, source in enumerate(sources, start=1):
        save_onnx(ir.from_proto(add_model(float(scale), size)), source)
    save_onnx(load_onnx(sources[0]), target, external_data=as_external)
    draw = random.Random(0)
    for _ in range(12):
        code, _ = forks.run("killed_after", target, *sources, as_external, draw.random() * 0.1)
        assert code == 0
        value = weight_of(target)
        assert value.shape == (size, size)
        assert (value == value[0, 0]).all()


def test_the_bytes_are_those_that_protobuf_writes(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    path.write_bytes(add_model(size=700).SerializeToString())
    for model in (load_onnx(path), ir.from_proto(add_model(size=700))):
        expected = ir.to_proto(model.clone()).SerializeToString(deterministic=True)
        save_onnx(model, out)
        assert out.read_bytes() == expected


def test_more_than_one_file_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "PROTOBUF_LIMIT", 20_000)
    with pytest.raises(SaveError, match="external_data"):
        save_onnx(ir.from_proto(add_model()), tmp_path / "m.onnx", external_data=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("as_external", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_a_block_that_cannot_be_computed(tmp_path: Path, as_external: bool, old: bool) -> None:
    path = tmp_path / "m.onnx"
    if old:
        save_onnx(ir.from_proto(add_model()), path, external_data=as_external)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    model = ir.from_proto(add_model(2.0))
    model.graph.initializers["w"].const_value = Turning(fail)
    with pytest.raises(RuntimeError, match="cannot be computed"):
        save_onnx(model, path, external_data=as_external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(-9, os.SEEK_END)
        stream.write(b"other")
    os.utime(path, ns=(1, 1))  # however coarse the clock of the file system is


def remove_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pairwise(change=[grow, overwrite, remove_half], as_external=[False, True], apart=[False, True])
def test_a_source_that_is_written_to_meanwhile(external, tmp_path, change, as_external, apart) -> None:
    source = external.parent / "weights.bin"
    if not apart:
        source = tmp_path / "single.onnx"
        source.write_bytes(add_model().SerializeToString())
    model = load_onnx(external if apart else source)
    value = model.graph.initializers["w"]
    weight, value.const_value = value.const_value, Turning(lambda: change(source))
    model.graph.register_initializer(ir.Value(name="last", const_value=weight))
    target = tmp_path / "out" / "m.onnx"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(ModelError, match="written to"):
        save_onnx(model, target, external_data=as_external)
    assert target.read_bytes() == b"old"
    assert len(list(target.parent.iterdir())) == 1


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.with_name("other").replace(path)])
def test_a_source_that_is_deleted_or_replaced_meanwhile_stays_readable(external, change) -> None:
    data = external.parent / "weights.bin"
    data.with_name("other").write_bytes(bytes(data.stat().st_size))
    model = load_onnx(external)
    former = weight_of(external)
    value = model.graph.initializers["w"]
    weight, value.const_value = value.const_value, Turning(lambda: change(data))
    model.graph.register_initializer(ir.Value(name="last", const_value=weight))
    target = external.with_name("out.onnx")
    save_onnx(model, target)
    read = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer}
    np.testing.assert_array_equal(read["last"], former)


@pytest.mark.parametrize("as_external", [False, True])
@pytest.mark.parametrize("limit", [100, 5000, 20_000, 32_700])
def test_a_disk_that_takes_no_more(tmp_path: Path, forks: Forks, as_external: bool, limit: int) -> None:
    """Really no more: beyond a limit on the size of files the system answers as a full disk does."""
    path, source = tmp_path / "m.onnx", tmp_path / "source.onnx"
    source.write_bytes(add_model().SerializeToString())
    path.write_bytes(b"old")
    code, error = forks.run("limited", source, path, as_external, limit // 2 if as_external else limit)
    assert code == 0
    assert "could not be saved" in error
    assert "Free some space" in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "source.onnx"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("as_external", [False, True])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, forks: Forks, as_external: bool) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(add_model(size=2900).SerializeToString())
    assert source.stat().st_size > 60_000_000
    code, bytes_more = forks.run("grown", source, tmp_path / "m.onnx", as_external)
    assert code == 0
    assert bytes_more < 10_000_000


def test_data_that_another_model_needs_is_left(tmp_path: Path) -> None:
    """A copy of a model refers to the data of the first, and may be what is being folded."""
    first, copy = tmp_path / "first.onnx", tmp_path / "copy.model"
    save_onnx(ir.from_proto(add_model(1.0)), first, external_data=True)
    copy.write_bytes(first.read_bytes())
    for scale in (2.0, 3.0):
        save_onnx(ir.from_proto(add_model(scale)), first, external_data=True)
        np.testing.assert_array_equal(weight_of(copy), np.ones((SIZE, SIZE), np.float32))
        assert len(list(tmp_path.glob("*.data"))) == 2  # the copy's and the first's own
    refused = onnx.load(copy, load_external_data=False)
    refused.training_info.add()
    copy.write_bytes(refused.SerializeToString())
    save_onnx(ir.from_proto(add_model(1.5)), first, external_data=True)
    np.testing.assert_array_equal(weight_of(copy), np.ones((SIZE, SIZE), np.float32))
    copy.unlink()
    save_onnx(ir.from_proto(add_model(3.0)), first, external_data=True)
    np.testing.assert_array_equal(weight_of(first), np.full((SIZE, SIZE), 3.0, np.float32))


@pytest.mark.parametrize("name", ["日" * 76 + ".onnx", "é" * 110 + ".onnx", "n" * 228 + ".onnx"])
def test_names_may_be_long(tmp_path: Path, name: str) -> None:
    for as_external in (False, len(os.fsencode(name)) < 230):
        save_onnx(ir.from_proto(add_model()), tmp_path / name, external_data=as_external)
        np.testing.assert_array_equal(weight_of(tmp_path / name), np.ones((SIZE, SIZE), np.float32))


@pytest.mark.parametrize(("length", "as_external"), [(300, False), (245, True)])
def test_names_that_are_too_long_are_said_to_be(tmp_path: Path, length: int, as_external: bool) -> None:
    with pytest.raises(SaveError, match="too long") as caught:
        save_onnx(ir.from_proto(add_model()), tmp_path / ("n" * length), external_data=as_external)
    assert "a shorter name" in caught.value.fix
    assert not list(tmp_path.iterdir())
