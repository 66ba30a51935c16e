"""MNN on the CPU: its own converter makes an .mnn file of the ONNX file, and its Module interface runs it.

The converter is called where it is, in MNN's extension module, and in a process of its own: it writes to
standard output, returns success for a model that it could not convert, and may end its process. The wrapper
that MNN's wheel puts around it (`MNN.tools.mnnconvert`, the command `mnnconvert`) is not used, because
importing it installs a logging package with pip and reports every conversion to a server.

MNN computes with int32 and float32 where a model has int64, bool, float64 or float16. It says nowhere which
precision it computes in, so only its errors show it.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.engines.base import Array, Engine, Loaded, Precision
from bnfold.engines.silence import captured
from bnfold.errors import MissingExtraError, ModelError, listed
from bnfold.runtime.interface import Interface
from bnfold.runtime.sessions import Feeds

_LEVELS: Mapping[Precision, str] = {"float32": "high", "float16": "low", "bfloat16": "low_bf16"}
_UNSUPPORTED = re.compile(r"These Op Not Support: (.+)")
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv[1:])"
_SECONDS = 600.0
_FIX = "Check what this version of MNN supports, or judge the model in ONNX Runtime: leave --runtime out."


class Mnn(Engine):
    """Alibaba's runtime for phones and small devices."""

    name = "mnn"
    title = "MNN"
    distribution = "MNN"
    precisions = ("float32", "float16", "bfloat16")

    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        """What MNN is set to, by its own names."""
        return {"backend": "CPU", "precision": _LEVELS[precision], "numThread": str(threads)}

    def demand(self) -> None:
        """Make sure that it is installed."""
        _module("MNN")

    def convert(self, model: Path, folder: Path) -> Path:
        """Make an .mnn file."""
        made = folder / "model.mnn"
        asked = ("-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(made), "--bizCode", "bnfold")
        command = [sys.executable, "-c", _CONVERT, "mnnconvert", *asked]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, env=environment, errors="replace"
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelError(f"MNN's converter does not run: {error}", _FIX) from error
        if done.returncode or not made.is_file():
            raise _not_converted(f"{done.stdout}\n{done.stderr}")
        return made

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Load an .mnn file."""
        given = self.options(precision, threads)
        settings = {**given, "numThread": threads}
        names = [[port.name for port in side] for side in (ports.inputs, ports.outputs)]
        with captured() as said:
            nn = _module("MNN.nn")
            try:
                manager = nn.create_runtime_manager((settings,))
                made = nn.load_module_from_file(str(model), *names, runtime_manager=manager)
            except (RuntimeError, ValueError, TypeError, SystemError) as error:
                raise ModelError(f"MNN cannot load the model: {_last(said(), str(error))}", _FIX) from error
        return _Module(made, ports)


class _Module(Loaded):
    """A loaded model."""

    precision = None

    def __init__(self, module: Any, ports: Interface) -> None:
        self._module, self._expr = module, _module("MNN.expr")
        self._inputs = [port.name for port in ports.inputs]
        self._count = len(ports.outputs)

    def run(self, feeds: Feeds) -> list[Array]:
        with captured() as said:
            try:
                given = [self._variable(name, feeds[name]) for name in self._inputs]
                made = [self._array(one) for one in self._module.forward(given)]
            except (RuntimeError, ValueError, TypeError, SystemError) as error:
                raise ModelError(f"MNN could not run the model: {_last(said(), str(error))}", _FIX) from error
            if len(made) != self._count:
                why = _last(said(), f"it gave {len(made)} of {self._count} outputs")
                raise ModelError(f"MNN could not run the model: {why}", _FIX)
        return made

    def caller(self, feeds: Feeds) -> Callable[[], object]:
        self.run(feeds)

        def call() -> object:  # without catching what it writes, which would be timed too
            made = self._module.forward([self._variable(name, feeds[name]) for name in self._inputs])
            return [self._array(one) for one in made]

        return call

    def _variable(self, name: str, array: Array) -> Any:
        kind = array.dtype.kind
        if not array.size or kind not in "fiub":
            raise ModelError(
                f"MNN takes no {array.dtype} of the shape {list(array.shape)} for {name!r}.", _FIX
            )
        narrow = np.float32 if kind == "f" else np.int32
        taken = np.ascontiguousarray(array.astype(narrow))
        if kind != "f" and not np.array_equal(taken, array):
            raise ModelError(f"The input {name!r} has a number that MNN's int32 does not hold.", _FIX)
        expr = self._expr
        return expr.const(taken, list(array.shape), expr.NCHW, expr.float if kind == "f" else expr.int)

    def _array(self, variable: Any) -> Array:
        """An output in rows and columns; MNN keeps channels in blocks of four where it can."""
        made = (
            variable
            if variable.data_format == self._expr.NCHW
            else self._expr.convert(variable, self._expr.NCHW)
        )
        return np.array(made.read()).reshape(made.shape)


def _module(name: str) -> Any:
    """A module of MNN.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with captured():  # it says what the processor has
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("MNN", "mnn", "run models in MNN") from error


def _not_converted(output: str) -> ModelError:
    if found := _UNSUPPORTED.search(output):
        names = [name.strip().removeprefix("ONNX::") for name in found[1].split("|")]
        several = "operators" if len(names) > 1 else "operator"
        return ModelError(f"MNN does not have the {several} {listed(names)}.", _FIX)
    return ModelError(
        f"MNN cannot convert the model: {_last(output, 'its converter does not say why')}", _FIX
    )


def _last(output: str, otherwise: str) -> str:
    """The last line that MNN wrote; something else where it wrote nothing but what it always does."""
    lines = (line.strip() for line in output.splitlines())
    usual = ("The device supports", "MNN use", "Converted Failed")
    said: Sequence[str] = [line for line in lines if line and not line.startswith(usual)]
    return said[-1][:400] if said else otherwise


ENGINE = Mnn()
