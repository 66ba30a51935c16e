"""Files by PyTorch: what is read, what is refused, and that nothing in them ever runs."""

from __future__ import annotations

import contextlib
import enum
import io
import json
import os
import pickle
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import bnfold.torch as bt  # noqa: E402
from bnfold.errors import BnfoldError, InputError, ModelError, UnsafePickleError  # noqa: E402
from bnfold.torch.read.safety import pickles, pt2  # noqa: E402


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        small().eval(), (torch.randn(2, 3, 8, 8),), dynamic_shapes={"input": {0: batch}}
    )
    torch.export.save(program, path)
    return path


class Evil:
    """Pickles to a call of `function` on `arguments`."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(path: Path, kind: type[BnfoldError] = ModelError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        bt.load(path, **options)
    error = caught.value
    assert error.exit_code == 2
    assert error.fix
    assert "\n" not in error.problem + error.fix
    return str(error)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2", ".onnx", ""])
def test_a_module_whatever_its_suffix(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    module = small().eval()
    torch.save(module, path)
    loaded = bt.load(path)
    assert (loaded.kind, loaded.was_training) == ("module", False)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded.source(x), module(x))


def test_train_mode_is_told_even_of_one_part(tmp_path):
    module = small().eval()
    module[1].train()
    torch.save(module, tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert loaded.was_training
    assert [part.training for part in loaded.source] == [False, True, False, False, False]


def test_layers_that_keep_functions_and_other_containers(tmp_path):
    module = nn.ModuleDict({"t": nn.TransformerEncoderLayer(8, 2, 16), "g": nn.GRU(3, 4), "p": nn.PReLU(4)})
    torch.save(module, tmp_path / "m.pt")
    assert len(list(bt.load(tmp_path / "m.pt").source.modules())) == len(list(module.modules()))


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_a_program_whatever_its_suffix(program_file, tmp_path, suffix, caplog):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(program_file.read_bytes())
    loaded = bt.load(path)
    assert (loaded.kind, loaded.was_training) == ("exported program", False)
    assert not caplog.records


# what is not a whole model


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"hello, world\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x08\x08:\x10abc", "ONNX"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
        (bytes(range(255, 0, -1)), "unknown kind"),
        (b"PK\x03\x04" + bytes(100), "truncated"),
        (bytes(257) + b"ustar" + bytes(300), "tar"),
        ((12).to_bytes(8, "little") + b'{"a":[0, 0]}', "damaged"),  # safetensors
    ],
)
def test_not_a_pytorch_file(tmp_path, content, expected):
    (tmp_path / "m.pt").write_bytes(content)
    assert expected in refused(tmp_path / "m.pt")


def test_not_a_file(tmp_path):
    assert "not there" in refused(tmp_path / "m.pt")
    assert "a folder" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["module", "program"])
def test_truncated_anywhere(tmp_path, program_file, kind):
    path = tmp_path / "m.pt"
    if kind == "module":
        torch.save(small(), path)
    else:
        path.write_bytes(program_file.read_bytes())
    data = path.read_bytes()
    for length in range(4, len(data), len(data) // 23):
        path.write_bytes(data[:length])
        assert "truncated" in refused(path)


def test_flipped_bytes_never_escape_as_another_exception(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(small(), path)
    data = path.read_bytes()
    begin = data.index(b"\x80\x02ctorch")
    for position in range(begin, begin + 1500, 29):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        with contextlib.suppress(ModelError):  # some flips, as in a name, do no harm
            bt.load(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_ask_for_their_network(tmp_path, zipped):
    path = tmp_path / "m.pt"
    for content in (small().state_dict(), {"epoch": 3, "model": small().state_dict()}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        text = refused(path, InputError)
        assert "9 tensors (0.weight, 0.bias, 1.weight, ...)" in text
        assert "--arch package.module:factory" in text


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"epoch": 3}, {}, None])
def test_something_else(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    text = refused(tmp_path / "m.pt")
    assert f"holds a {type(content).__name__}" in text or "a dictionary without weights" in text


def test_a_module_in_the_old_format(tmp_path):
    module = small().eval()
    torch.save(
        {"net": module, "best": np.float64(1)}, tmp_path / "m.pt", _use_new_zipfile_serialization=False
    )
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(bt.load(tmp_path / "m.pt").source(x), module(x))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_newer_pickle_protocol(tmp_path, protocol):
    module = small().eval()
    torch.save(module, tmp_path / "m.pt", pickle_protocol=protocol)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(bt.load(tmp_path / "m.pt").source(x), module(x))


def test_a_plain_pickle(tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps(small(), protocol=2))
    assert "plain pickle" in refused(tmp_path / "m.pt") or "--allow" in refused(tmp_path / "m.pt")


# malicious pickles


def calls(target: Path) -> list[tuple[str, Callable[..., Any], tuple[object, ...]]]:
    code = f"open({str(target)!r}, 'w').close()"
    return [
        ("posix.system", os.system, (f"touch {target}",)),
        ("builtins.exec", exec, (code,)),
        ("builtins.eval", eval, (code,)),
        ("io.open", open, (str(target), "w")),
        ("builtins.__import__", __import__, ("antigravity",)),
        ("builtins.getattr", getattr, ("", "join")),
        ("subprocess.Popen", __import__("subprocess").Popen, (["touch", str(target)],)),
        ("shutil.copy", __import__("shutil").copy, (__file__, str(target))),
    ]


NAMES = [name for name, *_ in calls(Path("x"))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "form", ["zip", "legacy", "raw", "zip protocol 4", "raw protocol 4", "inside a module"]
)
def test_malicious_pickles_write_nothing(tmp_path, name, form):
    target, path = tmp_path / "written", tmp_path / "m.pt"
    function, arguments = next((f, a) for n, f, a in calls(target) if n == name)
    evil: Any = Evil(function, *arguments)
    if form == "inside a module":
        module = small()
        module.extra = evil
        torch.save(module, path)
    elif form.startswith("raw"):
        path.write_bytes(pickle.dumps(evil, protocol=4 if "4" in form else 2))
    else:
        protocol = 4 if "4" in form else 2
        torch.save(
            evil, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form.startswith("zip")
        )
    text = refused(path, UnsafePickleError)
    assert name in text
    assert "no model needs" in text
    assert "--allow" not in text
    assert not target.exists()


def test_nothing_that_runs_code_can_be_allowed(tmp_path):
    torch.save(small(), tmp_path / "m.pt")
    for name in (*NAMES, "os.system", "torch.fx.graph_module.GraphModule", "runpy.run_path", "nt.system"):
        assert "cannot be allowed" in refused(tmp_path / "m.pt", UnsafePickleError, allow=[name])
    for name in ("torch.load", "torch.hub.load", "torch.nn.functional.pad", "numpy.load"):
        assert "is a function" in refused(tmp_path / "m.pt", UnsafePickleError, allow=[name])
    for name in ("torch.nn", "Class", "", "absent_package.Class", "torch.nn.Absent", "a b.c"):
        refused(tmp_path / "m.pt", UnsafePickleError, allow=[name])


def test_an_alias_is_no_way_around(tmp_path, monkeypatch):
    (tmp_path / "aliases_for_test.py").write_text("from subprocess import Popen as Harmless\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(small(), tmp_path / "m.pt")
    assert "subprocess.Popen" in refused(
        tmp_path / "m.pt", UnsafePickleError, allow=["aliases_for_test.Harmless"]
    )


OWN = """
    import dataclasses, enum
    from torch import nn
    open({marker!r}, "a").close()

    class Mode(enum.Enum):
        FAST = 1

    @dataclasses.dataclass
    class Config:
        width: int = 4

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.config, self.mode, self.body = Config(), Mode.FAST, nn.Conv2d(3, 4, 3)
        def forward(self, x):
            return self.body(x)
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A saved model of classes in the user's own module, which is no longer imported."""
    marker = tmp_path / "imported"
    (tmp_path / "own_models.py").write_text(textwrap.dedent(OWN.format(marker=str(marker))))
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__("own_models")
    torch.save(own.Net().eval(), tmp_path / "m.pt")
    marker.unlink()
    del sys.modules["own_models"]
    yield tmp_path / "m.pt", marker
    sys.modules.pop("own_models", None)


