"""Model files as an attacker, a bad disk, or another protobuf library would write them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.files.protobuf_scan import varint

MESSAGES = {  # field numbers that hold messages, from the model down, and the kind of message that they hold
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "function": {7: "node"},
    "tensor": {},
}
Field: TypeAlias = "tuple[bytes, list[Field] | bytes, bool]"
"""A tag, what it holds, and whether the length of that stands before it."""


def seeds() -> list[bytes]:
    """Models that keep tensors wherever ONNX lets them: by the book, oddly, and in contradictions."""
    plain, odd, wrong = rich_model(), rich_model(), rich_model()
    for tensor in odd.graph.initializer[:3]:
        tensor.doc_string = "a weight"
        tensor.metadata_props.add(key="from", value="somewhere")
    odd.graph.initializer[0].float_data.extend([1.0, 2.0])
    outside = odd.graph.initializer[3]
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="beside.bin")
    wrong.graph.initializer[1].dims[0] += 1
    wrong.graph.initializer[2].data_type = TensorProto.STRING
    wrong.graph.initializer[3].data_location = TensorProto.EXTERNAL
    return [model.SerializeToString() for model in (plain, plain, odd, odd, wrong)]


def rich_model() -> onnx.ModelProto:
    """Tensors of all widths in initializers, attributes, subgraphs, and functions with subgraphs."""
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.standard_normal((3, 5)).astype(kind), f"w{i}")
        for i, kind in enumerate((np.float32, np.float16, np.float64, np.float32))
    ]
    tensors.append(numpy_helper.from_array(rng.integers(0, 99, 40).astype(np.int8), "bytes"))
    tensors.append(helper.make_tensor("nibbles", TensorProto.INT4, [7, 9], bytes(range(32)), raw=True))
    tensors.append(helper.make_tensor("brain", TensorProto.BFLOAT16, [20], bytes(range(40)), raw=True))
    tensors.append(numpy_helper.from_array(np.empty((0, 4), np.float32), "none"))
    tensors.append(helper.make_tensor("stated", TensorProto.FLOAT, [8], [1.0] * 8))
    tensors.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"a" * 20, b"b" * 20]))
    tensors.append(numpy_helper.from_array(np.full(300, 7, np.float32), "long"))
    value = numpy_helper.from_array(rng.standard_normal(12).astype(np.float32), "v")
    constant = helper.make_node("Constant", [], ["k"], value=value)
    body = helper.make_graph([constant], "body", [], [info("k")], [tensors[0]])
    branches = helper.make_node("If", ["X"], ["b"], then_branch=body, else_branch=body)
    many = helper.make_node("Many", ["X"], ["m"], domain="own", all=tensors[:2])
    call = helper.make_node("Inner", ["X"], ["f"], domain="own")
    function = helper.make_function("own", "Inner", ["X"], ["k"], [constant, branches], [opset("", 17)])
    nodes = [constant, branches, many, call]
    graph = helper.make_graph(nodes, "g", [info("X")], [info("k")], tensors)
    return helper.make_model(
        graph, functions=[function], ir_version=10, opset_imports=[opset("", 17), opset("own", 1)]
    )


def info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def opset(domain: str, version: int) -> onnx.OperatorSetIdProto:
    return helper.make_opsetid(domain, version)


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """One mistake or more in a file."""
    fields = parsed(seed, "model")
    for _ in range(rng.choice((0, 1, 1, 2))):
        rng.choice(STRUCTURAL)(fields, rng)
    data = bytearray(written(fields))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 3))):
        rng.choice(BLIND)(data, rng)
    return bytes(data)


def parsed(data: bytes, kind: str) -> list[Field]:
    """The fields of a well-formed message, and of those within."""
    fields: list[Field] = []
    position = 0
    while position < len(data):
        tag, after = number(data, position)
        name, begin = data[position:after], after
        if tag & 7 == 2:
            length, begin = number(data, after)
            position = begin + length
        else:
            position = number(data, after)[1] if tag & 7 == 0 else after + (4 if tag & 7 == 5 else 8)
        value = data[begin:position]
        inner = MESSAGES[kind].get(tag >> 3)
        fields.append((name, parsed(value, inner) if inner else value, tag & 7 == 2))
    return fields


def number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if data[position - 1] < 0x80:
            return value, position


def written(fields: list[Field]) -> bytes:
    done = bytearray()
    for tag, value, has_length in fields:
        inner = value if isinstance(value, bytes) else written(value)
        done += tag + (varint(len(inner)) if has_length else b"") + inner
    return bytes(done)


def somewhere(fields: list[Field], rng: random.Random) -> list[Field]:
    """Any message among these; the deeper, the less likely."""
    inner = [value for _, value, _ in fields if not isinstance(value, bytes)]
    return somewhere(rng.choice(inner), rng) if inner and rng.random() < 0.8 else fields


def double(fields: list[Field], rng: random.Random) -> None:
    """A field given twice, next to each other or apart."""
    message = somewhere(fields, rng)
    if message:
        message.insert(rng.randint(0, len(message)), rng.choice(message))


def shuffle(fields: list[Field], rng: random.Random) -> None:
    rng.shuffle(somewhere(fields, rng))


def drop(fields: list[Field], rng: random.Random) -> None:
    message = somewhere(fields, rng)
    if message:
        del message[rng.randrange(len(message))]


def foreign(fields: list[Field], rng: random.Random) -> None:
    """A field that belongs elsewhere, or nowhere: any number, any way to store it, any value."""
    tag = rng.randint(0, 30) << 3 | rng.choice((0, 1, 2, 2, 2, 3, 4, 5, 6, 7))
    value = rng.choice((b"", b"\1", bytes(8), bytes(40), b"\xff" * 9 + b"\1", varint(2**63), b"\x80" * 11))
    message = somewhere(fields, rng)
    message.insert(rng.randint(0, len(message)), (varint(tag), value, tag & 7 == 2))


def transplant(fields: list[Field], rng: random.Random) -> None:
    """A field from one message in another."""
    source = somewhere(fields, rng)
    if source:
        other = somewhere(fields, rng)
        field = rng.choice(source)
        if isinstance(field[1], bytes):  # no message within itself
            other.insert(rng.randint(0, len(other)), field)


def overlong(fields: list[Field], rng: random.Random) -> None:
    """A tag or a length with more bytes than it needs."""
    message = somewhere(fields, rng)
    if message:
        index = rng.randrange(len(message))
        tag, value, has_length = message[index]
        if rng.random() < 0.5:
            padded = bytes((*tag[:-1], tag[-1] | 0x80)) + b"\x80" * rng.choice((0, 1, 8)) + b"\0"
            message[index] = (padded, value, has_length)
        elif has_length:
            inner = value if isinstance(value, bytes) else written(value)
            length = bytearray(varint(len(inner)))
            length[-1] |= 0x80
            message[index] = (tag, bytes(length) + b"\x80" * rng.choice((0, 1, 7)) + b"\0" + inner, False)


def lie(fields: list[Field], rng: random.Random) -> None:
    """A length that is not the true one."""
    message = somewhere(fields, rng)
    lengths = [index for index, field in enumerate(message) if field[2]]
    if lengths:
        index = rng.choice(lengths)
        tag, value, _ = message[index]
        inner = value if isinstance(value, bytes) else written(value)
        length = rng.choice(
            (len(inner) - 1, len(inner) + 1, 0, 2**31 - 1, 2**31, 2**32 + len(inner), 2**64 - 1)
        )
        message[index] = (tag, varint(max(length, 0)) + inner, False)


def bomb(fields: list[Field], rng: random.Random) -> None:
    """Subgraphs in subgraphs: as deep as protobuf allows, and deeper."""
    inner = b""
    for _ in range(rng.choice((20, 31, 32, 33, 34, 200))):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            inner = bytes([tag]) + varint(len(inner)) + inner
    fields.insert(rng.randint(0, len(fields)), (b"\x3a", inner, True))


STRUCTURAL: tuple[Callable[[list[Field], random.Random], None], ...] = (
    double, double, shuffle, drop, foreign, foreign, transplant, transplant, overlong, lie, bomb,
)  # fmt: skip


def flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replace(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x2A, 0x4A, 0x70, 0x7F, 0x80, 0xFF))


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randint(0, len(data)) :]


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.choice((1, 2, 3, 10, 100))]


def repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.choice((1, 2, 10, 100, 1000))]
    data[start:start] = piece


def insert(data: bytearray, rng: random.Random) -> None:
    data[(start := rng.randint(0, len(data))) : start] = rng.randbytes(rng.choice((1, 2, 8)))


def overlap(data: bytearray, rng: random.Random) -> None:
    """A piece written over another one."""
    size = rng.choice((1, 4, 30, 200))
    start, target = rng.randint(0, len(data)), rng.randint(0, len(data))
    piece = data[start : start + size]
    data[target : target + len(piece)] = piece


BLIND: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, flip, replace, truncate, cut, repeat, insert, overlap,
)  # fmt: skip
