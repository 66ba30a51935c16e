"""Every kind of file that people have, exported in one line: nothing foldable left, the same predictions."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
import onnxruntime as ort  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

import bnfold  # noqa: E402
from bnfold_cli import main  # noqa: E402
from models import files  # noqa: E402
from tests.torch import networks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one

NETS = {"resnet": "ResNet", "timm": "TimmNet"}


def module(network: nn.Module, path: Path, _: torch.Tensor) -> list[str]:
    torch.save(network, path)
    own = sorted({type(part) for part in network.modules()}, key=str)
    names = [f"{cls.__module__}.{cls.__name__}" for cls in own if not cls.__module__.startswith("torch.")]
    return [word for name in names for word in ("--allow", name)]


def state_dict(network: nn.Module, path: Path, _: torch.Tensor) -> list[str]:
    torch.save(network.state_dict(), path)
    return ["--arch"]


def checkpoint(network: nn.Module, path: Path, _: torch.Tensor) -> list[str]:
    ema = {f"module.{name}": value for name, value in network.state_dict().items()}
    raw = {name: torch.zeros_like(value) for name, value in ema.items()}
    torch.save({"epoch": 3, "state_dict": raw, "model_ema": {"state": ema}, "optimizer": {"state": {}}}, path)
    return ["--key", "model_ema.state", "--arch"]


def safetensors(network: nn.Module, path: Path, _: torch.Tensor) -> list[str]:
    save_file(network.state_dict(), path)
    return ["--arch"]


def traced(network: nn.Module, path: Path, x: torch.Tensor) -> list[str]:
    torch.jit.trace(network, x).save(path)
    return []


def scripted(network: nn.Module, path: Path, _: torch.Tensor) -> list[str]:
    torch.jit.script(network).save(path)
    return []


def program(network: nn.Module, path: Path, x: torch.Tensor) -> list[str]:
    torch.export.save(torch.export.export(network, (x,)), path)
    return []


KINDS = {
    kind.__name__: kind for kind in (module, state_dict, checkpoint, safetensors, traced, scripted, program)
}
SAME = {  # a name may say anything
    ("module", "resnet"): "file.bin",
    ("traced", "resnet"): "file.onnx",
    ("scripted", "resnet"): "file",
    ("program", "resnet"): "file.pt",
    ("state_dict", "resnet"): "file.pt2",
    ("module", "timm"): "file.pth",
    ("traced", "timm"): "file.pt2",
    ("scripted", "timm"): "file.pt",
    ("checkpoint", "timm"): "file.ckpt",
    ("safetensors", "timm"): "file.pt",
}


@pytest.mark.parametrize(("kind", "name"), SAME)
def test_a_kind_of_file(kind: str, name: str, tmp_path: Path) -> None:
    network, x = networks.trained(name), networks.example(name, batch=1)
    path, out = tmp_path / SAME[kind, name], tmp_path / "out.onnx"
    more = KINDS[kind](network, path, x)
    if more[-1:] == ["--arch"]:
        more.append(f"tests.torch.networks:{NETS[name]}")
    shape = "x".join(map(str, x.shape))
    words = ["export", path, "-o", out, *more, "--samples", "2", "--no-bench", "--quiet"]
    if kind != "program":
        words += ["--input-shape", shape]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    check(out, network, x)


def check(out: Path, network: nn.Module, x: torch.Tensor) -> None:
    """Nothing foldable is left, and what the network says comes out."""
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(out).graph.node}
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.argmax() == expected.argmax()


@pytest.mark.parametrize("name", ["convnet.pt", "cnn_with_batchnorm.pt"])
@pytest.mark.parametrize("kind", ["state_dict", "scripted"])
def test_the_trained_networks_as_another_kind(kind: str, name: str, tmp_path: Path) -> None:
    network = files.load(files.FOLDER / name)
    cls = {"convnet.pt": "ConvNet", "cnn_with_batchnorm.pt": "CNNWithBatchNorm"}[name]
    shape = (1, 1 if cls == "ConvNet" else 3, 32, 32)
    x = torch.randn(shape)
    KINDS[kind](network, tmp_path / "m.pt", x)
    arch = f"models:{cls}" if kind == "state_dict" else None
    done = bnfold.export(
        tmp_path / "m.pt", tmp_path / "out.onnx", input_shape=shape, arch=arch, samples=2, bench=False
    )
    assert done.validation is not None
    assert done.validation.passed
    assert not done.fold.kept
    check(tmp_path / "out.onnx", network, x)


# what is refused


class Evil:
    """Pickles to a call that makes a folder."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    """Pickles to an object of a class that does something when it is given its state."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["target"]).mkdir()


