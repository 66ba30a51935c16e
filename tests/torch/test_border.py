"""Whatever is in a file, those who call bnfold with it get an error of bnfold's, which says what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")
from torch import nn  # noqa: E402

import bnfold  # noqa: E402
import bnfold.torch as bt  # noqa: E402
from bnfold.errors import BnfoldError, FileAccessError, ModelError, OutOfMemoryError, UnforeseenError  # noqa: E402
from bnfold.files.load import blaming, guarded, guarded_pair  # noqa: E402
from tests.torch.read.test_mutated import KINDS, mutated, mutated_within  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = 25  # of each kind


def layers(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *more).eval()


def deep() -> nn.Module:
    made: nn.Module = nn.Conv2d(3, 4, 3)
    for _ in range(140):
        made = nn.Sequential(made)
    return made


def within_itself() -> nn.Module:
    made = layers(nn.Sequential())
    made[2].add_module("again", made)
    return made


def wrong_parameter() -> nn.Module:
    made = layers()
    made[1].__dict__["_parameters"]["weight"] = "text"
    return made


HOSTILE: dict[str, Callable[[], nn.Module]] = {
    "140 deep": deep,
    "within itself": within_itself,
    "a parameter that is text": wrong_parameter,
    "an output of 2⁴⁰ sizes": lambda: layers(nn.AdaptiveAvgPool2d((1 << 20, 1 << 20))),
    "a size beyond any number": lambda: layers(nn.ZeroPad2d(1 << 40)),
    "an input of 2⁴⁰ channels": lambda: layers(nn.Conv2d(4, 1, 1, padding=1 << 21)),
    "no forward": lambda: nn.ModuleList([layers()]),
    "an impossible scale": lambda: layers(nn.Upsample(scale_factor=1e15)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_modules_are_refused(tmp_path: Path, kind: str) -> None:
    torch.save(HOSTILE[kind](), tmp_path / "m.pt")
    for options in ({"input_shape": "1x3x8x8"}, {}):
        with pytest.raises(BnfoldError) as caught:
            bnfold.export(tmp_path / "m.pt", tmp_path / "o.onnx", bench=False, **options)
        assert not isinstance(caught.value, UnforeseenError), caught.value
        assert caught.value.fix


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
def test_scripts_that_ask_for_more_than_there_is(tmp_path: Path, size: int) -> None:
    class Large(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean() + torch.zeros([self.count]).sum()

    torch.jit.save(torch.jit.script(Large(size).eval()), tmp_path / "m.pt")
    with pytest.raises(BnfoldError, match="does not run"):
        bnfold.export(tmp_path / "m.pt", tmp_path / "o.onnx", bench=False, input_shape="1x3x8x8")


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_give_nothing_but_errors_of_bnfold(tmp_path: Path, kind: str) -> None:
    chance, original, path = random.Random(f"border {kind}"), KINDS[kind](), tmp_path / "m.pt"
    needs = kind in ("before 1.6", "plain pickle", "safetensors")
    arch = {"arch": "tests.torch.read.test_mutated:network"} if needs else {}
    job = {"input_shape": "1x3x8x8", "bench": False, "validate": False} | arch
    for _ in range(FILES):
        path.write_bytes((mutated_within if original.startswith(b"PK") else mutated)(original, chance))
        for call in (
            lambda: bnfold.fold(path),
            lambda: bnfold.export(path, tmp_path / "o.onnx", **job),
            lambda: bt.load(path, **arch),
        ):
            try:
                call()
            except BnfoldError as error:
                assert not isinstance(error, UnforeseenError), error  # noqa: PT017


def raising(error: BaseException) -> Callable[..., Any]:
    @guarded
    def read(path: Any, more: int = 0) -> None:
        del path, more
        raise error

    return read


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("x"), UnforeseenError),
        (RecursionError(), UnforeseenError),
        (MemoryError("4 GB"), OutOfMemoryError),
        (OSError("disk"), FileAccessError),
        (PermissionError(13, "Permission denied", "other.bin"), FileAccessError),
        (BrokenPipeError(), BrokenPipeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (BnfoldError("x", "y"), BnfoldError),
    ],
)
def test_what_passes_the_border(tmp_path: Path, raised: BaseException, expected: type) -> None:
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(expected) as caught:
        raising(raised)(tmp_path / "m.pt", more=1)
    assert type(caught.value) is expected
    if expected is not type(raised):
        assert caught.value.__cause__ is raised
    with pytest.raises(type(raised)):  # what is no file is the caller's own matter
        raising(raised)(3)


def test_an_invalid_onnx_model_is_blamed_and_a_valid_one_is_not(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(bnfold.BnfoldError, match="not a valid ONNX model"), blaming(tmp_path / "m.onnx"):
        raise ValueError


def test_of_two_models_the_invalid_one_is_blamed(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "bad.onnx")
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04")

    @guarded_pair
    def compare(one: Any, other: Any, *, more: int = 0) -> None:
        del one, other, more
        raise ValueError

    for pair in (("bad.onnx", "m.pt"), ("m.pt", "bad.onnx")):
        one, other = (tmp_path / name for name in pair)
        with pytest.raises(ModelError, match=r"bad\.onnx is not a valid ONNX model"):
            compare(one, other=other, more=1)
    with pytest.raises(UnforeseenError, match=r"m\.pt"):
        compare(tmp_path / "m.pt", 3)
    with pytest.raises(ValueError, match=r"^$"):
        compare(1, 2)


@pytest.mark.parametrize("call", ["fold", "export", "validate", "benchmark", "load", "check"])
def test_a_path_that_the_system_refuses_is_named(tmp_path: Path, call: str) -> None:
    path = tmp_path / ("x" * 300)
    function: Callable[..., Any] = bt.load if call == "load" else getattr(bnfold, call)
    more = {"export": [tmp_path / "o.onnx"], "validate": [path], "benchmark": [path]}.get(call, [])
    with pytest.raises(BnfoldError, match="File name too long") as caught:
        function(path, *more)
    assert str(path) in caught.value.problem
    assert caught.value.fix
