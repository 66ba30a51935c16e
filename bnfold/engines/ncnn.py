"""ncnn on the CPU: its converter pnnx makes a network of the ONNX file for the sizes of the inputs.

pnnx is a program in a wheel of its own. A network that it makes has fixed sizes, so there is one for each set
of sizes that is run. By default pnnx stores weights in float16; here it is asked to leave them as they are.
ncnn says nowhere which precision it computes in.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.engines.base import Array, Engine, Loaded, Precision
from bnfold.engines.silence import captured
from bnfold.errors import MissingExtraError, ModelError, listed
from bnfold.runtime.interface import Interface
from bnfold.runtime.sessions import Feeds

_FLAGS: Mapping[str, frozenset[Precision]] = {
    "use_fp16_packed": frozenset({"float16"}),
    "use_fp16_storage": frozenset({"float16"}),
    "use_fp16_arithmetic": frozenset({"float16"}),
    "use_bf16_packed": frozenset({"bfloat16"}),
    "use_bf16_storage": frozenset({"bfloat16"}),
}
_TYPES = {"float32": "f32", "int64": "i64", "int32": "i32"}
_UNSUPPORTED = (
    re.compile(r"layer (\S+) not exists or registered"),
    re.compile(r"No Op registered for (\S+)"),
    re.compile(r"error: (\S+)\(-?\d+\) is not a registered"),
    re.compile(r"^todo (\S+)", re.MULTILINE),
)
_SECONDS = 600.0
_FIX = "Check what this version of ncnn supports, or judge the model in ONNX Runtime: leave --runtime out."


class Ncnn(Engine):
    """Tencent's runtime for phones and small devices."""

    name = "ncnn"
    title = "NCNN"
    distribution = "ncnn"
    precisions = ("float32", "float16", "bfloat16")

    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        """What ncnn and pnnx are set to, by their own names."""
        flags = {name: str(int(precision in able)) for name, able in _FLAGS.items()}
        pnnx = metadata.version("pnnx")
        return {"num_threads": str(threads), **flags, "pnnx": pnnx, "fp16": "0"}

    def demand(self) -> None:
        """Make sure that both are installed."""
        _module()
        _converter()

    def convert(self, model: Path, folder: Path) -> Path:
        """Leave the file as it is: it is converted once the sizes of the inputs are known."""
        del folder
        return model

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Read the file; the networks are made when they are run."""
        return _Networks(model, ports, threads, precision)


class _Networks(Loaded):
    """A model's networks, one for each set of sizes."""

    precision = None

    def __init__(self, model: Path, ports: Interface, threads: int, precision: Precision) -> None:
        folder = tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True)
        weakref.finalize(self, folder.cleanup)
        self._folder, self._threads, self._asked = Path(folder.name), threads, precision
        self._inputs = [port.name for port in ports.inputs]
        self._count = len(ports.outputs)
        self._networks: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._model = _alone(model, self._folder)

    def run(self, feeds: Feeds) -> list[Array]:
        with captured() as said:
            network = self._network(feeds)
            try:
                return self._computed(network, feeds)
            except (RuntimeError, ValueError, TypeError) as error:
                raise _refused("run", said(), str(error)) from error

    def caller(self, feeds: Feeds) -> Callable[[], object]:
        self.run(feeds)
        return partial(self._computed, self._network(feeds), feeds)

    def _computed(self, network: Any, feeds: Feeds) -> list[Array]:
        ncnn, found = _module(), []
        extractor = network.create_extractor()
        for number, name in enumerate(self._inputs):
            given = ncnn.Mat(_narrowed(name, feeds[name]), batch_index=0).clone()
            if extractor.input(f"in{number}", given):
                raise ValueError(f"it takes no input {name!r}")
        for number in range(self._count):
            wrong, made = extractor.extract(f"out{number}")
            if wrong or made.empty():
                raise ValueError(f"it gives no output {number}")
            found.append(np.array(made.numpy(batch_index=0)))
        return found

    def _network(self, feeds: Feeds) -> Any:
        """The network for the sizes of these inputs.

        Raises:
            ModelError: There is none, or ncnn does not load it.
        """
        sizes = tuple(feeds[name].shape for name in self._inputs)
        if sizes not in self._networks:
            self._networks[sizes] = self._made(self._converted(feeds))
        return self._networks[sizes]

    def _converted(self, feeds: Feeds) -> Path:
        folder = self._folder / str(len(self._networks))
        folder.mkdir(exist_ok=True)
        copy = folder / "model.onnx"
        if not copy.exists():
            copy.symlink_to(self._model)
        shapes = []
        for name in self._inputs:
            array = _narrowed(name, feeds[name])
            shapes.append(f"[{','.join(map(str, array.shape))}]{_TYPES[feeds[name].dtype.name]}")
        command = [str(_converter()), str(copy), f"inputshape={','.join(shapes)}", "fp16=0"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, cwd=folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelError(f"pnnx does not run: {error}", _FIX) from error
        if done.returncode or not (folder / "model.ncnn.param").is_file():
            raise _refused("convert", (done.stdout + done.stderr).decode(errors="replace"))
        return folder

    def _made(self, folder: Path) -> Any:
        network = _module().Net()
        for name, able in _FLAGS.items():
            setattr(network.opt, name, self._asked in able)
        network.opt.num_threads = self._threads
        with captured() as said:
            wrong = network.load_param(str(folder / "model.ncnn.param"))
            if wrong or network.load_model(str(folder / "model.ncnn.bin")):
                raise _refused("load", said())
        return network


def _alone(model: Path, folder: Path) -> Path:
    """A copy of an ONNX file with all its weights inside: pnnx reads no others."""
    import onnx

    copy = folder / "given.onnx"
    proto = onnx.load(model, load_external_data=False)
    if any(tensor.external_data for tensor in proto.graph.initializer):
        onnx.save(onnx.load(model), copy)
    else:
        shutil.copyfile(model, copy)
    return copy


def _narrowed(name: str, array: Array) -> Array:
    """An input in a type that ncnn has.

    Raises:
        ModelError: It has none.
    """
    if array.dtype.name not in _TYPES or not array.size:
        raise ModelError(f"ncnn takes no {array.dtype} of the shape {list(array.shape)} for {name!r}.", _FIX)
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    taken = np.ascontiguousarray(array.astype(np.int32))
    if not np.array_equal(taken, array):
        raise ModelError(f"The input {name!r} has a number that ncnn's int32 does not hold.", _FIX)
    return taken


def _module() -> Any:
    """The module `ncnn`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("ncnn")
    except ImportError as error:
        raise MissingExtraError("ncnn", "ncnn", "run models in ncnn") from error


def _converter() -> Path:
    """The program pnnx; its package is not imported, since that imports torch.

    Raises:
        MissingExtraError: It is not installed.
    """
    spec = importlib.util.find_spec("pnnx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("pnnx", "pnnx.exe"):
            if (program := Path(folder) / name).is_file():
                return program
    raise MissingExtraError("pnnx", "ncnn", "convert models for ncnn")


def _refused(verb: str, said: str, otherwise: str = "it does not say why") -> ModelError:
    for pattern in _UNSUPPORTED:
        if names := list(dict.fromkeys(pattern.findall(said))):
            several = "operators" if len(names) > 1 else "operator"
            return ModelError(f"ncnn does not have the {several} {listed(names)}.", _FIX)
    lines = [line.strip() for line in said.splitlines() if "failed" in line]
    return ModelError(f"ncnn cannot {verb} the model: {lines[-1][:400] if lines else otherwise}", _FIX)


ENGINE = Ncnn()
