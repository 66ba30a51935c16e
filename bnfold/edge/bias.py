"""Bias correction: what rounded weights shift on average is taken back by the biases.

A weight in eight bits is off by a constant, and what it is multiplied with is seldom 0 on average, least of
all after a Relu. So the output of a layer moves by a constant too, channel by channel, and the layers after
it carry that on. The shift is a mean, so data says what it is, and a bias takes it back at no cost.

Source: M. Nagel, M. van Baalen, T. Blankevoort and M. Welling, "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2 and the empirical form of the appendix. There, the
data are run again after every layer. Here one run is enough: in it every layer's mean is put right as soon as
it is computed, so that the layers after it read what they will read in the corrected model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.contract.opsets import opset_of
from bnfold.edge.noise import signal_to_noise
from bnfold.edge.rows import rows_of
from bnfold.graph.naming import Names
from bnfold.runtime.sessions import Feeds, run, session

Array = npt.NDArray[np.float64]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm")  # those with a bias of their own, and channels on axis 1
_CHANNELS = 1
_AXES_ARE_AN_INPUT = 18  # the opset from which on ReduceMean takes them so


@dataclass(frozen=True)
class Corrected:
    """The outcome of a correction.

    Attributes:
        model: The quantised model, with other biases if that helped.
        layers: Names of the nodes whose biases are other ones.
        gain: By how many dB one half of the rows makes the worst output better on the other half, with the
            optimizer off.
    """

    model: ir.Model
    layers: tuple[str, ...] = ()
    gain: float = 0.0


def correct(
    model: ir.Model, quantized: ir.Model, layers: Sequence[str], samples: Sequence[Feeds]
) -> Corrected:
    """Correct the biases of quantised layers, if that makes the outputs better.

    What one half of the samples says is judged on the other half, and both halves then say how much. A single
    sample judges itself. The optimizer is off, so that the file does not depend on the integer kernels of the
    machine that writes it.

    Args:
        model: The model in floats. It is not modified.
        quantized: The same in pairs of QuantizeLinear and DequantizeLinear, with the names of nodes kept. It
            is not modified.
        layers: Names of the quantised layers; those without a bias of their own (MatMul) are passed over, and
            those in half precision, whose means would be coarse.
        samples: Real inputs, of some 64 rows.

    Raises:
        ModelError: ONNX Runtime cannot run one of the models.
    """
    ranks = {
        str(node.name): _rank(node)
        for node in model.graph
        if node.name in set(layers) and node.op_type in _OPERATORS and _is_float(node)
    }
    if not ranks:
        return Corrected(quantized)
    found, half = _shifts(model, quantized, ranks, samples), len(samples) // 2
    trial, names = _with_biases(quantized, _mean_of(found[:half] or found))
    if not names:
        return Corrected(quantized)
    before, after = (signal_to_noise(model, one, samples[half:], "off") for one in (quantized, trial))
    if not after > before or not math.isfinite(before):  # nor where one is NaN
        return Corrected(quantized)
    changed, names = _with_biases(quantized, _mean_of(found))
    return Corrected(changed, names, after - before)


# --- what is shifted ---------------------------------------------------------------------------------------


def _shifts(
    model: ir.Model, quantized: ir.Model, ranks: Mapping[str, int], samples: Sequence[Feeds]
) -> list[tuple[int, dict[str, Array]]]:
    """For each sample its rows, and what each layer lacks on average; of shape (channels,)."""
    floats = session(_with_means(model, ranks), optimized="off")
    right, given = _put_right(quantized, ranks)
    integers = session(right, optimized="off")
    found = []
    for feeds in samples:
        means = dict(zip(given, run(floats, feeds), strict=True))
        missing = [one.astype(np.float64).reshape(-1) for one in run(integers, {**feeds, **means})]
        found.append((rows_of(feeds), dict(zip(ranks, missing, strict=True))))
    return found


def _mean_of(found: Sequence[tuple[int, dict[str, Array]]]) -> dict[str, Array]:
    """What is missing on average over all rows."""
    counts = [rows for rows, _ in found]
    return {name: np.average([one[name] for _, one in found], axis=0, weights=counts) for name in found[0][1]}


def _with_means(model: ir.Model, ranks: Mapping[str, int]) -> ir.Model:
    """The model whose outputs are the means of its layers' outputs alone."""
    copy = model.clone()
    nodes, names = _by_name(copy), Names(copy)
    copy.graph.outputs.clear()
    for name, rank in ranks.items():
        copy.graph.outputs.append(_mean(copy, nodes[name], rank, names).outputs[0])
    return copy


def _put_right(quantized: ir.Model, ranks: Mapping[str, int]) -> tuple[ir.Model, list[str]]:
    """The model that is given the means, adds what is missing to every layer, and outputs what it added.

    Returns:
        The model, and the names of the inputs that are the means.
    """
    copy = quantized.clone()
    nodes, names, given = _by_name(copy), Names(copy), []
    copy.graph.outputs.clear()
    for name, rank in ranks.items():
        layer = nodes[name]
        given.append(names.fresh("bnfold:wanted"))
        wanted = ir.Value(name=given[-1], type=ir.TensorType(ir.DataType.FLOAT))
        copy.graph.inputs.append(wanted)
        mean = _mean(copy, layer, rank, names)
        missing = ir.Node("", "Sub", [wanted, mean.outputs[0]])
        missing.outputs[0].name = names.fresh("bnfold:missing")
        missing.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        added = ir.Node("", "Add", [layer.outputs[0], missing.outputs[0]])
        added.outputs[0].name = names.fresh("bnfold:put_right")
        for reader, index in tuple(layer.outputs[0].uses()):
            if reader is not mean and reader is not added:
                reader.replace_input_with(index, added.outputs[0])
        copy.graph.insert_after(mean, [missing, added])
        copy.graph.outputs.append(missing.outputs[0])
    return copy, given


