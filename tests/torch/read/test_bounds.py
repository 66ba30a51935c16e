"""Files that ask for more memory or time than they are worth: refused at once, with what is wrong."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import ModelError, UnsafePickleError  # noqa: E402
from bnfold.torch.read.safety import sketch  # noqa: E402
from bnfold.torch.read.safety.bounds import check, check_depth  # noqa: E402
from bnfold.torch.read.safety.budget import ExcessiveError  # noqa: E402
from bnfold.torch.read.safety.emit import emit  # noqa: E402
from bnfold.torch.read.safety.plain import Array, DType  # noqa: E402

MIB = 1 << 20


class Called:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: object, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def layer(about: Any) -> nn.Module:
    made = nn.Conv2d(1, 2, 1)
    made.__dict__["about"] = about
    return made


def refused(tmp_path: Path, content: Any, kind: type[Exception] = UnsafePickleError) -> str:
    """Save and load: it must be refused within 5 s and 64 MiB."""
    torch.save(content, tmp_path / "m.pt")
    return refused_file(tmp_path / "m.pt", kind)


def refused_file(path: Path, kind: Any = (UnsafePickleError, ModelError)) -> str:
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(kind) as caught:
            bt.load(path)
        assert time.process_time() - begun < 5
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.fix
    return str(caught.value)


# calls that make much from little


@pytest.mark.parametrize(
    "call",
    [
        lambda: Called(nn.Linear, 1 << 30, 1 << 30),
        lambda: Called(nn.Conv2d, 1 << 20, 1 << 20, 99),
        lambda: Called(nn.LSTM, 8, 8, 1 << 20),
        lambda: Called(bytearray, 1 << 40),
        lambda: Called(bytes, 1 << 40),
        lambda: Called(list, range(1 << 40)),
        lambda: Called(set, range(1 << 40)),
        lambda: Called(np.ndarray, (1 << 40,)),
        lambda: Called(np.float64, 1.0),
        lambda: Called(collections.defaultdict, nn.Linear),
        lambda: Called(argparse.Namespace, 1),
        lambda: Called(torch.UntypedStorage, 1 << 40),
        lambda: Called(torch.FloatTensor, 1 << 40),
    ],
)
def test_calls_with_sizes_are_refused(tmp_path: Path, call: Callable[[], Any]) -> None:
    refused(tmp_path, layer(call()))


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 40,), (3, 1 << 28)])
def test_tensors_larger_than_their_numbers_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = nn.Conv2d(1, 2, 1)
    model.weight.data = torch.zeros(1).expand(shape)
    assert "more memory" in refused(tmp_path, model)


@pytest.mark.parametrize("sizes", [[(5,), (1,)], [(2, 2), (4, 1)], [(1,), (1 << 40,), 9]])
def test_tensors_beyond_their_storage_are_refused(tmp_path: Path, sizes: list[Any]) -> None:
    storage = torch.zeros(4)._typed_storage()
    offset = sizes[2] if len(sizes) > 2 else 0
    weight = Called(
        torch._utils._rebuild_tensor_v2,
        *(storage, offset, sizes[0], sizes[1], False, collections.OrderedDict()),
    )
    assert "a tensor of shape" in refused(tmp_path, {"weight": weight, "bias": torch.zeros(2)})


@pytest.mark.parametrize("factor", [2, 1 << 20, 1 << 40])
def test_storages_larger_than_their_records_are_refused(tmp_path: Path, factor: int) -> None:
    torch.save(nn.Linear(3, 16), tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", lambda data: swap_number(data, 48, 48 * factor))
    assert "bytes of numbers" in refused_file(tmp_path / "m.pt", UnsafePickleError)


# growth by naming the same thing again


@pytest.mark.parametrize(
    "make",
    [
        lambda text, count: [Called(bytearray, text) for _ in range(count)],
        lambda text, count: [Called(list, text) for _ in range(count)],
        lambda text, count: [np_array(text) for _ in range(count)],
        lambda text, count: [Called(pathlib.PurePosixPath, *one) for one in [(text.decode(), "a")] * count],
    ],
)
def test_copies_of_one_large_value_are_refused(tmp_path: Path, make: Callable[[bytes, int], Any]) -> None:
    assert "more memory" in refused(tmp_path, layer(make(b"a" * MIB, 1000)))


def np_array(content: bytes) -> Any:
    frombuffer = np.zeros((2, 2)).__reduce_ex__(5)[0]
    return Called(frombuffer, content, np.dtype("u1"), (len(content),), "C")


def test_text_that_is_named_often_is_written_once() -> None:
    text = "a" * MIB
    data = emit(sketch.read(io.BytesIO(pickle.dumps([text] * 1000, 2))).root)
    assert len(data) < 2 * MIB
    assert pickle.loads(data) == [text] * 1000


def test_paths_of_paths_are_refused(tmp_path: Path) -> None:
    path: Any = pathlib.PurePosixPath("a")
    for _ in range(40):
        path = Called(pathlib.PurePosixPath, path, path)
    assert "not made of text" in refused(tmp_path, layer(path))


def test_one_large_table_of_attributes_for_many_objects_is_refused(tmp_path: Path) -> None:
    state = {f"a{number}": number for number in range(20_000)}
    many = [Called(argparse.Namespace, state=state) for _ in range(1000)]
    assert "more memory" in refused(tmp_path, layer(many))


@pytest.mark.parametrize("levels", [10, 30, 60])
def test_keys_that_double_are_refused(levels: int) -> None:
    data = bytearray(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.EMPTY_TUPLE)
    for number in range(levels):
        data += pickle.BINPUT + bytes([number]) + pickle.BINGET + bytes([number]) + pickle.TUPLE2
    data += pickle.NONE + pickle.SETITEM + pickle.STOP
    root = sketch.read(io.BytesIO(bytes(data))).root
    with pytest.raises(ExcessiveError, match="a key"):
        check(sketch.reachable([root]), len(data), {}, set())


def test_keys_that_all_have_one_hash_are_refused(tmp_path: Path) -> None:
    table = {number * ((1 << 61) - 1): None for number in range(1, 50)}
    assert "19 digits" in refused(tmp_path, layer(table))


@pytest.mark.parametrize("layers", [20_000, 1 << 40])
def test_recurrent_layers_without_end_are_refused(tmp_path: Path, layers: int) -> None:
    model = nn.LSTM(2, 2)
    model.num_layers = layers
    assert "layers in a" in refused(tmp_path, model)


def test_an_attribute_under_a_name_that_only_equals_text_is_refused(tmp_path: Path) -> None:
    model = nn.LSTM(2, 2)
    del model.__dict__["num_layers"]
    model.__dict__[np.str_("num_layers")] = 1 << 40  # type: ignore[index]
    assert "not text" in refused(tmp_path, model)


# depth and cycles


@pytest.mark.parametrize("build", ["straight", "shared", "tuples"])
def test_what_is_nested_3000_deep_is_refused(build: str) -> None:
    node = sketch.Sequence("list")
    every = [node]
    for _ in range(3000):
        node = sketch.Sequence("tuple" if build == "tuples" else "list", [node])
        every.append(node)
    root = sketch.Sequence("list", every) if build == "shared" else node  # met first where it is not deep
    with pytest.raises(ExcessiveError, match="600 deep"):
        check_depth(root, sketch.children)


@pytest.mark.parametrize("shared", [False, True])
def test_modules_3000_deep_are_refused(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "m.pt"
    path_data, inner = [], nn.ReLU()
    for _ in range(150):  # saving recurses as well
        inner = nn.Sequential(inner)
        path_data.append(inner)
    torch.save(nn.Sequential(*path_data) if shared else inner, path)
    assert "deep" in refused_file(path)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_modules_that_contain_themselves_are_refused(tmp_path: Path, where: int) -> None:
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1))))
    part: Any = model
    for _ in range(where):
        part = part[0]
    part._modules["again"] = model
    assert "contains itself" in refused(tmp_path, model, ModelError)


def test_lists_that_contain_themselves_are_read(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    torch.save(layer(endless), tmp_path / "m.pt")
    about = bt.load(tmp_path / "m.pt").source.about
    assert about[0] is about


@pytest.mark.parametrize("depth", [22, 40, 100])
def test_modules_that_run_without_end_are_refused(tmp_path: Path, depth: int) -> None:
    model: nn.Module = nn.ReLU()
    for _ in range(depth):
        model = nn.Sequential(model, model)
    assert "million" in refused(tmp_path, model, ModelError).replace("1000000", "a million")


# parts of a wrong type


@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        ("_parameters", "weight", 3),
        ("_parameters", 7, torch.zeros(1)),
        ("_parameters", "weight", datetime.date(2024, 1, 1)),
        ("_buffers", "mean", [1, 2]),
        ("_modules", "inner", {"a": 1}),
        ("_modules", "inner", torch.zeros(2)),
    ],
)
def test_parts_of_a_wrong_type_are_named(tmp_path: Path, holder: str, name: Any, value: Any) -> None:
    model = nn.Conv2d(1, 1, 1)
    model.__dict__[holder][name] = value
    assert str(name) in refused(tmp_path, model, ModelError)


@pytest.mark.parametrize("value", [None, 3, [1]])
@pytest.mark.parametrize("holder", ["_parameters", "_buffers", "_modules"])
def test_missing_tables_are_named(tmp_path: Path, holder: str, value: Any) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    model[0].__dict__[holder] = value
    assert "0" in refused(tmp_path, model, ModelError)


def test_a_namespace_that_looks_like_a_module_is_not_one(tmp_path: Path) -> None:
    fake = argparse.Namespace(_modules={}, _parameters={}, training=False)
    assert "Namespace" in refused(tmp_path, fake, ModelError)


# lengths, archives, NumPy


def _lengths() -> Iterator[bytes]:
    huge = (1 << 63) - 1
    for code, form in (
        (pickle.BINUNICODE8, "<Q"),
        (pickle.BINBYTES8, "<Q"),
        (pickle.BYTEARRAY8, "<Q"),
        (pickle.BINUNICODE, "<I"),
        (pickle.BINBYTES, "<I"),
        (pickle.LONG4, "<i"),
        (pickle.FRAME, "<Q"),
    ):
        yield code + struct.pack(form, min(huge, (1 << (31 if form != "<Q" else 63)) - 1)) + b"ab"


@pytest.mark.parametrize("code", list(_lengths()), ids=lambda code: code[:1].hex())
def test_lengths_beyond_the_end_are_refused(tmp_path: Path, code: bytes) -> None:
    torch.save(nn.ReLU(), tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", lambda _: pickle.PROTO + b"\x04" + code)
    refused_file(tmp_path / "m.pt")


@pytest.mark.parametrize("first", ["a/xdata.pkl", "b/data.pkl", "data.pkl"])
def test_what_is_checked_is_what_torch_reads(tmp_path: Path, first: str) -> None:
    torch.save(nn.ReLU(), tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as old:
        good = next(old.read(name) for name in old.namelist() if name.endswith("/data.pkl"))
    evil = pickle.dumps(Called(print, "it ran"), 2)
    with zipfile.ZipFile(tmp_path / "n.pt", "w") as new:
        new.writestr(first, good)
        for name, data in (("a/data.pkl", evil), ("a/version", b"3"), ("a/byteorder", b"little")):
            new.writestr(name, data)
    refused_file(tmp_path / "n.pt")


@pytest.mark.parametrize(
    ("code", "shape", "content"),
    [("u1", (1 << 40,), b"ab"), ("f8", (2,), b"12345678"), ("u1", (-1, -2), b"ab"), ("u1", (2.0,), b"ab")],
)
def test_arrays_must_fit_their_bytes(code: str, shape: Any, content: bytes) -> None:
    with pytest.raises(ValueError, match="a NumPy array"):
        Array((0,), "b").__setstate__((1, shape, DType(code), False, content))


@pytest.mark.parametrize("code", ["O", "O8", "S0", "V8", "i4,f8", "(1000000,1000)f8", "U0", 5, None])
def test_types_with_objects_or_without_a_size_are_refused(code: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        DType(code)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as old:
        held = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in held.items():
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)


def swap_number(data: bytes, old: int, new: int) -> bytes:
    encoded = pickle.encode_long(new)
    count = data.count(pickle.BININT1 + bytes([old]) + b"t")
    assert count == 1
    wanted = pickle.LONG1 + bytes([len(encoded)]) + encoded + b"t"
    return data.replace(pickle.BININT1 + bytes([old]) + b"t", wanted)
