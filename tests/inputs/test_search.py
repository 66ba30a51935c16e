"""The sizes that a model is tried at are as many and as different as it accepts, and those that matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from bnfold.errors import InputError, ModelError
from bnfold.inputs import search, sizes
from bnfold.inputs.samples import Samples, choose
from bnfold.inputs.sizes import Sizing
from bnfold.runtime import sessions
from bnfold.runtime.interface import Port, as_ir, interface
from tests.graphs import build, weight


def anything(_feeds: object) -> None:
    """A model that accepts everything."""


def only(accepts):
    """A model that accepts the inputs of which `accepts` is true."""

    def run(feeds):
        if not accepts(feeds):
            raise ModelError("wrong size")

    return run


IMAGE = Port("x", "float32", ("N", 3, "H", "W"))
ALL_PAIRS = {(0, 0), (0, 1), (1, 0), (1, 1)}


def tried(ports: Port | list[Port], run=anything) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of every sizing, by input."""
    ports = [ports] if isinstance(ports, Port) else ports
    drawn = [sizes.draw(ports, sizing, seed=0) for sizing in search.plan(ports, run, 0).sizings]
    return [{name: array.shape for name, array in feeds.items()} for feeds in drawn]


def shapes(port: Port, run=anything) -> list[tuple[int, ...]]:
    return [one[port.name] for one in tried(port, run)]


def pairs(found: list[tuple[int, ...]], one: int, other: int) -> set[tuple[int, int]]:
    """The parities that two axes have together."""
    return {(shape[one] % 2, shape[other] % 2) for shape in found}


def test_a_picture_is_tried_at_every_pair_of_parities():
    found = shapes(IMAGE)
    assert [shape[0:1] + shape[2:] for shape in found] == [
        (1, 64, 64),
        (3, 65, 65),
        (1, 1, 1),
        (2, 1, 1),
        (2, 96, 65),
        (2, 65, 96),
    ]
    assert pairs(found, 0, 2) == pairs(found, 0, 3) == pairs(found, 2, 3) == ALL_PAIRS


def test_static_shapes_are_not_tried_beforehand():
    def forbidden(_feeds):
        raise AssertionError("nothing to choose")

    assert shapes(Port("x", "float32", (2, 3)), forbidden) == [(2, 3)]


def test_nothing_is_tried_twice():
    seen = []
    search.plan([IMAGE], lambda feeds: seen.append(feeds["x"].shape), 0)
    assert len(seen) == len(set(seen)) <= 10


def test_a_batch_alone():
    assert shapes(Port("x", "float32", ("N", 5))) == [(1, 5), (3, 5), (2, 5)]


def test_a_size_alone():
    assert shapes(Port("x", "float32", (1, 3, "H", 7))) == [(1, 3, size, 7) for size in (64, 65, 1, 96)]
    assert pairs(shapes(Port("x", "float32", (1, 3, "H", "W"))), 2, 3) == ALL_PAIRS


def test_channels_that_stand_last():
    port = Port("x", "float32", ("N", "H", "W", 3))
    assert {shape[3] for shape in shapes(port)} == {3}
    assert pairs(shapes(port), 1, 2) == ALL_PAIRS
    volume = Port("x", "float32", (1, None, None, None, 2))
    assert shapes(volume)[:2] == [(1, 64, 64, 64, 2), (1, 65, 65, 65, 2)]


def test_one_symbol_one_size():
    ports = [Port("x", "int64", ("N", "L")), Port("m", "bool", ("N", "L")), Port("t", "float32", ("L", "N"))]
    for found in tried(ports):
        assert found["x"] == found["m"] == found["t"][::-1]
    squares = shapes(Port("x", "float32", (1, 3, "S", "S")))
    assert squares == [(1, 3, size, size) for size in (64, 65, 1, 96)]


def test_unnamed_dimensions_are_independent_and_varied():
    ports = [Port("x", "float32", (None, 3, None)), Port("z", "float32", (None, 2))]
    found = [one["x"] for one in tried(ports)]
    assert found == [(1, 3, 64), (3, 3, 65), (1, 3, 1), (2, 3, 1), (2, 3, 96), (2, 3, 65)]


def test_a_network_that_wants_one_resolution():
    run = only(lambda f: f["x"].shape[2:] == (224, 224))
    assert shapes(IMAGE, run) == [(1, 3, 224, 224), (3, 3, 224, 224), (2, 3, 224, 224)]


def test_a_network_that_wants_squares():
    run = only(lambda f: f["x"].shape[2] == f["x"].shape[3])
    found = shapes(IMAGE, run)
    assert found[:4] == [(1, 3, 64, 64), (3, 3, 65, 65), (1, 3, 1, 1), (2, 3, 1, 1)]
    assert (2, 3, 96, 96) in found


