"""Models of eight bits: static quantisation by ONNX Runtime's own tool.

`onnxruntime.quantization` measures the range of every value on calibration data, chooses a scale and a zero
point for it, and writes pairs of QuantizeLinear and DequantizeLinear; nothing of that is done again here.
What is added is what it lacks: scales that are powers of two, which some targets need because they shift
instead of multiplying, and a calibration that is kept, so that quantising a model in another way costs no
other run of the data.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bnfold.contract.opsets import opset_of
from bnfold.edge import bias
from bnfold.edge.called import called
from bnfold.edge.rows import first, rows_of, samples_of, split
from bnfold.errors import MissingExtraError, ModelError, reason
from bnfold.files.external_data import tensors
from bnfold.files.load import from_proto
from bnfold.files.save import save_onnx
from bnfold.inputs.given import Inputs
from bnfold.runtime.interface import as_ir, interface
from bnfold.runtime.sessions import Feeds

REQUANTISED = (
    "ONNX Runtime's optimizer quantises the weights of layers that were left in float between two pairs; to "
    "run them in float, make the session with disabled_optimizers=['WeightBiasQuantization']."
)

_APART = 2**30  # bytes of weights from which on they are in a file of their own
_PER_CHANNEL = 13  # the opset from which on DequantizeLinear has an axis, which the tool writes for any
_TAGS = ("onnx.infer", "onnx.quant.pre_process")  # what the tool writes into the metadata for itself


@dataclass(frozen=True)
class Scheme:
    """How a model is quantised.

    Attributes:
        per_channel: Whether every output channel of a weight has its own scale, or the weight has one.
        symmetric: Whether the zero point of activations is the middle of their range. Weights always have 0.
        pow2_scales: Whether every scale is a power of two; the calibrated one is rounded up.
        signed: Whether activations are int8 instead of uint8.
        leave: Names of nodes, or of the modules that they were exported from, that stay in float.
        correct_biases: Whether biases make up for what rounded weights shift on average.
    """

    per_channel: bool = False
    symmetric: bool = False
    pow2_scales: bool = False
    signed: bool = False
    leave: tuple[str, ...] = ()
    correct_biases: bool = True


@dataclass(frozen=True)
class Quantized:
    """The outcome of a quantisation.

    Attributes:
        model: The model with its pairs of QuantizeLinear and DequantizeLinear.
        scheme: How it was quantised.
        layers: Names of the nodes that read a weight of integers.
        floats: Names of the nodes that read a weight of floats still, those of `scheme.leave` included.
        rows: How many rows of data it was calibrated on.
        notes: What ONNX Runtime's tool had to say, each sentence once.
        corrected: Names of the nodes whose biases were corrected; none if that did not help.
        gain: By how many dB that raised the worst output with the optimizer off, on rows of the calibration
            data that the correction had not seen, if there were more than `ROWS`.
    """

    model: ir.Model
    scheme: Scheme
    layers: tuple[str, ...]
    floats: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    gain: float = 0.0


class Calibrated:
    """A model whose ranges are measured once and that is then quantised in several ways.

    Use it as a context: the model lies in a temporary folder for as long.

    Args:
        model: A model in floats, folded and, best, equalised. It is not modified.
        data: What it is calibrated on: inputs as they occur in use; some hundred rows.

    Raises:
        MissingExtraError: ONNX Runtime's quantisation is not installed.
        InputError: The data does not fit the model.
    """

    def __init__(self, model: ir.Model, data: Inputs) -> None:
        self.model = named(model)
        self._ports = interface(self.model).inputs
        self._samples = split(samples_of(data, self._ports), self._ports)
        self.rows = sum(rows_of(feeds) for feeds in self._samples.feeds)
        self._large = sum(tensor.nbytes for tensor in tensors(self.model)) > _APART
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Calibrated:
        _tool()
        self._folder = tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True)
        tagged = self.model.clone()
        tagged.metadata_props["onnx.quant.pre_process"] = "onnxruntime.quant"  # ours: it is folded
        save_onnx(tagged, self._path("model.onnx"), external_data=self._large)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._folder is not None, "it is entered first"
        self._folder.cleanup()

    def quantize(self, scheme: Scheme) -> Quantized:
        """Quantise the model.

        Raises:
            InputError: A node that is to stay in float is not in the model.
            ModelError: ONNX Runtime's tool cannot quantise it, or nothing in it, or its opset has no scales
                for channels.
        """
        scheme = replace(scheme, leave=called(self.model, scheme.leave))
        opset = opset_of(self.model)
        if scheme.per_channel and opset < _PER_CHANNEL:
            raise ModelError(
                f"One scale for each channel needs opset {_PER_CHANNEL}; the model has {opset}.",
                f"Convert it with --opset {_PER_CHANNEL}, or leave out --per-channel.",
            )
        model, notes = self._quantized(scheme, {})
        if scheme.pow2_scales:
            model, more = self._quantized(scheme, _rounded_up(model, self.model, scheme))
            notes = tuple(dict.fromkeys((*notes, *more)))
        layers, floats = _weighted(model, self.model)
        if any(name in scheme.leave for name in floats):
            notes = (*notes, REQUANTISED)
        if not layers:
            raise ModelError(
                "ONNX Runtime quantised no layer of the model.",
                "It quantises Conv, Gemm, MatMul and their like with constant weights of float32.",
            )
        done = Quantized(model, scheme, layers, floats, self.rows, notes)
        if not scheme.correct_biases:
            return done
        found = bias.correct(self.model, model, layers, first(self._samples))
        return replace(done, model=found.model, corrected=found.layers, gain=found.gain)

    def _path(self, name: str) -> Path:
        assert self._folder is not None, "it is entered first"
        return Path(self._folder.name) / name

    def _quantized(self, scheme: Scheme, overrides: Mapping[str, Any]) -> tuple[ir.Model, tuple[str, ...]]:
        tool = _tool()
        options: dict[str, Any] = {"ActivationSymmetric": scheme.symmetric, "WeightSymmetric": True}
        if overrides:
            options["TensorQuantOverrides"] = dict(overrides)
        more: dict[str, Any] = {}
        if "calibration_cache_path" in inspect.signature(tool.quantize_static).parameters:
            more["calibration_cache_path"] = self._path("ranges.json")
        target = self._path("quantized.onnx")
        with _heard() as notes:
            try:
                tool.quantize_static(
                    self._path("model.onnx"),
                    target,
                    _reader(tool, self._samples.feeds),
                    per_channel=scheme.per_channel,
                    weight_type=tool.QuantType.QInt8,
                    activation_type=tool.QuantType.QInt8 if scheme.signed else tool.QuantType.QUInt8,
                    nodes_to_exclude=list(scheme.leave),
                    use_external_data_format=self._large,
                    extra_options=options,
                    **more,
                )
            except Exception as error:  # whatever the tool raises, KeyError and assertions among it
                raise ModelError(
                    f"ONNX Runtime's tool cannot quantise the model: {reason(error)}.",
                    "Leave the layer that it names in float, or ask its makers.",
                ) from error
        made = from_proto(onnx.load(target))  # in memory: the file is written again and again
        for tag in _TAGS:
            made.metadata_props.pop(tag, None)
        return as_ir(made), tuple(notes)


def quantize(model: ir.Model, data: Inputs, scheme: Scheme | None = None) -> Quantized:
    """Quantise a model to eight bits.

    Args:
        model: A model in floats, folded and, best, equalised. It is not modified.
        data: What it is calibrated on.
        scheme: How; unsigned activations and one scale a tensor where None.

    Raises:
        BnfoldError: As for [`Calibrated`][bnfold.edge.quantize.Calibrated].
    """
    with Calibrated(model, data) as calibrated:
        return calibrated.quantize(scheme or Scheme())


def named(model: ir.Model) -> ir.Model:
    """A clone in which every node has a name, by which it is found again in the quantised model."""
    copy, seen = model.clone(), set()
    for number, node in enumerate(copy.graph):
        wanted = node.name or f"{node.op_type}_{number}"
        while wanted in seen:
            wanted = f"{wanted}_{number}"
        node.name = wanted
        seen.add(wanted)
    return copy


# --- the tool ---------------------------------------------------------------------------------------------


def _reader(tool: Any, feeds: Sequence[Feeds]) -> Any:
    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]  # known when ONNX Runtime is there
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self._left, None)
            return None if found is None else dict(found)

    return Reader()


def _tool() -> Any:
    try:
        import onnxruntime.quantization as tool
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "Quantisation") from error
    return tool


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the warnings that are logged, which would else be printed by whoever comes first."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and (line := record.getMessage().strip()) not in found:
                found.append(line)

    collector, root = Collector(), logging.getLogger()
    root.addHandler(collector)
    try:
        yield found
    finally:
        root.removeHandler(collector)


# --- scales ------------------------------------------------------------------------------------------------


def power_of_two_above(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The smallest powers of two that are no less than positive scales."""
    mantissa, exponent = np.frexp(scale)
    return np.asarray(np.ldexp(np.float32(1), exponent - (mantissa == 0.5)).astype(np.float32))


