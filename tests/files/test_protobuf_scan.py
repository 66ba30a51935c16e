"""The scanner of protobuf's wire format, compared with protobuf itself."""

from __future__ import annotations

import random
import time

import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from bnfold.files import protobuf_scan
from bnfold.files.protobuf_scan import RawData, WireError, field, raw_data, replaced, varint
from tests.files.mutations import bomb, mutated, parsed, rich_model, seeds, written


def tensor_bytes(data: bytes, smallest: int = 0) -> list[bytes]:
    return [data[raw.begin : raw.stop] for raw in raw_data(data, smallest)]


def all_tensors(message: Message) -> list[TensorProto]:
    """In the order of the field numbers, which is that of the data."""
    found = [message] if isinstance(message, TensorProto) else []
    for descriptor, value in sorted(message.ListFields(), key=lambda pair: pair[0].number):
        if descriptor.type == descriptor.TYPE_MESSAGE:
            parts = [value] if isinstance(value, Message) else value
            found += [tensor for part in parts for tensor in all_tensors(part)]
    return found


def one_tensor(tensor: TensorProto) -> bytes:
    graph = onnx.GraphProto(initializer=[tensor])
    return onnx.ModelProto(ir_version=8, graph=graph).SerializeToString()


def test_it_finds_every_tensor_that_has_raw_data() -> None:
    model = rich_model()
    expected = [tensor.raw_data for tensor in all_tensors(model) if tensor.HasField("raw_data")]
    assert len(expected) > 20
    assert tensor_bytes(model.SerializeToString()) == expected


def test_smaller_ones_are_left_out() -> None:
    data = rich_model().SerializeToString()
    assert [len(found) for found in tensor_bytes(data, 1000)] == [1200]
    assert {len(found) for found in tensor_bytes(data, 60)} == {60, 120, 1200}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float_data", [1.0]),
        ("int32_data", [1]),
        ("string_data", [b"a"]),
        ("external_data", [onnx.StringStringEntryProto(key="location", value="x")]),
        ("data_location", TensorProto.EXTERNAL),
        ("data_location", TensorProto.DEFAULT),
        ("segment", TensorProto.Segment(begin=1)),
    ],
)
def test_a_tensor_that_holds_more_than_raw_data_is_left_out(name, value) -> None:
    tensor = TensorProto(raw_data=bytes(80), dims=[20], data_type=1)
    assert len(raw_data(one_tensor(tensor), 4)) == 1
    assert not raw_data(one_tensor(TensorProto(**{name: value}, raw_data=bytes(80))), 4)


def test_raw_data_given_twice_and_unknown_fields_are_left_out() -> None:
    once = field(9, bytes(50))
    for content, count in (
        (once, 1),
        (once + once, 0),
        (once + field(99, b"x"), 0),
        (b"\x0a\x01\x05" + once, 1),
    ):
        assert len(raw_data(field(7, field(5, content)), 4)) == count


def test_a_message_given_twice() -> None:
    tensor = field(9, bytes(50))
    attribute = field(1, b"value") + field(5, tensor)
    node = field(5, attribute)
    assert len(raw_data(field(7, field(1, node)), 4)) == 1
    assert len(raw_data(field(7, field(1, node) * 2), 4)) == 2
    for twice in (
        field(7, field(1, node)) + field(7, b""),
        field(7, field(1, field(5, attribute + field(5, b"")))),
    ):
        with pytest.raises(WireError, match="twice"):
            raw_data(twice, 4)


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x05\x2a\x04\x4a\x03ab",  # the file ends early
        b"\x3a\x04\x2a\x04\x4a\x02ab",  # a tensor that leaves its graph
        b"\x3a\x06\x2a\x04\x4a\x03ab",  # raw data that leaves its tensor
        b"\x3a\x86\x00\x2a\x04\x4a\x02ab",  # a length of two bytes where one is enough
        b"\xba\x00\x06\x2a\x04\x4a\x02ab",  # a tag likewise
        b"\x3a\xff\xff\xff\xff\x7f",  # a length beyond 2³¹
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08" + b"\xff" * 20,  # a number that does not end
        b"\x08",  # none at all
        b"\x3b\x3c",  # a group
        b"\x02\x00",  # field 0
        b"\x0d\0\0\0",  # four bytes, of which three are there
    ],
)
def test_what_it_does_not_vouch_for(data) -> None:
    with pytest.raises(WireError):
        raw_data(data, 0)


