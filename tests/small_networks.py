"""Small networks of every common build: the trained ones of `models/`, and others written node by node.

Each is a function of a seed, which gives its BatchNorms random statistics. Their sizes are small: most are
folded and validated in a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper, numpy_helper

from bnfold.torch import load, to_onnx
from models import files

Network = Callable[[int], onnx.ModelProto]
NEGATIVE = 0.3  # share of the channels whose scale is below zero


class Draft:
    """A graph that is being written: layers by name, each of which gives the name of its output.

    Args:
        seed: Of all its numbers.
        dtype: Of every float in it.
    """

    def __init__(self, seed: int, dtype: type = np.float32) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, name: str, array: Any) -> str:
        """An initializer."""
        array = np.asarray(array)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Any node with one output."""
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def weight(self, name: str, *shape: int, fan: int) -> str:
        """Weights that keep the size of what they read."""
        return self.constant(f"{name}.weight", self.rng.normal(0, fan**-0.5, shape))

    def conv(
        self, name: str, x: str, sizes: tuple[int, ...], *, bias: bool = False, op: str = "Conv", **more: Any
    ) -> str:
        """A Conv of a weight of these sizes, or a ConvTranspose."""
        weight = self.weight(name, *sizes, fan=int(np.prod(sizes[1:])))
        channels = sizes[0] if op == "Conv" else sizes[1] * more.get("group", 1)
        terms = [self.constant(f"{name}.bias", self.rng.normal(0, 0.5, channels))] if bias else []
        return self.node(op, name, x, weight, *terms, **more)

    def gemm(self, name: str, x: str, cin: int, cout: int) -> str:
        """PyTorch's Linear layer."""
        bias = self.constant(f"{name}.bias", self.rng.normal(0, 0.5, cout))
        return self.node("Gemm", name, x, self.weight(name, cout, cin, fan=cin), bias, transB=1)

    def norm(self, name: str, x: str, channels: int) -> str:
        """An eval-mode BatchNorm, far from the identity."""
        parts = statistics(self.rng, channels)
        names = [self.constant(f"{name}.{part}", array) for part, array in parts.items()]
        return self.node("BatchNormalization", name, x, *names, epsilon=1e-5)

    def model(self, shape: Sequence[int | str], y: str) -> onnx.ModelProto:
        """The model from `x` of this shape to the value `y`, which is then called `y`."""
        self.nodes.append(helper.make_node("Identity", [y], ["y"], "out"))
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", kind, list(shape))],
            [helper.make_tensor_value_info("y", kind, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def statistics(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    """Random parameters of a BatchNorm in the order of its inputs, `NEGATIVE` of the scales below zero."""
    sign = np.where(rng.random(channels) < NEGATIVE, -1.0, 1.0)
    return {
        "gamma": sign * rng.uniform(0.5, 1.5, channels),
        "beta": rng.normal(0, 0.5, channels),
        "mean": rng.normal(0, 0.5, channels),
        "var": rng.uniform(0.4, 2.0, channels),
    }


def restated(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same network with other random statistics in all its BatchNorms; seed 0 leaves it as it is."""
    rng, copy = np.random.default_rng(seed), onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node if seed else ():
        if node.op_type == "BatchNormalization":
            tensors = [stored[name] for name in node.input[1:]]
            for tensor, array in zip(tensors, statistics(rng, tensors[0].dims[0]).values(), strict=True):
                dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))
    return copy


def residual(seed: int, dtype: type = np.float32) -> onnx.ModelProto:
    """Two residual blocks, the second with a convolution on its shortcut."""
    d = Draft(seed, dtype)
    x = d.node(
        "Relu", "stem.relu", d.norm("stem.bn", d.conv("stem.conv", "x", (8, 3, 3, 3), pads=[1] * 4), 8)
    )
    for number, (cin, cout, stride) in enumerate(((8, 8, 1), (8, 16, 2)), 1):
        name, more = f"layer{number}", {"pads": [1] * 4}
        a = d.conv(f"{name}.conv1", x, (cout, cin, 3, 3), strides=[stride] * 2, **more)
        a = d.node("Relu", f"{name}.relu1", d.norm(f"{name}.bn1", a, cout))
        a = d.norm(f"{name}.bn2", d.conv(f"{name}.conv2", a, (cout, cout, 3, 3), **more), cout)
        if stride > 1:
            x = d.conv(f"{name}.down.conv", x, (cout, cin, 1, 1), strides=[stride] * 2)
            x = d.norm(f"{name}.down.bn", x, cout)
        x = d.node("Relu", f"{name}.relu2", d.node("Add", f"{name}.add", a, x))
    x = d.node("Flatten", "flat", d.node("GlobalAveragePool", "pool", x))
    return d.model(["N", 3, 12, 12], d.gemm("fc", x, 16, 10))


def half(seed: int) -> onnx.ModelProto:
    """The residual network in float16."""
    return residual(seed, np.float16)


def inverted(seed: int) -> onnx.ModelProto:
    """An inverted residual: expanded, filtered channel by channel, projected and added."""
    d = Draft(seed)
    low, high = d.constant("low", np.float32(0)), d.constant("high", np.float32(6))
    x = d.norm("stem.bn", d.conv("stem.conv", "x", (8, 3, 3, 3), strides=[2, 2], bias=True), 8)
    a = d.norm("expand.bn", d.conv("expand.conv", x, (16, 8, 1, 1)), 16)
    a = d.conv(
        "depth.conv", d.node("Clip", "expand.relu6", a, low, high), (16, 1, 3, 3), group=16, pads=[1] * 4
    )
    a = d.node("Clip", "depth.relu6", d.norm("depth.bn", a, 16), low, high)
    a = d.norm("project.bn", d.conv("project.conv", a, (8, 16, 1, 1)), 8)
    return d.model(["N", 3, 13, 13], d.node("Add", "sum", x, a))


def generator(seed: int) -> onnx.ModelProto:
    """Transposed convolutions as in DCGAN, one of them in two groups."""
    d, up = Draft(seed), {"op": "ConvTranspose", "strides": [2, 2], "pads": [1] * 4}
    x = d.conv("up1.conv", "x", (6, 12, 4, 4), op="ConvTranspose")
    x = d.node("Relu", "up1.relu", d.norm("up1.bn", x, 12))
    x = d.conv("up2.conv", x, (12, 4, 4, 4), group=2, bias=True, **up)
    x = d.node("Relu", "up2.relu", d.norm("up2.bn", x, 8))
    return d.model(["N", 6, 1, 1], d.node("Tanh", "tanh", d.conv("up3.conv", x, (8, 3, 4, 4), **up)))


def pointnet(seed: int) -> onnx.ModelProto:
    """Points, each by itself, their maximum, then Linear → BatchNorm."""
    d = Draft(seed)
    x = "x"
    for name, cin, cout in (("point1", 3, 8), ("point2", 8, 8), ("point3", 8, 16)):
        x = d.norm(f"{name}.bn", d.conv(f"{name}.conv", x, (cout, cin, 1), bias=True), cout)
        x = d.node("Relu", f"{name}.relu", x) if name != "point3" else x
    x = d.node("ReduceMax", "max", x, d.constant("axes", np.array([2])), keepdims=0)
    x = d.node("Relu", "head.relu", d.norm("head.bn", d.gemm("head.fc", x, 16, 8), 8))
    return d.model(["N", 3, 20], d.gemm("fc", x, 8, 4))


def levit(seed: int) -> onnx.ModelProto:
    """Attention as LeViT has it: every Linear is MatMul → Reshape → BatchNorm → Reshape; sizes agree."""
    d = Draft(seed)
    flat = d.constant("flat", np.array([-1, 8]))
    tokens = d.constant("tokens", np.array([-1, 8, 8]))

    def linear(name: str, x: str) -> str:
        x = d.node("MatMul", f"{name}.fc", x, d.weight(name, 8, 8, fan=8))
        x = d.norm(f"{name}.bn", d.node("Reshape", f"{name}.flat", x, flat), 8)
        return d.node("Reshape", f"{name}.back", x, tokens)

    q, k, v = (linear(name, "x") for name in ("q", "k", "v"))
    k = d.node("Transpose", "k.t", k, perm=[0, 2, 1])
    attention = d.node("Softmax", "softmax", d.node("MatMul", "scores", q, k), axis=-1)
    mixed = d.node("HardSwish", "act", d.node("MatMul", "mixed", attention, v))
    return d.model(["N", 8, 8], d.node("Add", "sum", "x", linear("proj", mixed)))


def sequence(seed: int) -> onnx.ModelProto:
    """One-dimensional convolutions, one of them in groups, and a BatchNorm before each of two poolings."""
    d = Draft(seed)
    x = d.norm("first.bn", d.conv("first.conv", "x", (8, 4, 5), pads=[2, 2]), 8)
    x = d.node("AveragePool", "first.pool", x, kernel_shape=[2], strides=[2])
    x = d.conv("second.conv", d.node("Relu", "relu", x), (8, 2, 3), group=4, bias=True)
    x = d.node("GlobalAveragePool", "pool", d.norm("second.bn", x, 8))
    return d.model(["N", 4, "T"], d.gemm("fc", d.node("Flatten", "flattened", x), 8, 3))


def quantized(seed: int) -> onnx.ModelProto:
    """Convolutions of int8 weights with a scale a channel, as a quantizer leaves them."""
    d = Draft(seed)
    x = "x"
    for name, cin, cout in (("q1", 3, 8), ("q2", 8, 8)):
        integers = d.constant(f"{name}.int8", d.rng.integers(-100, 101, (cout, cin, 3, 3), dtype=np.int8))
        scale = d.constant(f"{name}.scale", d.rng.uniform(0.002, 0.006, cout))
        weight = d.node("DequantizeLinear", f"{name}.dq", integers, scale, axis=0)
        x = d.node("Conv", f"{name}.conv", x, weight, pads=[1] * 4)
        x = d.node("Relu", f"{name}.relu", d.norm(f"{name}.bn", x, cout))
    return d.model(["N", 3, 8, 8], x)


def preactivated(seed: int) -> onnx.ModelProto:
    """BatchNorm → padded Conv, where the shift must not pass: the first BatchNorm stays."""
    d = Draft(seed)
    x = d.node("Relu", "relu", d.conv("stem", "x", (8, 3, 3, 3)))
    x = d.conv("padded", d.norm("pre.bn", x, 8), (8, 8, 3, 3), pads=[1] * 4)
    x = d.node("Relu", "relu2", d.norm("post.bn", x, 8))
    return d.model(["N", 3, 9, 9], d.conv("last", x, (4, 8, 1, 1), bias=True))


def overflowing(seed: int) -> onnx.ModelProto:
    """Float16 weights that their BatchNorm would take out of range, where numbers are small."""
    d = Draft(seed, np.float16)
    x = d.node("Mul", "small", d.conv("stem", "x", (4, 3, 3, 3)), d.constant("tiny", np.float32(2e-4)))
    x = d.node("Relu", "relu", x)
    weight = d.constant("wide.weight", d.rng.uniform(100, 900, (6, 4, 1, 1)))
    x = d.norm("wide.bn", d.node("Conv", "wide.conv", x, weight), 6)
    gamma = next(tensor for tensor in d.tensors if tensor.name == "wide.bn.gamma")
    gamma.CopyFrom(numpy_helper.from_array(d.rng.uniform(200, 300, 6).astype(np.float16), gamma.name))
    return d.model(["N", 3, 6, 6], d.conv("last", x, (4, 6, 1, 1)))


def siamese(seed: int) -> onnx.ModelProto:
    """Two convolutions of one weight, one of them before a BatchNorm, and a square Gemm → BatchNorm."""
    d = Draft(seed)
    a = d.conv("left.conv", "x", (6, 3, 3, 3))
    b = d.node("Conv", "right.conv", d.node("Neg", "turned", "x"), "left.conv.weight")
    x = d.node("Add", "sum", d.norm("left.bn", a, 6), d.node("Sigmoid", "right.act", b))
    x = d.node("Flatten", "flat", d.node("GlobalAveragePool", "pool", d.node("Relu", "relu", x)))
    return d.model(["N", 3, 7, 7], d.norm("bn", d.gemm("square", x, 6, 6), 6))


@cache
def exported(name: str, channels: int) -> onnx.ModelProto:
    """A trained file of `models/`, exported as bnfold does it."""
    return ir.to_proto(to_onnx(load(files.FOLDER / name), [torch.zeros(1, channels, 32, 32)]))


def trained(name: str, channels: int, seed: int) -> onnx.ModelProto:
    """A trained file of `models/`; every seed but 0 gives its BatchNorms other statistics."""
    return restated(exported(name, channels), seed)


NETWORKS: dict[str, Network] = {
    "ConvNet": partial(trained, "convnet.pt", 1),
    "CNNWithBatchNorm": partial(trained, "cnn_with_batchnorm.pt", 3),
    "RepVGGNet": partial(trained, "repvgg.pt2", 1),
    "MobileOneNet": partial(trained, "mobileone.pt2", 1),
    "PreActResNet": partial(trained, "preact_resnet.pt2", 1),
    "DenseNet": partial(trained, "densenet.pt2", 1),
} | {
    network.__name__: network
    for network in (
        residual,
        half,
        inverted,
        generator,
        pointnet,
        levit,
        sequence,
        quantized,
        preactivated,
        overflowing,
        siamese,
    )
}