def test_a_network_of_one_height():
    found = shapes(IMAGE, only(lambda f: f["x"].shape[2] == 48))
    assert {shape[2] for shape in found} == {48}
    assert pairs(found, 0, 3) == ALL_PAIRS
    assert min(shape[3] for shape in found) == 1


def test_a_network_that_halves_many_times():
    run = only(lambda f: all(size % 64 == 0 for size in f["x"].shape[2:]))
    found = search.plan([IMAGE], run, 0)
    drawn = {sizes.draw([IMAGE], sizing, seed=0)["x"].shape for sizing in found.sizings}
    assert drawn == {(1, 3, 64, 64), (3, 3, 64, 64), (2, 3, 128, 64), (2, 3, 64, 128)}
    assert found.rejected["H"] >= {1, 63, 65}


@pytest.mark.parametrize("smallest", [2, 39, 50, 63])
def test_the_smallest_is_found_between_those_that_are_tried(smallest: int):
    found = shapes(IMAGE, only(lambda f: min(f["x"].shape[2:]) >= smallest))
    assert min(shape[2] for shape in found) == smallest


def test_a_network_with_a_longest_sequence():
    port = Port("x", "float32", (1, "L"))
    found = shapes(port, only(lambda f: f["x"].shape[1] <= 77))
    assert found == [(1, 64), (1, 65), (1, 1), (1, 32)]


def test_a_network_that_wants_one_batch_size():
    found = shapes(IMAGE, only(lambda f: f["x"].shape[0] == 1))
    assert {shape[0] for shape in found} == {1}
    assert pairs(found, 2, 3) == ALL_PAIRS


def test_a_batch_and_a_size_that_do_not_go_together():
    found = shapes(IMAGE, only(lambda f: f["x"].shape[0] == 1 or f["x"].shape[2] == 64))
    assert {shape[0] for shape in found} == {1, 2, 3}
    assert {shape[2] for shape in found} >= {64, 65, 96}


def test_a_size_whose_outputs_hold_nothing_is_not_the_smallest():
    def run(feeds):
        size = feeds["x"].shape[1]
        return [np.full(max(0, size - 2), np.nan if size < 5 else 1.0)]

    assert min(shape[1] for shape in shapes(Port("x", "float32", (1, "L")), run)) == 5


def test_a_model_that_gives_nothing_finite_is_tried_at_all_sizes_the_same():
    found = shapes(IMAGE, lambda feeds: [np.full_like(feeds["x"], np.nan)])
    assert found == shapes(IMAGE)


def test_dynamic_channels_are_found():
    port = Port("x", "float32", ("N", "C", 8, 8))
    found = shapes(port, only(lambda f: f["x"].shape[1] == 4))
    assert found == [(1, 4, 8, 8), (3, 4, 8, 8), (2, 4, 8, 8)]


def test_a_small_vocabulary():
    port = Port("x", "int64", ("N", 50))
    first = search.plan([port], only(lambda f: f["x"].max() < 2), 0).sizings[0]
    assert first.ceiling == 2


def test_an_accepted_ceiling_is_accepted_whole():
    """Two numbers below 100 are often both below 90; the probe holds the largest all the same."""
    port, model = Port("x", "int64", (2,)), only(lambda f: f["x"].max() < 90)
    assert {search.plan([port], model, seed).sizings[0].ceiling for seed in range(20)} == {2}
    assert search.plan([Port("x", "int64", (0,))], anything, 0).sizings == (Sizing(),)


def test_nothing_is_accepted():
    with pytest.raises(InputError, match=r"rejects all values .*wrong size") as caught:
        search.plan([IMAGE], only(lambda _: False), 0)
    assert "--inputs" in caught.value.fix


# --- models that ONNX Runtime runs


def drawn(model: onnx.ModelProto, watch: Callable[[dict], None] = lambda _: None) -> Samples:
    """The samples of a model; `watch` sees the inputs of every run."""
    session = sessions.session(model, optimized="off", threads=1)

    def run(feeds):
        watch(feeds)
        return sessions.run(session, feeds)

    read = as_ir(model)
    return choose(interface(read).inputs, run, model=read)


def pooling(ceil_mode: int) -> onnx.ModelProto:
    """A convolution and a pooling that rounds up or down."""
    return build(
        f"""g (float[N,3,H,W] x) => (float[N,?,?,?] y) {{
            c = Conv<pads = [1,1,1,1]>(x, w)
            y = MaxPool<kernel_shape = [2,2], strides = [2,2], ceil_mode = {ceil_mode}>(c)
        }}""",
        {"w": weight(4, 3, 3, 3)},
    )