def test_every_truncation_that_it_looks_at_is_refused() -> None:
    data = one_tensor(TensorProto(raw_data=bytes(300), dims=[75], data_type=1, name="w"))
    for length in range(3, len(data)):
        with pytest.raises(WireError):
            raw_data(data[:length], 0)


def test_depth_is_bounded() -> None:
    fields = [part for part in parsed(seeds()[0], "model") if part[0] != b"\x3a"]
    depths = {"read": 0, "refused": 0}
    for seed in range(30):
        bombed = list(fields)
        bomb(bombed, random.Random(seed))
        try:
            raw_data(written(bombed), 0)
        except WireError:
            depths["refused"] += 1
        else:
            depths["read"] += 1
    assert min(depths.values()) > 3


def test_a_file_of_nothing_but_small_fields_is_left_to_protobuf(monkeypatch) -> None:
    data = b"\x08\x01" * 1001
    assert raw_data(data, 4096) == []
    monkeypatch.setattr(protobuf_scan, "_MOST_FIELDS", 1000)
    with pytest.raises(WireError, match="too many"):
        raw_data(data, 4096)


def test_random_bytes_raise_nothing_else() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        data = rng.randbytes(rng.choice((3, 10, 100)))
        try:
            found = raw_data(rng.choice((b"", b"\x3a\x40\x2a\x20")) + data, 0)
        except WireError:
            continue
        assert all(raw.start < raw.begin <= raw.stop for raw in found)


def test_what_it_finds_in_mutated_files_is_a_tensor_of_protobuf() -> None:
    models, rng, seen = seeds(), random.Random(3), 0
    for _ in range(1000):
        data = mutated(rng.choice(models), rng)
        model = onnx.ModelProto()
        try:
            found = tensor_bytes(data, 16)
            model.ParseFromString(data)
        except (WireError, DecodeError):
            continue
        expected = {tensor.raw_data for tensor in all_tensors(model)}
        assert set(found) <= expected
        seen += bool(found)
    assert seen > 200


@pytest.mark.parametrize("sizes", [(0, 1, 127), (126, 128, 130), (16_383, 16_384, 5), (2**21, 3, 2**21 - 9)])
def test_replaced_is_what_protobuf_writes(sizes) -> None:
    """Marks exchanged for the tensors' bytes, where lengths grow by one byte and by several."""
    model = rich_model()
    tensors = [tensor for tensor in all_tensors(model) if tensor.HasField("raw_data")]
    payloads = [random.Random(i).randbytes(sizes[i % 3] + i) for i in range(len(tensors))]
    for index, tensor in enumerate(tensors):
        tensor.raw_data = b"%16d" % index
    marked = model.SerializeToString(deterministic=True)
    for tensor, payload in zip(tensors, payloads, strict=True):
        tensor.raw_data = payload
    assert joined(marked, raw_data(marked, 16), payloads) == model.SerializeToString(deterministic=True)


def joined(data: bytes, found: list[RawData], payloads: list[bytes]) -> bytes:
    changes = [
        (raw, b"\x4a" + varint(len(payload)), len(payload))
        for raw, payload in zip(found, payloads, strict=True)
    ]
    order = list(range(len(changes)))
    random.Random(1).shuffle(order)  # the order of changes does not matter
    pieces = replaced(data, [changes[index] for index in order])
    return b"".join(piece if isinstance(piece, bytes) else payloads[order[piece]] for piece in pieces)


def test_nothing_to_replace() -> None:
    data = rich_model().SerializeToString()
    assert replaced(data, []) == [data]


def test_thousands_of_nodes_take_milliseconds() -> None:
    """Nodes too small to hold a tensor are not looked into."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)
    graph = onnx.GraphProto(node=[node] * 10_000)
    data = onnx.ModelProto(graph=graph).SerializeToString()
    started = time.process_time()
    assert not raw_data(data, 4096)
    assert time.process_time() - started < 1  # it takes some ten milliseconds
