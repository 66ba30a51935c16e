"""Well-known networks at their full size, and generated ones, built node by node with random numbers.

Only the numbers are not real: layers, sizes, strides and paddings are those of the networks, as PyTorch
exports them with every BatchNorm in place (torchvision's ResNet-50 and VGG-11, timm's NASNet-A large).
Statistics are random, and so are the signs of the scales. Nothing here needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHUNK = 2**22  # numbers that are drawn at once for a weight that goes to a separate file
_LARGEST = 2**28  # bytes of a weight of `large`, at most


class Value(NamedTuple):
    """A value in a network: its name, its channels (or features), its height and its width."""

    name: str
    channels: int
    size: tuple[int, int] = (1, 1)


class Network:
    """A graph under construction; every method adds a node (or some) and gives the value that comes out.

    Args:
        name: Of the graph.
        channels: Of the input `x`, whose batch is 1.
        size: Height and width of the input.
    """

    def __init__(self, name: str, channels: int, size: tuple[int, int]) -> None:
        self.name = name
        self.input = Value("x", channels, size)
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        channels: int,
        size: tuple[int, int],
        **attributes: object,
    ) -> Value:
        """Any operator."""
        value = Value(f"v{len(self.nodes)}", channels, size)
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [value.name], name=name, **attributes))
        return value

    def constant(self, array: np.ndarray) -> str:
        """Add an initializer and return its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        """An initializer whose numbers keep the size of what goes through: its first axis is the outputs'."""
        return self.constant(self.drawn(math.prod(shape), math.prod(shape[1:])).reshape(shape))

    def drawn(self, count: int, inputs: int) -> np.ndarray:
        """Numbers for a weight, of variance 1 / inputs."""
        array = self.rng.random(count, dtype=np.float32)
        array -= np.float32(0.5)
        array *= np.float32(math.sqrt(12 / inputs))
        return array

    def vector(self, channels: int) -> str:
        """An initializer of small numbers, one per channel."""
        return self.constant(self.rng.normal(0, 0.1, channels).astype(np.float32))

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int,
        stride: int = 1,
        pads: int = 0,
        group: int = 1,
        bias: bool = False,
    ) -> Value:
        """A convolution with a square kernel."""
        parameters = [self.weight(channels, x.channels // group, kernel, kernel)]
        parameters += [self.vector(channels)] if bias else []
        return self.node(
            "Conv",
            [x.name, *parameters],
            channels,
            _slid(x.size, kernel, stride, 2 * pads),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pads] * 4,
            group=group,
        )

    def gemm(self, x: Value, features: int) -> Value:
        """A linear layer with a bias."""
        parameters = (self.weight(features, x.channels), self.vector(features))
        return self.node("Gemm", [x.name, *parameters], features, (1, 1), transB=1)

    def batchnorm(self, x: Value) -> Value:
        """A BatchNormalization with random statistics, some of its scales negative."""
        n, rng = x.channels, self.rng
        scale = rng.uniform(0.5, 1.5, n) * np.where(rng.random(n) < 0.25, -1, 1)
        drawn = (scale, rng.uniform(-0.5, 0.5, n), rng.uniform(-0.5, 0.5, n), rng.uniform(0.25, 2, n))
        parameters = [self.constant(array.astype(np.float32)) for array in drawn]
        return self.node("BatchNormalization", [x.name, *parameters], n, x.size, epsilon=1e-5)

    def relu(self, x: Value) -> Value:
        """The activation."""
        return self.node("Relu", [x.name], x.channels, x.size)

    def pool(self, operator: str, x: Value, kernel: int, stride: int, pads: int = 0) -> Value:
        """`"MaxPool"` or `"AveragePool"`; an average leaves the padding out."""
        size = _slid(x.size, kernel, stride, 2 * pads)
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pads] * 4}
        return self.node(operator, [x.name], x.channels, size, **window)

    def pad(self, x: Value, before: int, after: int, value: float = 0.0) -> Value:
        """Pad both axes; less than zero crops."""
        amounts = np.array([0, 0, before, before, 0, 0, after, after], np.int64)
        inputs = [x.name, self.constant(amounts), self.constant(np.array(value, np.float32))]
        return self.node("Pad", inputs, x.channels, (x.size[0] + before + after, x.size[1] + before + after))

    def add(self, one: Value, other: Value) -> Value:
        """The sum of two values of one shape."""
        return self.node("Add", [one.name, other.name], one.channels, one.size)

    def concat(self, *values: Value) -> Value:
        """Channels side by side."""
        channels = sum(value.channels for value in values)
        return self.node("Concat", [value.name for value in values], channels, values[0].size, axis=1)

    def features(self, x: Value) -> Value:
        """Flatten what is not the batch."""
        return self.node("Flatten", [x.name], x.channels * math.prod(x.size), (1, 1), axis=1)

    def average(self, x: Value) -> Value:
        """The mean of every channel, flat."""
        return self.features(self.node("GlobalAveragePool", [x.name], x.channels, (1, 1)))

    def model(self, output: Value) -> onnx.ModelProto:
        """The model, when all is added; `output`, one row of features, comes from the last node."""
        shape = [1, self.input.channels, *self.input.size]
        self.nodes[-1].output[:] = ["y"]
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, output.channels])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _slid(size: tuple[int, int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Height and width of what a window makes of an image."""
    height, width = ((side + padding - kernel) // stride + 1 for side in size)
    return height, width


def resnet50(size: int = 224) -> onnx.ModelProto:
    """ResNet-50 (He and others 2015, the stride in the 3×3): 53 BatchNorms."""
    net = Network("resnet50", 3, (size, size))
    x = net.relu(net.batchnorm(net.conv(net.input, 64, 7, 2, 3)))
    x = net.pool("MaxPool", x, 3, 2, 1)
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and width > 64 else 1
            y = net.relu(net.batchnorm(net.conv(x, width, 1)))
            y = net.relu(net.batchnorm(net.conv(y, width, 3, stride, 1)))
            y = net.batchnorm(net.conv(y, 4 * width, 1))
            x = net.batchnorm(net.conv(x, 4 * width, 1, stride)) if block == 0 else x
            x = net.relu(net.add(y, x))
    return net.model(net.gemm(net.average(x), 1000))


def vgg11_bn(size: int = 224) -> onnx.ModelProto:
    """VGG-11 with BatchNorm (Simonyan and Zisserman 2014): 8 BatchNorms, most weights in linear layers."""
    net = Network("vgg11_bn", 3, (size, size))
    x = net.input
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in widths:
            x = net.relu(net.batchnorm(net.conv(x, width, 3, 1, 1, bias=True)))
        x = net.pool("MaxPool", x, 2, 2)
    x = net.features(x)
    for _ in range(2):
        x = net.relu(net.gemm(x, 4096))
    return net.model(net.gemm(x, 1000))


def large(path: Path, gigabytes: float) -> list[tuple[int, ...]]:
    """Write a model of so many gigabytes with external data.

    Convolutions first, linear layers then, each with a BatchNorm and a Relu: every large weight is folded.
    All have the same size, of 256 MiB at most, and there are at least eight.

    Args:
        path: Of the model; the weights go to `NAME.data` next to it.
        gigabytes: 10⁹ bytes of weights, as nearly as sizes divisible by 16 allow.

    Returns:
        The shapes of the large weights, which are float32.
    """
    count = max(8, math.ceil(gigabytes * 1e9 / _LARGEST))
    channels = max(16, round(math.sqrt(gigabytes * 1e9 / count / 16) / 16) * 16)
    convs = count // 2
    net = Network("large", channels, (convs + 1, convs + 2))  # 2×2 kernels leave 1×2 of it
    x = net.input
    with path.with_name(f"{path.name}.data").open("wb") as data:
        for _ in range(convs):
            weight = _written(net, data, channels, channels, 2, 2)
            y = net.node("Conv", [x.name, weight], channels, _slid(x.size, 2, 1, 0))
            x = net.relu(net.batchnorm(y))
        x = net.features(x)
        for layer in range(count - convs):
            weight = _written(net, data, x.channels, x.channels)
            y = net.node("Gemm", [x.name, weight], x.channels, (1, 1), transB=layer % 2)
            x = net.relu(net.batchnorm(y))
    onnx.save(net.model(x), path)
    return [tuple(tensor.dims) for tensor in net.constants if tensor.external_data]


def _written(net: Network, data: BinaryIO, *shape: int) -> str:
    """Append a random weight to a file, and add the initializer that refers to it."""
    total, offset = math.prod(shape), data.tell()
    for begin in range(0, total, _CHUNK):
        data.write(net.drawn(min(_CHUNK, total - begin), math.prod(shape[1:])).data)
    entries = {"location": Path(data.name).name, "offset": str(offset), "length": str(4 * total)}
    tensor = TensorProto(
        name=f"c{len(net.constants)}",
        data_type=TensorProto.FLOAT,
        dims=shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    net.constants.append(tensor)
    return tensor.name


def chain(nodes: int) -> onnx.ModelProto:
    """Small convolutions in a row, each with a BatchNorm and a Relu: as many nodes as are asked for."""
    net = Network("chain", 4, (2, 2))
    x = net.input
    while len(net.nodes) + 3 < nodes:
        x = net.relu(net.batchnorm(net.conv(x, 4, 1)))
    while len(net.nodes) + 1 < nodes:
        x = net.relu(x)
    return net.model(net.features(x))


def nasnetalarge(size: int = 331) -> onnx.ModelProto:
    """NASNet-A large (Zoph and others 2018, 6 @ 4032): separable convolutions, pools, pads and concats."""
    net = Network("nasnetalarge", 3, (size, size))
    stem = net.batchnorm(net.conv(net.input, 96, 3, 2))
    before = _first_stem(net, stem, 42)
    x = _second_stem(net, stem, before, 84)
    for width, reduce in ((168, True), (336, True), (672, False)):
        x, before = _cell(net, x, _halved(net, before, width), width), x
        for _ in range(5):
            x, before = _cell(net, x, _projected(net, before, width), width), x
        if reduce:
            # the first cell after a reduction looks back past the last normal cell
            x, before = _reduction(net, x, before, 2 * width), before
    x = net.relu(x)
    return net.model(net.gemm(net.average(x), 1000))


def _projected(net: Network, x: Value, channels: int) -> Value:
    return net.batchnorm(net.conv(net.relu(x), channels, 1))


def _separable(
    net: Network, x: Value, channels: int, kernel: int, stride: int = 1, middle: int | None = None
) -> Value:
    """Two depthwise convolutions, each with a pointwise one and a BatchNorm; the first has the stride."""
    for width, step in ((middle or x.channels, stride), (channels, 1)):
        x = net.relu(x)
        pads = kernel // 2
        if step > 1:
            x, pads = _same(net, x, kernel, step), 0
        x = net.conv(x, x.channels, kernel, step, pads, group=x.channels)
        x = net.batchnorm(net.conv(x, width, 1))
    return x


def _same(net: Network, x: Value, kernel: int, stride: int, value: float = 0.0) -> Value:
    """Pad as TensorFlow does: to as many windows as strides begin, the odd one at the end."""
    side = x.size[0]
    missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return net.pad(x, missing // 2, missing - missing // 2, value)


def _max_pool(net: Network, x: Value) -> Value:
    return net.pool("MaxPool", _same(net, x, 3, 2, -math.inf), 3, 2)


def _average_pool(net: Network, x: Value, stride: int = 1) -> Value:
    if stride == 1:
        return net.pool("AveragePool", x, 3, 1, 1)
    return net.pool("AveragePool", _same(net, x, 3, stride), 3, stride)


def _halved(net: Network, x: Value, channels: int) -> Value:
    """Two paths of half the channels over every second pixel, one of them shifted by one."""
    x = net.relu(x)
    paths = (x, net.pad(x, -1, 1))
    halves = (net.conv(net.pool("AveragePool", path, 1, 2), channels // 2, 1) for path in paths)
    return net.batchnorm(net.concat(*halves))


def _cell(net: Network, x: Value, left: Value, channels: int) -> Value:
    """A normal cell; `left` is what came before `x`, at its size."""
    right = _projected(net, x, channels)
    parts = [
        net.add(_separable(net, right, channels, 5), _separable(net, left, channels, 3)),
        net.add(_separable(net, left, channels, 5), _separable(net, left, channels, 3)),
        net.add(_average_pool(net, right), left),
        net.add(_average_pool(net, left), _average_pool(net, left)),
        net.add(_separable(net, right, channels, 3), right),
    ]
    return net.concat(left, *parts)


def _reduction(net: Network, x: Value, before: Value, channels: int) -> Value:
    left = _projected(net, before, channels)
    return _reduced(net, _projected(net, x, channels), left, channels)


def _reduced(net: Network, right: Value, left: Value, channels: int, middle: int | None = None) -> Value:
    """Half the size; `middle` is the inner width of what is made of the left value."""
    first = net.add(
        _separable(net, right, channels, 5, 2), _separable(net, left, channels, 7, 2, middle=middle)
    )
    second = net.add(_max_pool(net, right), _separable(net, left, channels, 7, 2, middle=middle))
    third = net.add(_average_pool(net, right, 2), _separable(net, left, channels, 5, 2, middle=middle))
    fourth = net.add(_average_pool(net, first), second)
    fifth = net.add(_separable(net, first, channels, 3), _max_pool(net, right))
    return net.concat(second, third, fourth, fifth)


def _first_stem(net: Network, x: Value, channels: int) -> Value:
    return _reduced(net, _projected(net, x, channels), x, channels, middle=channels)


def _second_stem(net: Network, x: Value, before: Value, channels: int) -> Value:
    return _reduced(net, _projected(net, before, channels), _halved(net, x, channels), channels)
