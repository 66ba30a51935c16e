"""The export against the module itself, on the same inputs, before anything is folded.

An exporter that ignores a hook, takes the wrong branch or loses a flag writes a wrong model, whose fold still
agrees with it. So the export runs in ONNX Runtime, its optimizer off, and has to agree with PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from bnfold.errors import ModelError
from bnfold.runtime import sessions
from bnfold.torch.export.outputs import Outputs, outputs_of
from bnfold.torch.run_quietly import quiet, untouched

if TYPE_CHECKING:
    import onnxruntime as ort

_TOLERANCE = {torch.float16: 2e-2}
_DEFAULT_TOLERANCE = 1e-4
_NOISE = 10.0  # an export may have this many times PyTorch's own rounding error, if that is more,
_MOST_NOISE = 1e-2  # but no more than this: with a larger rounding error, a module computes noise
_FLIPS = 1e-3  # the share of integers and booleans, such as an arg max, that rounding may change

Run = Callable[[Mapping[str, torch.Tensor]], Any]
"""Calls a module with inputs by name and returns what it returns."""


@dataclass(frozen=True)
class Sample:
    """What a module returns on some inputs, by name, and what is special about them, as ` at batch 3`."""

    inputs: Mapping[str, torch.Tensor]
    outputs: Outputs
    where: str = ""


class Verifier:
    """Runs an export and compares it with the module that it came from.

    Args:
        model: The export.
        module: The module, in eval mode, or a program's.
        call: Calls a module, this one or a copy of it, with inputs by name.

    Raises:
        ModelError: ONNX Runtime cannot load the export.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, model: ir.Model, module: nn.Module, call: Callable[[nn.Module], Run]) -> None:
        self._session: ort.InferenceSession = sessions.session(model, optimized="off")
        self._module = module
        self._call = call

    def check(self, sample: Sample) -> None:
        """Compare on one sample.

        Raises:
            ModelError: The export does not run on it, or returns something else.
        """
        inputs, expected = sample.inputs, sample.outputs.tensors
        actual = sessions.run(self._session, _feeds(self._session, inputs))
        wrong = _disagreement(actual, expected)
        if wrong is None:
            return
        again = self._run(self._module, inputs)
        if _disagreement([_array(tensor) for tensor in again], expected):
            fix = "The module returns other numbers in every run: switch off what is random."
        elif self._within_noise(inputs, actual, expected):
            return
        else:
            fix = "torch.onnx.export gets this model wrong: rewrite what it loses, or give an .onnx file."
        raise ModelError(
            f"The ONNX export does not compute what the module computes{sample.where}: {wrong}.", fix
        )

    def _within_noise(
        self, inputs: Mapping[str, torch.Tensor], actual: Sequence[Any], expected: Sequence[torch.Tensor]
    ) -> bool:
        """Whether the module's own rounding, against itself in float64, explains the difference."""
        try:
            exact = self._run(copy.deepcopy(self._module).double(), {k: _wide(v) for k, v in inputs.items()})
        except Exception:  # the user's own code, which need not run in float64
            return False
        if not len(actual) == len(exact) == len(expected):
            return False
        return all(
            _distance(one, truth)
            <= max(_limit(own), min(_NOISE * _distance(_array(own), truth), _MOST_NOISE))
            for one, own, truth in zip(actual, expected, map(_array, exact), strict=True)
        )

    def _run(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), untouched(module), quiet():
            return outputs_of(self._call(module)(inputs)).tensors


def _feeds(
    session: ort.InferenceSession, inputs: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs by name; an exporter leaves out those that the module does not use."""
    names = [port.name for port in session.get_inputs()]
    if not set(names) <= set(inputs):
        if len(names) != len(inputs):
            raise ModelError(
                f"The export has inputs {', '.join(names)} for {', '.join(inputs)}.",
                "Give forward a name for each of its inputs.",
            )
        inputs = dict(zip(names, inputs.values(), strict=True))
    return {name: inputs[name].numpy() for name in names}


def _disagreement(actual: Sequence[Any], expected: Sequence[torch.Tensor]) -> str | None:
    """What differs, in words; None if nothing does."""
    if len(actual) != len(expected):
        return f"it has {len(actual)} outputs instead of {len(expected)}"
    for index, (one, wanted) in enumerate(zip(actual, expected, strict=True)):
        if np.shape(one) != tuple(wanted.shape):
            return f"output {index} has shape {list(np.shape(one))} instead of {list(wanted.shape)}"
        if not _distance(one, _array(wanted)) <= _limit(wanted):
            return f"output {index} differs by {_distance(one, _array(wanted)):.1e} of its scale"
    return None


def _distance(actual: Any, expected: np.ndarray[Any, Any]) -> float:
    """max|a − b| / max|b| where both are finite, the share that differs for integers; NaN agrees with NaN."""
    a, b = np.asarray(actual), expected
    if a.shape != b.shape:
        return float("inf")
    if not b.size:
        return 0.0
    if not (np.issubdtype(b.dtype, np.floating) and np.issubdtype(a.dtype, np.floating)):
        return float(np.mean(a != b)) / _FLIPS * _DEFAULT_TOLERANCE
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.all(np.isfinite(a[finite])):
        return float("inf")
    scale = np.max(np.abs(b[finite]), initial=0.0)
    difference = np.max(np.abs(a[finite] - b[finite]), initial=0.0)
    return float(difference / scale) if scale else float(difference)


def _limit(expected: torch.Tensor) -> float:
    return _TOLERANCE.get(expected.dtype, _DEFAULT_TOLERANCE)


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.detach().numpy())


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
