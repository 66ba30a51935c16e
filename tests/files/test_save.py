"""Writing ONNX files: whole or not at all, also when killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import SaveError
from bnfold.files import atomic, save
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
from tests.files.models import SIZE, add_model, weight_of


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


def test_the_model_is_not_changed_by_a_save(external, tmp_path):
    model = load_onnx(external)
    before = model.graph.initializers["w"].const_value
    save_onnx(model, tmp_path / "out.onnx", external_data=True)
    assert model.graph.initializers["w"].const_value is before


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


KILLED_AT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import onnx_ir as ir
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
model, target, nth, as_external = load_onnx(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5] == "True"
count = 0
def deadly(function, after):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if count == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
os.fsync = deadly(os.fsync, True)
Path.replace = deadly(Path.replace, False)
Path.unlink = deadly(Path.unlink, False)
save_onnx(model, target, external_data=as_external)
print("done")
"""
ROOT = str(Path(__file__).parents[1])


@pytest.mark.parametrize("as_external", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_killed_at_every_step(tmp_path, old, as_external):
    source, target = tmp_path / "new.onnx", tmp_path / "out" / "m.onnx"
    save_onnx(ir.from_proto(add_model(2.0)), source)
    target.parent.mkdir()
    finished = False
    for nth in range(1, 30):
        for file in target.parent.iterdir():
            file.unlink()
        if old:
            save_onnx(ir.from_proto(add_model(1.0)), target, external_data=as_external)
        command = [sys.executable, "-c", KILLED_AT, ROOT, source, target, str(nth), str(as_external)]
        run = subprocess.run(command, capture_output=True, check=False)
        if target.exists():
            value = weight_of(target)
            assert (value == 2.0).all() or (old and (value == 1.0).all())
        else:
            assert not old
        finished = run.returncode == 0
        if finished:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
    assert finished
    assert nth > 3
    assert (weight_of(target) == 2.0).all()


ALTERNATE = """
import sys
sys.path.insert(0, sys.argv[1])
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
models = [load_onnx(path) for path in sys.argv[3:5]]
print("ready", flush=True)
while True:
    for model in models:
        save_onnx(model, sys.argv[2], external_data=sys.argv[5] == "True")
"""


@pytest.mark.parametrize("as_external", [False, True])
def test_killed_at_random_moments(tmp_path, as_external):
    size = 1500  # 18 MB: writing takes longer than the scheduler's grain
    target = tmp_path / "out" / "m.onnx"
    target.parent.mkdir()
    sources = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for scale, source in enumerate(sources, start=1):
        save_onnx(ir.from_proto(add_model(float(scale), size)), source)
    save_onnx(load_onnx(sources[0]), target, external_data=as_external)
    draw = random.Random(0)
    for _ in range(6):
        command = [sys.executable, "-c", ALTERNATE, ROOT, target, *sources, str(as_external)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(draw.random() * 0.3)
            process.kill()
        value = weight_of(target)
        assert value.shape == (size, size)
        assert (value == value[0, 0]).all()