def test_poolings_that_differ_at_odd_sizes_only():
    """At 1×1 rounding down leaves nothing, so each is taken for the original in turn."""
    for original, other in ((1, 0), (0, 1)):
        session = sessions.session(pooling(other), optimized="off", threads=1)
        differ = []
        for label, feeds, (output,) in drawn(pooling(original)).each(anything):
            assert output.size, label
            differ.append(sessions.run(session, feeds)[0].shape != output.shape)
        assert differ[0] is False  # an even size
        assert sum(differ) >= 3


def test_raw_audio():
    model = build(
        """g (float[N,T] x) => (float[N,100,2] y) {
            u = Unsqueeze(x, one) c = Conv<strides = [160]>(u, w) t = Transpose<perm = [0,2,1]>(c)
            s = Slice(t, nought, hundred, one) y = Reshape(s, shape)
        }""",
        {
            "one": np.array([1]),
            "nought": np.array([0]),
            "hundred": np.array([100]),
            "shape": np.array([0, 100, 2]),
            "w": weight(2, 1, 400),
        },
    )
    batch, samples = drawn(model).dimensions
    assert batch.sizes == (1, 2, 3)
    assert samples.odd
    assert samples.even
    shortest = 99 * 160 + 400  # a hundred frames
    assert min(samples.sizes) >= shortest
    assert min(samples.sizes) - shortest < 200  # the search for the smallest has a limit
    assert set(samples.rejected) >= {64, 512, 8000, 16000}


@pytest.mark.parametrize(("rank", "largest"), [(1, 99), (3, 99), (4, 32), (5, 16)])
def test_numbers_that_size_an_output_stay_small(rank: int, largest: int):
    model = build(f"g (int64[{rank}] k) => (float[{', '.join('?' * rank)}] y) {{ y = ConstantOfShape(k) }}")
    seen: list[int] = []
    chosen = drawn(model, lambda feeds: seen.append(int(np.prod(feeds["k"]))))
    assert max(seen) <= 2**26
    assert seen[:3] == [1, 2**rank, 4**rank]  # from small to large
    (numbers,) = chosen.integers
    assert (numbers.low, numbers.high) == (1, largest)
    assert len(chosen.feeds) == 6


def test_a_range():
    model = build("g (int64 a, int64 b, int64 c) => (int64[?] y) { y = Range(a, b, c) }")
    chosen = drawn(model)
    assert max(int(feeds["b"]) for feeds in chosen.feeds) == 99
    assert {int(feeds["a"]) for feeds in chosen.feeds} == {0, 1, 2}
    assert 0 not in {int(feeds["c"]) for feeds in chosen.feeds}


def test_a_table_of_seven_rows():
    model = build("g (int64[N,L] k) => (float[N,L,2] y) { y = Gather(t, k) }", {"t": weight(7, 2)})
    chosen = drawn(model)
    (numbers,) = chosen.integers
    assert (numbers.low, numbers.high, numbers.distinct, numbers.use.table) == (0, 6, 7, 7)
    assert chosen.notes == ()


def test_negative_dimensions_are_open_and_zero_is_zero():
    model = build(
        """g (float[N,3,H] x, float[N,0] z) => (float[?,?,?] y, float[?,?] r) {
            y = Relu(x) r = Relu(z)
        }"""
    )
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = -1
    first, second = interface(as_ir(model)).inputs
    assert (first.shape, second.shape) == ((None, 3, None), (None, 0))
    chosen = drawn(model)
    assert {dimension.symbol: dimension.sizes for dimension in chosen.dimensions} == {
        "x.0": (1, 2, 3),
        "x.2": (1, 64, 65, 96),
        "z.0": (1, 2, 3),
    }
    assert all(feeds["z"].shape[1] == 0 for feeds in chosen.feeds)


def test_masks_and_lengths_suit_their_sequences():
    model = build(
        """g (int64[N,L] ids, int64[N,L] attention_mask, int32[N] lengths) => (float[N,L,2] y) {
            e = Gather(t, ids) m = Cast<to = 1>(attention_mask) u = Unsqueeze(m, last)
            f = Cast<to = 1>(lengths) d = Unsqueeze(f, both) q = Div(u, d) y = Mul(e, q)
        }""",
        {"t": weight(9, 2), "last": np.array([2]), "both": np.array([1, 2])},
    )
    for feeds in drawn(model).feeds:
        assert feeds["lengths"].max() == feeds["ids"].shape[1]
        assert feeds["attention_mask"][:, 0].all()