def test_own_classes_are_listed_then_allowed(own_model):
    path, marker = own_model
    text = refused(path, UnsafePickleError)
    names = ["own_models.Net", "own_models.Config", "own_models.Mode"]
    assert all(f"--allow {name}" in text for name in names)
    assert not marker.exists()  # listing them did not import them
    text = refused(path, UnsafePickleError, allow=names[:1])
    assert "--allow own_models.Net" not in text
    assert "--allow own_models.Config" in text
    loaded = bt.load(path, allow=names)
    assert type(loaded.source).__name__ == "Net"
    assert marker.exists()
    assert loaded.source.config.width == 4
    assert isinstance(loaded.source.mode, enum.Enum)


def test_what_was_allowed_once_is_not_allowed_again(own_model):
    path, _ = own_model
    before = torch.serialization.get_safe_globals()
    bt.load(path, allow=["own_models.Net", "own_models.Config", "own_models.Mode"])
    assert set(torch.serialization.get_safe_globals()) == set(before)
    refused(path, UnsafePickleError)


def test_what_the_caller_registered_stays(tmp_path):
    torch.save(small(), tmp_path / "m.pt")
    entry = (nn.Conv2d, "torch.nn.modules.conv.Conv2d")
    with torch.serialization.safe_globals([entry]):
        bt.load(tmp_path / "m.pt")
        assert entry in torch.serialization.get_safe_globals()