def _mean(model: ir.Model, layer: ir.Node, rank: int, names: Names) -> ir.Node:
    """Insert the mean of a layer's output over all axes but that of the channels."""
    axes = [axis for axis in range(rank) if axis != _CHANNELS]
    inputs: list[ir.Value | None] = [layer.outputs[0]]
    attributes = [ir.AttrInt64("keepdims", 1)]
    if opset_of(model) < _AXES_ARE_AN_INPUT:
        attributes.append(ir.AttrInt64s("axes", axes))
    else:
        inputs.append(_constant(model, names.fresh("bnfold:axes"), np.asarray(axes, np.int64)))
    mean = ir.Node("", "ReduceMean", inputs, attributes)
    mean.outputs[0].name = names.fresh("bnfold:mean")
    mean.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_after(layer, mean)
    return mean


# --- biases ------------------------------------------------------------------------------------------------


def _with_biases(quantized: ir.Model, shifts: Mapping[str, Array]) -> tuple[ir.Model, tuple[str, ...]]:
    """A clone whose integer biases have the shifts in them, and the layers of which that is true."""
    copy, done = quantized.clone(), []
    nodes, names = _by_name(copy), Names(copy)
    for name, shift in shifts.items():
        layer = nodes[name]
        if np.isfinite(shift).all() and _ensure_bias(copy, layer, shift, names) and _add(layer, shift):
            done.append(name)
    return copy, tuple(done)


def _add(layer: ir.Node, shift: Array) -> bool:
    """Add to the bias of a layer, if it is its own and one integer for each channel."""
    pair = _pair(layer, 2)
    if pair is None or _factor(layer, "beta") != 1:
        return False
    stored, integers, scale = pair
    is_own = len(stored.uses()) == 1 and len(layer.inputs[2].uses()) == 1  # type: ignore[union-attr]
    has_one_each = integers.size == shift.size and integers.shape[-1:] == shift.shape
    fits = has_one_each and scale.size in (1, shift.size) and bool(np.all(scale > 0))
    if not is_own or not fits or integers.dtype != np.int32:
        return False
    limits = np.iinfo(np.int32)
    wanted = integers + np.rint(shift / scale.astype(np.float64)).reshape(integers.shape)
    stored.const_value = ir.Tensor(np.clip(wanted, limits.min, limits.max).astype(np.int32), name=stored.name)
    return bool(np.any(stored.const_value.numpy() != integers))


def _ensure_bias(model: ir.Model, layer: ir.Node, shift: Array, names: Names) -> bool:
    """Give a layer without bias one of zeros, with the scale that integer kernels want: that of a product.

    A shift of less than half a step leaves it without, and so do factors of a Gemm, with which ONNX Runtime
    computes in floats once there is a bias.
    """
    if len(layer.inputs) > 2 and layer.inputs[2] is not None:
        return True
    read, weight = _pair(layer, 0, is_constant=False), _pair(layer, 1)
    if read is None or weight is None or any(_factor(layer, name) != 1 for name in ("alpha", "beta")):
        return False
    scale = np.asarray(read[2] * weight[2], np.float32)
    if scale.size not in (1, shift.size) or not np.all(scale > 0) or not np.rint(shift / scale).any():
        return False
    parts = {
        "quantized": np.zeros(shift.size, np.int32),
        "scale": scale,
        "zero_point": np.zeros(scale.shape, np.int32),
    }
    own = names.fresh(f"{layer.name}:bias")
    values = [_constant(model, names.fresh(f"{own}_{part}"), array) for part, array in parts.items()]
    attributes = [ir.AttrInt64("axis", 0)] if scale.ndim else []
    name = names.fresh(f"{own}_DequantizeLinear")
    dequantized = ir.Node("", "DequantizeLinear", values, attributes, name=name)
    dequantized.outputs[0].name = own
    model.graph.insert_before(layer, dequantized)
    layer.resize_inputs(max(3, len(layer.inputs)))
    layer.replace_input_with(2, dequantized.outputs[0])
    return True


def _factor(layer: ir.Node, name: str) -> float:
    """A factor of a Gemm: `alpha` of its product, `beta` of its bias."""
    return layer.attributes[name].as_float() if name in layer.attributes else 1.0


def _pair(
    layer: ir.Node, index: int, *, is_constant: bool = True
) -> tuple[ir.Value, npt.NDArray[Any], npt.NDArray[Any]] | None:
    """What the DequantizeLinear before an input reads: its value, the integers, and their scale.

    The integers are empty where the value need not be a constant.
    """
    read = layer.inputs[index] if index < len(layer.inputs) else None
    maker = read.producer() if read is not None else None
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    stored, scale = maker.inputs[:2]
    if stored is None or scale is None or scale.const_value is None:
        return None
    if not is_constant:
        return stored, np.zeros(0), scale.const_value.numpy()
    if stored.const_value is None:
        return None
    return stored, stored.const_value.numpy(), scale.const_value.numpy()


# --- graphs ------------------------------------------------------------------------------------------------


def _constant(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _by_name(model: ir.Model) -> dict[str, ir.Node]:
    return {str(node.name): node for node in model.graph}


def _rank(node: ir.Node) -> int:
    """The number of dimensions of a layer's output: that of its weight."""
    weight = node.inputs[1]
    assert weight is not None, "a quantised layer reads a constant weight"
    assert weight.const_value is not None, "a quantised layer reads a constant weight"
    return len(weight.const_value.shape)


def _is_float(node: ir.Node) -> bool:
    """Whether a layer's weight is in float32."""
    weight = node.inputs[1]
    return weight is not None and weight.dtype == ir.DataType.FLOAT
