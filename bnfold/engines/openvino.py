"""OpenVINO on the CPU: its own ONNX frontend reads the model, and its CPU plugin compiles and runs it.

By default the plugin computes in bfloat16 on processors that have it (AMX, AVX-512 BF16), so the precision
is always asked for, and read back from the compiled model
(https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bnfold.engines.base import Array, Engine, Loaded, Precision
from bnfold.errors import MissingExtraError, ModelError, listed
from bnfold.runtime.interface import Interface
from bnfold.runtime.sessions import Feeds

_HINTS: Mapping[Precision, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_PRECISION = "INFERENCE_PRECISION_HINT"
_UNSUPPORTED = re.compile(r"No conversion rule found for operations: (.+)")
_NOISE = re.compile(r"^(Exception from|Check '|FrontEnd API failed|Model wasn't|Summary|To facilitate)")
_FIX = (
    "Check what this version of OpenVINO supports, or judge the model in ONNX Runtime: leave --runtime out."
)


class OpenVino(Engine):
    """Intel's runtime for its processors; on other x86-64 and Arm processors it runs as well."""

    name = "openvino"
    title = "OpenVINO"
    distribution = "openvino"
    precisions = ("float32", "float16", "bfloat16")

    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        """What OpenVINO is set to, by its own names."""
        return {
            _PRECISION: _HINTS[precision],
            "EXECUTION_MODE_HINT": "ACCURACY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # activations are not rounded to int8
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": "NO",  # what the process may use is the caller's choice
        }

    def demand(self) -> None:
        """Make sure that it is installed."""
        _module()

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Read an ONNX file and compile it for the CPU."""
        ov = _module()
        try:
            core = ov.Core()
            read = core.read_model(str(model))
            compiled = core.compile_model(read, "CPU", dict(self.options(precision, threads)))
        except (RuntimeError, ValueError, TypeError) as error:
            raise _load_error(error) from error
        return _Compiled(compiled, ports)


class _Compiled(Loaded):
    """A compiled model with one request, which runs it."""

    def __init__(self, compiled: Any, ports: Interface) -> None:
        self._compiled, self._request = compiled, compiled.create_infer_request()
        # an input that no node reads may not have survived
        self._inputs = {
            port.name: number
            for number, one in enumerate(compiled.inputs)
            for port in ports.inputs
            if port.name in one.get_names()
        }

    @property
    def precision(self) -> str | None:
        hint = self._compiled.get_property(_PRECISION).get_type_name()
        return next((name for name, own in _HINTS.items() if own == hint), None)

    def run(self, feeds: Feeds) -> list[Array]:
        try:
            made = self._request.infer(self._taken(feeds))
            return [made[number] for number in range(len(self._compiled.outputs))]
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"OpenVINO could not run the model: {_one_line(error)}", _FIX) from error

    def caller(self, feeds: Feeds) -> Callable[[], object]:
        self.run(feeds)
        return partial(self._request.infer, self._taken(feeds))

    def _taken(self, feeds: Feeds) -> dict[int, Array]:
        return {number: feeds[name] for name, number in self._inputs.items()}


def _module() -> Any:
    """The module `openvino`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "run models in OpenVINO") from error


def _load_error(error: BaseException) -> ModelError:
    if found := _UNSUPPORTED.search(str(error)):
        names = [name.strip() for name in found[1].split(",")]
        several = "operators" if len(names) > 1 else "operator"
        return ModelError(f"OpenVINO does not have the {several} {listed(names)}.", _FIX)
    return ModelError(f"OpenVINO cannot load the model: {_one_line(error)}", _FIX)


def _one_line(error: BaseException) -> str:
    """The first line of a message that says something, without the places in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = next((line for line in lines if line and not _NOISE.match(line)), lines[0] if lines else "")
    return said if len(said) <= 400 else f"{said[:400]} …"


ENGINE = OpenVino()