def test_a_class_of_the_script_itself(tmp_path):
    class Net(nn.Module):
        pass

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    module = sys.modules["__main__"]
    module.Net = Net  # type: ignore[attr-defined]
    try:
        torch.save(Net(), tmp_path / "m.pt")
    finally:
        del module.Net  # type: ignore[attr-defined]
    text = refused(tmp_path / "m.pt", UnsafePickleError)
    assert "torch.export.save" in text
    assert "--allow" not in text
    refused(tmp_path / "m.pt", UnsafePickleError, allow=["__main__.Net"])


def test_python_2_names_are_seen_through():
    assert pickles.names_in(io.BytesIO(b"\x80\x02c__builtin__\neval\n.")) == ["builtins.eval"]


# trust, and what is known against torch


def test_trust_runs_what_the_file_says(tmp_path):
    """The counterpart of the refusals: the same file does what it is refused for."""
    target = tmp_path / "written"
    torch.save(Evil(os.mkdir, str(target)), tmp_path / "m.pt")
    refused(tmp_path / "m.pt", UnsafePickleError)
    assert not target.exists()
    with pytest.raises(ModelError, match="not a model"):
        bt.load(tmp_path / "m.pt", trust=True)
    assert target.is_dir()


@pytest.mark.parametrize("form", ["zip", "before 1.6", "plain"])
def test_trust_reads_what_is_not_read_otherwise(own_model, form):
    path, _ = own_model
    allowed = ["own_models.Net", "own_models.Config", "own_models.Mode"]
    network = bt.load(path, allow=allowed).source
    if form == "plain":
        path.write_bytes(pickle.dumps(network))
    else:
        torch.save(network, path, _use_new_zipfile_serialization=form == "zip")
    loaded = bt.load(path, trust=True)
    assert type(loaded.source).__name__ == "Net"
    assert "could run any code" in loaded.notes[0]


def test_a_known_weakness_of_torch_is_noted(tmp_path, monkeypatch, program_file):
    torch.save(small(), tmp_path / "m.pt")
    assert bt.load(tmp_path / "m.pt").notes == ()
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    (note,) = bt.load(tmp_path / "m.pt").notes
    assert "CVE-2026-24747" in note
    assert "pip install" in note
    assert any("CVE-2026-4538" in note for note in bt.load(program_file).notes)


def test_a_number_of_numpys_in_a_checkpoint_needs_no_permission(tmp_path):
    torch.save({"best": np.float64(0.5), "model": small()}, tmp_path / "m.pt")
    loaded = bt.load(tmp_path / "m.pt")
    assert loaded.notes == ("It was found under the key model.",)
    allow = ["numpy._core.multiarray.scalar", "numpy.dtype"]  # as older versions of bnfold asked for
    assert bt.load(tmp_path / "m.pt", allow=allow).kind == "module"


# archives


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **extra: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in extra.items():
            new.writestr(f"{root}/{name}", data)


def same(_: str, data: bytes) -> bytes:
    return data