def archived(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/version", b"3\n")


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def text_pickle(target: Path, build: str) -> bytes:
    """The same call in opcodes that no pickler of today writes."""
    bodies = {
        "INST": f"(V{target}\nios\nmkdir\n.",
        "OBJ": f"(cos\nmkdir\nV{target}\no.",
        "GLOBAL": f"cos\nmkdir\n(V{target}\ntR.",
        "GLOBAL of Python 2": f"c__builtin__\neval\n(V__import__('os').mkdir({str(target)!r})\ntR.",
    }
    return bodies[build].encode()


def evil_call(path: Path, target: Path) -> None:
    path.write_bytes(saved({"state_dict": Evil(os.mkdir, str(target))}))


def evil_eval(path: Path, target: Path) -> None:
    archived(path, pickle.dumps(Evil(eval, f"__import__('os').mkdir({str(target)!r})"), protocol=4))


def evil_state(path: Path, target: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.extra = Stateful(target)
    torch.save(network, path)


def evil_inst(path: Path, target: Path) -> None:
    archived(path, text_pickle(target, "INST"))


def evil_obj(path: Path, target: Path) -> None:
    archived(path, text_pickle(target, "OBJ"))


def evil_global(path: Path, target: Path) -> None:
    archived(path, text_pickle(target, "GLOBAL"))


def evil_old_global(path: Path, target: Path) -> None:
    archived(path, text_pickle(target, "GLOBAL of Python 2"))


def plain_pickle(path: Path, target: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(os.mkdir, str(target))))


def nested_archive(path: Path, target: Path) -> None:
    path.write_bytes(saved({"a": torch.zeros(2)}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/1", saved(Evil(os.mkdir, str(target))))


def script_with_a_pickle(path: Path, target: Path) -> None:
    torch.jit.script(nn.Conv2d(3, 4, 3)).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        name = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{name}/extra.pkl", pickle.dumps(Evil(os.mkdir, str(target))))


def zip_bomb(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10**7))


def escaping_path(path: Path, target: Path) -> None:
    path.write_bytes(saved({"a": torch.zeros(2)}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"../{target.name}", b"x")


def program_with_a_pickle(path: Path, target: Path) -> None:
    shutil.copy(files.FOLDER / "repvgg.pt2", path)
    with zipfile.ZipFile(files.FOLDER / "repvgg.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            evil = "/data/sample_inputs/" in name
            new.writestr(name, saved(Evil(os.mkdir, str(target))) if evil else old.read(name))


MALICIOUS = {
    evil_call: "posix.mkdir",
    evil_eval: "builtins.eval",
    evil_state: "Stateful",
    evil_inst: "os.mkdir",
    evil_obj: "os.mkdir",
    evil_global: "os.mkdir",
    evil_old_global: "builtins.eval",
    plain_pickle: "posix.mkdir",
    nested_archive: "another archive",
    script_with_a_pickle: "posix.mkdir",
    zip_bomb: "zip bomb",
    escaping_path: "leads out of the archive",
    program_with_a_pickle: "posix.mkdir",
}


@pytest.mark.parametrize("make", MALICIOUS, ids=lambda make: make.__name__)
def test_a_malicious_file_is_refused_by_name_and_nothing_runs(
    make: Callable[..., None], tmp_path: Path
) -> None:
    target, path = tmp_path / "written", tmp_path / "m.pt"
    make(path, target)
    words = [
        "export",
        path,
        "-o",
        tmp_path / "out.onnx",
        "--input-shape",
        "1x3x8x8",
        "--json",
        tmp_path / "r.json",
    ]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 2
    assert MALICIOUS[make] in done.stderr
    assert "m.pt" in done.stderr.splitlines()[0]
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


def test_trust_says_what_it_means_and_lets_the_file_run(tmp_path: Path) -> None:
    """The counterpart: these files do what they are refused for."""
    for make in (
        evil_call,
        evil_eval,
        evil_state,
        evil_inst,
        evil_obj,
        evil_global,
        evil_old_global,
        plain_pickle,
    ):
        target, path = tmp_path / f"written_{make.__name__}", tmp_path / "m.pt"
        make(path, target)
        words = ["inspect", path, "--input-shape", "1x3x8x8", "--trust"]
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert "may run any code on this machine" in done.stderr
        assert target.exists(), make.__name__
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), tmp_path / "m.pt")
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "Opened with --trust" in done.stdout


def test_the_wrong_architecture_lists_what_does_not_fit(tmp_path: Path) -> None:
    torch.save(networks.trained("resnet").state_dict(), tmp_path / "m.pt")
    words = ["export", "m.pt", "--arch", "tests.torch.networks:ResNet", "--arch-args", '{"num_classes": 7}']
    words[1] = str(tmp_path / "m.pt")
    done = CliRunner().invoke(main, [*words, "--input-shape", "1x3x32x32", "-o", str(tmp_path / "out.onnx")])
    assert done.exit_code == 2
    assert "2 of another shape" in done.stderr
    assert "fc.weight (10x24 in the file, 7x24 in the network)" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arch", "torch.nn:Linear"], "holds a whole module: --arch is for weights"),
        (["--arch-args", "{}"], "--arch-args goes with --arch"),
        (["--key", "model"], "under --key model"),
    ],
)
def test_options_that_mean_nothing_for_a_module(options: list[str], words: str, tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 4, 3), tmp_path / "m.pt")
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.pt"), "--input-shape", "1x3x8x8", *options])
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("kind", ["traced", "program"])
def test_options_that_mean_nothing_for_a_graph(kind: str, tmp_path: Path) -> None:
    KINDS[kind](nn.Conv2d(3, 4, 3).eval(), tmp_path / "m.pt", torch.zeros(1, 3, 8, 8))
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.pt"), "--arch", "a:b", "--key", "c"])
    assert done.exit_code == 2
    assert "--arch, --key has no meaning for it" in done.stderr