def _rounded_up(quantized: ir.Model, model: ir.Model, scheme: Scheme) -> dict[str, list[dict[str, Any]]]:
    """Scales and zero points by tensor, in the tool's terms, with which it is to quantise again."""
    graph = quantized.graph
    found: dict[str, list[dict[str, Any]]] = {}
    stored = graph.initializers
    names = {value.name for node in model.graph for value in node.outputs}
    names |= {*model.graph.initializers, *(value.name for value in model.graph.inputs)}
    axes = {
        node.inputs[1].name: node.attributes["axis"].as_int()
        for node in graph
        if node.op_type == "DequantizeLinear" and "axis" in node.attributes and node.inputs[1] is not None
    }
    for name in sorted(str(name) for name in names if name and f"{name}_scale" in stored):
        scale, zero = (_stored(graph, f"{name}_{part}") for part in ("scale", "zero_point"))
        above = power_of_two_above(scale)
        is_weight = name in model.graph.initializers
        point = zero if is_weight or scheme.symmetric else _zero_point(scale, zero, above)
        if scale.ndim == 0:
            found[name] = [{"scale": np.asarray(above), "zero_point": np.asarray(point)}]
        else:
            axis = axes.get(f"{name}_scale", 1)
            found[name] = [
                {"axis": axis, "scale": np.asarray(one), "zero_point": np.asarray(other)}
                for one, other in zip(above, np.broadcast_to(point, above.shape), strict=True)
            ]
    return found