def test_a_zip_bomb(tmp_path):
    torch.save(small(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/99", bytes(10**7))
    assert (tmp_path / "a.pt").stat().st_size < 10**6
    assert "bomb" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/etc/escape", "a\\..\\..\\x", "C:/x"])
def test_an_escaping_entry(tmp_path, name):
    torch.save(small(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr(name, b"x")
    assert "leads out" in refused(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    torch.save(small(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/data.pkl", b"x")
    assert "one name" in refused(tmp_path / "a.pt")


def test_some_other_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", b"x")
    assert "not one of PyTorch's" in refused(tmp_path / "a.pt")


def evil_bytes(target: Path, wrap: Callable[[Any], bytes]) -> bytes:
    return wrap(Evil(os.system, f"touch {target}"))


def saved(obj: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def test_a_rewritten_program_still_loads(tmp_path, program_file):
    """The refusals below are for what was changed, not for having been rewritten."""
    rewrite(program_file, tmp_path / "m.pt2", same)
    assert bt.load(tmp_path / "m.pt2").kind == "exported program"


def test_sample_inputs_that_would_run_code(tmp_path, program_file):
    target = tmp_path / "written"
    data = evil_bytes(target, saved)
    rewrite(program_file, tmp_path / "m.pt2", lambda n, d: data if n.startswith("data/sample_inputs/") else d)
    refused(tmp_path / "m.pt2", UnsafePickleError)
    assert not target.exists()


@pytest.mark.parametrize(
    "content", [torch.zeros(1).expand(1 << 40), [bytearray(3), Evil(bytearray, 1 << 40)], Evil(set, range(9))]
)
def test_sample_inputs_that_ask_for_much(tmp_path, program_file, content):
    data = saved(content)
    rewrite(program_file, tmp_path / "m.pt2", lambda n, d: data if n.startswith("data/sample_inputs/") else d)
    refused(tmp_path / "m.pt2", UnsafePickleError)


def test_weights_that_are_a_pickle(tmp_path, program_file):
    target = tmp_path / "written"

    def change(name: str, data: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return evil_bytes(target, pickle.dumps)
        return data.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in name else data

    rewrite(program_file, tmp_path / "m.pt2", change)
    assert "stored as a pickle" in refused(tmp_path / "m.pt2", UnsafePickleError)
    assert not target.exists()


@pytest.mark.parametrize(
    "name", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/aotinductor/model/x.so"]
)
def test_objects_and_libraries_in_a_program(tmp_path, program_file, name):
    target = tmp_path / "written"
    rewrite(program_file, tmp_path / "m.pt2", same, **{name: evil_bytes(target, pickle.dumps)})
    assert name in refused(tmp_path / "m.pt2", UnsafePickleError)
    assert not target.exists()


def edit_graph(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    def change(name: str, data: bytes) -> bytes:
        if name != "models/model.json":
            return data
        document = json.loads(data)
        edit(document)
        return json.dumps(document).encode()

    rewrite(source, target, change)


def put(key: str, value: str) -> Callable[[dict[str, Any]], None]:
    """Replace the first string under `key`, wherever it is in the document."""

    def edit(document: dict[str, Any]) -> None:
        pending: list[Any] = [document]
        while pending:
            node = pending.pop(0)
            if isinstance(node, dict):
                if isinstance(node.get(key), str) and node[key]:
                    node[key] = value
                    return
                pending += node.values()
            elif isinstance(node, list):
                pending += node
        raise AssertionError(key)

    return edit


MARK = "__import__('pathlib').Path('MARKER').touch()"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (put("expr_str", MARK), "more than arithmetic"),
        (put("expr_str", f'''Integer("{MARK}")'''), "more than arithmetic"),
        (put("expr_str", "(lambda: 1)()"), "more than arithmetic"),
        (put("expr_str", "Symbol.__class__"), "more than arithmetic"),
        (put("target", "torch.os.system"), "a call of torch.os.system"),
        (put("target", "torch.ops.aten.from_file.default"), "a call of"),
        (put("target", "_operator.methodcaller"), "a call of"),
        (put("name", f"x={MARK}"), "a value named"),
        (put("parameter_name", f"a'+{MARK}+'"), "a parameter named"),
        (
            put("in_spec", json.dumps([1, {"type": "x", "context": '{"__enum__": true, "fqn": "os:x"}'}])),
            "imports",
        ),
        (lambda d: d["guards_code"].append(MARK), "more than arithmetic"),
    ],
)
def test_a_graph_that_would_run_code(tmp_path, program_file, edit, expected):
    target = tmp_path / "written"

    def marked(document: dict[str, Any]) -> None:
        edit(document)
        text = json.dumps(document).replace("MARKER", str(target))
        document.clear()
        document.update(json.loads(text))

    edit_graph(program_file, tmp_path / "m.pt2", marked)
    assert expected in refused(tmp_path / "m.pt2", UnsafePickleError)
    assert not target.exists()


def test_the_second_line_of_defence(tmp_path, monkeypatch):
    """Were the checks to miss a pickle, torch.load would still be weights-only, and the setting goes back."""
    target = tmp_path / "written"
    data = evil_bytes(target, saved)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pt2.weights_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(data), weights_only=False)
    assert not target.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_program_of_an_older_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("version", "5.1")
        archive.writestr("serialized_exported_program.json", "{}")
    assert "2.7" in refused(tmp_path / "m.pt2")
