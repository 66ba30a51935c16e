"""A folded weight has the bits that the plain formula gives, whatever its blocks, and needs little memory."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnfold import reasons
from bnfold.ops.linear import row_times, times_column
from bnfold.tensors import parts as module
from bnfold.tensors.file_tensor import File, FileTensor
from bnfold.tensors.parts import parts
from bnfold.tensors.precision import COARSE, OutOfRangeError, rounded
from bnfold.tensors.product import Product

NODE = ir.Node("", "Conv", [], name="conv")
TYPES = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 24)


def in_file(array: np.ndarray, folder: Path) -> FileTensor:
    path = folder / f"{math.prod(array.shape)}.bin"
    path.write_bytes(b"before" + array.tobytes() + b"behind")
    return FileTensor(File(path), 6, ir.DataType.from_numpy(array.dtype), array.shape)


def plain(array: np.ndarray, *factors: np.ndarray) -> np.ndarray:
    """The whole in float64, rounded once."""
    with np.errstate(all="ignore"):
        factor = math.prod(factors[1:], start=factors[0])
        return (np.asarray(array, np.float64) * factor).astype(array.dtype)


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def product(array: np.ndarray, *factors: np.ndarray) -> Product:
    tensor = ir.Tensor(array)
    return Product(tensor, factors, tensor.dtype, NODE, "w.folded")


def random(kind: np.dtype, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        ((5, 4, 3, 3), [(5, 1, 1, 1)]),
        ((5, 4, 3, 3), [(1, 4, 1, 1)]),
        ((5, 4, 3, 3), [(5, 4, 1, 1)]),
        ((7, 11), [(7, 1), (1, 11)]),
        ((7, 11), [(11,)]),
        ((2, 3, 40), [(1, 1, 40), (1, 3, 1)]),
        ((1, 1, 50), [(50,)]),
        ((9,), [(1,)]),
        ((), [()]),
        ((0, 3), [(1, 3)]),
    ],
    ids=str,
)
def test_bits_are_those_of_the_plain_formula(kind, shape, factors, tmp_path) -> None:
    array = random(kind, *shape)
    given = [np.random.default_rng(1).standard_normal(own) for own in factors]
    expected = bits(plain(array, *given))
    for source in (ir.Tensor(array), in_file(array, tmp_path)):
        made = Product(source, given, source.dtype, NODE)
        assert (made.dtype, tuple(made.shape)) == (source.dtype, shape)
        assert made.tobytes() == bits(made.numpy()) == expected
        assert max(map(len, made.blocks()), default=0) <= 24


def decision(dtype: ir.DataType, exact: np.ndarray) -> object:
    """The whole rounded once, or why it does not fit: by the definition, over all elements at once."""
    with np.errstate(all="ignore"):
        result = exact.astype(dtype.numpy())
        wide, finite = result.astype(np.float64), np.isfinite(exact)
        error = np.abs(wide - exact).max(initial=0, where=finite)
    if not np.array_equal(np.isfinite(wide), finite):
        return reasons.OVERFLOW
    if error > COARSE[dtype] * np.abs(exact).max(initial=0, where=finite):
        return reasons.UNDERFLOW
    return bits(result)


def at_once(dtype: ir.DataType, exact: np.ndarray) -> object:
    try:
        return bits(rounded(NODE, exact, dtype))
    except OutOfRangeError as error:
        return error.rule


def answer(made: Product) -> object:
    try:
        return made.tobytes()
    except OutOfRangeError as error:
        return error.rule if (error.node, error.dtype) == (NODE, made.dtype) else None


def scaled(kind: np.dtype) -> st.SearchStrategy[np.ndarray]:
    """A weight all of whose numbers are of some size, with zeros, NaN and infinities among them."""
    info = ml_dtypes.finfo(kind)
    lowest, highest = int(info.minexp) - int(info.nmant) - 2, int(info.maxexp)
    odd = st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan])
    number = st.one_of(odd, st.floats(-2, 2), st.floats(-2, 2), st.floats(1, 2))
    return st.builds(
        lambda exponent, numbers: np.ldexp(np.array(numbers), exponent).astype(kind).reshape(-1, 3),
        st.integers(lowest, highest - 2),
        st.lists(number, min_size=12, max_size=12),
    )


def factor_for(kind: np.dtype) -> st.SearchStrategy[np.ndarray]:
    info = ml_dtypes.finfo(kind)
    span = min(int(info.maxexp - info.minexp) + 8, 600)
    return st.builds(
        lambda exponent, numbers: np.ldexp(np.array(numbers), exponent).reshape(-1, 1),
        st.integers(-span, span),
        st.lists(st.one_of(st.just(0.0), st.floats(-2, 2), st.floats(1, 2)), min_size=4, max_size=4),
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", TYPES, ids=str)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_does_not_fit_is_decided_as_over_the_whole(kind, data) -> None:
    array, factor = data.draw(scaled(kind)), data.draw(factor_for(kind))
    with np.errstate(all="ignore"):
        exact = np.asarray(array, np.float64) * factor
        beyond = np.any(np.isfinite(array.astype(np.float64)) & ~np.isfinite(exact))
        expected = decision(ir.DataType.from_numpy(kind), exact)
    assert at_once(ir.DataType.from_numpy(kind), exact) == expected
    # what is too large for float64 itself was no number of the weight before
    assert answer(product(array, factor)) == (reasons.OVERFLOW if beyond else expected)


@pytest.mark.parametrize("kind", TYPES[:3], ids=str)
def test_numbers_near_the_lower_end_decide_alike(kind) -> None:
    """Every weight whose largest number is near where underflow is looked for, on both sides of it."""
    dtype = ir.DataType.from_numpy(kind)
    seen = set()
    edge = float(ml_dtypes.finfo(kind).smallest_subnormal) / COARSE[dtype]
    for power, top, other in itertools.product(range(-12, 4), (1.0, 1.25, 1.999), (0.0, 0.3, 0.77)):
        factor = np.array([edge * 2.0**power])
        array = np.array([top, other, -other, 0.5 * top]).astype(kind)
        expected = decision(dtype, array.astype(np.float64) * factor)
        assert at_once(dtype, array.astype(np.float64) * factor) == expected
        assert answer(product(array, factor)) == expected
        seen.add(expected if expected is reasons.UNDERFLOW else None)
    assert seen == {None, reasons.UNDERFLOW}


@pytest.mark.parametrize(("number", "rule"), [(8.0, None), (9.1, reasons.UNDERFLOW), (1e9, reasons.OVERFLOW)])
def test_of_a_type_that_is_not_folded_only_what_is_exact_fits(number, rule) -> None:
    made = at_once(ir.DataType.FLOAT8E5M2, np.array([number]))
    assert made == (rule or bits(np.array([number], ml_dtypes.float8_e5m2)))


@pytest.mark.usefixtures("small_blocks")
def test_one_large_number_far_away_saves_those_that_are_tiny() -> None:
    array = np.full(40, 2.0**-24, np.float16)
    array[-1] = 1
    factor = np.array(0.7)
    assert product(array, factor).tobytes() == bits(plain(array, factor))
    assert answer(product(array[:-1], factor)) is reasons.UNDERFLOW


@pytest.mark.usefixtures("small_blocks")
def test_an_overflow_is_noticed_beside_an_infinity_that_was_there() -> None:
    array = np.array([np.inf, 1, 60000, np.nan] * 4, np.float16)
    assert answer(product(array, np.array(1.05))) == bits(plain(array, np.array(1.05)))
    assert answer(product(array, np.array(1.2))) is reasons.OVERFLOW


@given(
    shape=st.lists(st.integers(1, 5), max_size=4).map(tuple), size=st.integers(1, 30), whole=st.integers(0, 2)
)
def test_parts_are_neighbours_and_make_up_the_whole(shape, size, whole) -> None:
    array = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        found = list(parts(ir.Tensor(array), whole))
    assert np.array_equal(np.concatenate([part.reshape(-1) for _, part in found]), array.reshape(-1))
    assert all(np.array_equal(array[(*where, ...)], part) for where, part in found)
    row = math.prod(shape[len(shape) - whole :]) if whole else 1
    assert all(part.size <= max(size, row) for _, part in found)


@pytest.mark.usefixtures("small_blocks")
def test_sums_in_blocks(tmp_path) -> None:
    for shape in ((5, 4), (3, 7, 4), (2, 2, 3, 2)):
        array = random(np.dtype(np.float32), *shape)
        row, column = random(np.dtype(np.float64), 1, shape[-2]), random(np.dtype(np.float64), shape[-1], 1)
        for source in (ir.Tensor(array), in_file(array, tmp_path)):
            assert row_times(row, source) == pytest.approx(row @ array, rel=1e-12, abs=1e-12)
            assert times_column(source, column) == pytest.approx(array @ column, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", [(5, 4), (3, 7, 4), (64, 33), (1, 9)], ids=str)
def test_what_is_one_block_is_multiplied_as_a_whole(shape) -> None:
    array, wide = (
        random(np.dtype(np.float32), *shape),
        random(np.dtype(np.float32), *shape).astype(np.float64),
    )
    row, column = random(np.dtype(np.float64), 1, shape[-2]), random(np.dtype(np.float64), shape[-1], 1)
    assert bits(row_times(row, ir.Tensor(array))) == bits(row @ wide)
    assert bits(times_column(ir.Tensor(array), column)) == bits(wide @ column)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileTensor]:
    path = tmp_path_factory.mktemp("large") / "weight.bin"
    shape = (2048, 2048, 2, 2)
    path.write_bytes(random(np.dtype(np.float32), 2**18).tobytes() * 64)
    yield FileTensor(File(path), 0, ir.DataType.FLOAT, shape)
    path.unlink()


def test_memory_is_that_of_a_few_blocks(large: FileTensor) -> None:
    matrix = FileTensor(large.file, 0, ir.DataType.FLOAT, (2048, 8192))
    both = [np.full((2048, 1), 1.5), np.full((1, 8192), 0.5)]

    def read(made: Product) -> None:
        for _ in made.blocks():
            pass

    for work in (
        lambda: read(Product(large, [np.full((2048, 1, 1, 1), 1.5)], ir.DataType.FLOAT, NODE)),
        lambda: read(Product(matrix, both, ir.DataType.FLOAT, NODE)),
        lambda: row_times(np.ones((1, 2048)), matrix),
        lambda: times_column(matrix, np.ones((8192, 1))),
    ):
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"{peak / 2**20:.1f} MiB of {large.nbytes / 2**20:.0f}")
        assert peak < 8 * 2**20


def test_products_that_are_read_in_turns_do_not_mix(tmp_path) -> None:
    """They borrow memory from each other's leavings, never from each other."""
    made, expected = [], []
    for number in range(3):
        array = random(np.dtype(np.float32), 400 + number, 5000, seed=number)  # 8 MB: several blocks each
        factor = random(np.dtype(np.float64), 400 + number, 1, seed=number)
        source = in_file(array, tmp_path)
        made.append(Product(source, [factor], source.dtype, NODE))
        expected.append(plain(array, factor).tobytes())
    for _ in range(2):
        read = [b""] * len(made)
        for blocks in itertools.zip_longest(*(one.blocks() for one in made), fillvalue=b""):
            read = [before + bytes(block) for before, block in zip(read, blocks, strict=True)]
        assert read == expected