def _zero_point(scale: npt.NDArray[Any], zero: npt.NDArray[Any], above: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The zero point for a larger scale: that with which the smallest number stays the smallest integer."""
    about = np.iinfo(zero.dtype)
    exact = about.min + (zero.astype(np.float64) - about.min) * scale.astype(np.float64) / above
    return np.asarray(np.clip(np.rint(exact), about.min, about.max).astype(zero.dtype))


def _stored(graph: ir.Graph, name: str) -> npt.NDArray[Any]:
    tensor = graph.initializers[name].const_value
    assert tensor is not None, "an initializer has a tensor"
    return tensor.numpy()


def scales(model: ir.Model) -> dict[str, npt.NDArray[Any]]:
    """Every scale of the pairs in a quantised model, by the name of its initializer."""
    pairs = ("QuantizeLinear", "DequantizeLinear")
    used = [node.inputs[1] for node in model.graph if node.op_type in pairs]
    return {
        str(value.name): value.const_value.numpy()
        for value in used
        if value is not None and value.const_value is not None
    }


def _weighted(quantized: ir.Model, model: ir.Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers of a model that read integers now, and those that read floats."""
    weights = {
        str(node.name): str(node.inputs[1].name)
        for node in model.graph
        if node.op_type in LAYERS and len(node.inputs) > 1 and node.inputs[1] is not None
    }
    after = {node.name: node for node in quantized.graph}
    layers: list[str] = []
    floats: list[str] = []
    for name, weight in weights.items():
        if weight in model.graph.initializers and name in after:
            read = after[name].inputs[1]
            maker = read.producer() if read is not None else None
            (layers if maker is not None and maker.op_type == "DequantizeLinear" else floats).append(name)
    return tuple(layers), tuple(floats)


LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is the weight of a layer."""
