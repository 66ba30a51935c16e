"""Normalisations: with running statistics, over the axes of one sample, over neighbouring channels."""

from __future__ import annotations

import numpy as np

from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

EPSILON = float(np.float32(1e-5))  # an attribute is a float32, in a model of float64 too


def batch_normalization(
    call: Call, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array | tuple[Array, ...]:
    """`BatchNormalization` of every opset: `scale·(x − mean) / √(variance + ε) + bias`.

    Before opset 9, `spatial=0` normalises every element separately. Training mode uses the statistics of the
    batch; only since opset 14 is it a function of the inputs.
    """
    epsilon = call.get("epsilon", EPSILON)
    if call.opset >= 14 and call.get("training_mode", 0):
        return _trained(call, x, scale, bias, mean, variance)
    if (call.opset < 7 and not call.get("is_test", 0)) or any(call.wants(k) for k in range(1, 5)):
        raise Refusal("it is in training mode")
    if call.opset >= 9 or call.get("spatial", 1):
        scale, bias, mean, variance = (_per_channel(v, x) for v in (scale, bias, mean, variance))
    return np.asarray(scale * ((x - mean) / np.sqrt(variance + epsilon)) + bias)


def _trained(
    call: Call, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, ...]:
    axes = (0, *range(2, x.ndim))
    own_mean, own_variance = x.mean(axis=axes), x.var(axis=axes)
    keep = call.get("momentum", 0.9)
    unit = (x - _per_channel(own_mean, x)) / np.sqrt(
        _per_channel(own_variance, x) + call.get("epsilon", EPSILON)
    )
    y = _per_channel(scale, x) * unit + _per_channel(bias, x)
    return y, mean * keep + own_mean * (1 - keep), variance * keep + own_variance * (1 - keep)


def instance_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    """`InstanceNormalization`: mean 0 and variance 1 over the spatial axes, then scale and bias."""
    unit, _, _ = _standardised(x, tuple(range(2, x.ndim)), call.get("epsilon", EPSILON))
    return _per_channel(scale, x) * unit + _per_channel(bias, x)


def group_normalization(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    """`GroupNormalization`: over groups of channels and the spatial axes.

    In opset 18, `scale` and `bias` have one entry for each group; since opset 21, for each channel.
    """
    groups = call.get("num_groups")
    grouped = x.reshape(len(x), groups, -1)
    unit = _standardised(grouped, (2,), call.get("epsilon", EPSILON))[0].reshape(x.shape)
    if call.opset < 21:
        scale, bias = (np.repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return _per_channel(scale, x) * unit + _per_channel(bias, x)


def layer_normalization(
    call: Call, x: Array, scale: Array, bias: Array | None = None
) -> tuple[Array, Array, Array]:
    """`LayerNormalization` over the axes from `axis` on; gives the mean and `1 / √(variance + ε)` as well."""
    axes = _from_axis(call, x)
    unit, mean, inverse = _standardised(x, axes, call.get("epsilon", EPSILON))
    y = unit * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_normalization(call: Call, x: Array, scale: Array) -> Array:
    """`RMSNormalization`: `scale·x / √(mean x² + ε)` over the axes from `axis` on."""
    mean_square = np.mean(x * x, axis=_from_axis(call, x), keepdims=True)
    return np.asarray(x / np.sqrt(mean_square + call.get("epsilon", EPSILON)) * scale)


def mean_variance_normalization(call: Call, x: Array) -> Array:
    """`MeanVarianceNormalization`: `(x − mean) / (deviation + 1e-9)`, the constant in float32."""
    axes = tuple(call.get("axes", (0, 2, 3)))
    centred = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(centred / (x.std(axis=axes, keepdims=True) + float(np.float32(1e-9))))


def local_response_normalization(call: Call, x: Array) -> Array:
    """`LRN`: `x / (bias + α/size·Σ x²)^β`, the sum over `size` neighbouring channels."""
    size = call.get("size")
    before, after = (size - 1) // 2, size // 2
    squares = np.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, shift : shift + x.shape[1]] for shift in range(size))
    base = call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * total
    return np.asarray(x / base ** call.get("beta", 0.75))


def lp_normalization(call: Call, x: Array) -> Array:
    """`LpNormalization`: `x / (Σ |x|^p)^(1/p)` along one axis; zeros stay zeros."""
    power = call.get("p", 2)
    norm = (np.abs(x) ** power).sum(axis=call.get("axis", -1), keepdims=True) ** (1 / power)
    return np.asarray(x / np.where(norm == 0, 1.0, norm))


def _from_axis(call: Call, x: Array) -> tuple[int, ...]:
    return tuple(range(call.get("axis", -1) % x.ndim, x.ndim))


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """`x` with mean 0 and variance 1 over `axes`, the mean, and `1 / √(variance + ε)`."""
    mean = x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    return (x - mean) * inverse, mean, inverse


def _per_channel(vector: Array, x: Array) -> Array:
    """A vector over channels, shaped to broadcast against `(N, C, *sizes)`."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
}
