"""ONNX Runtime's own graph is counted: nodes in bodies too, bytes that they move, multiply-adds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import ModelError
from bnfold.latency import optimized_graph as module
from bnfold.latency.optimized_graph import OptimizedGraph, optimized_graph, what_grew
from tests.graphs import build, weight

FLOAT = 4  # bytes
IMAGE, KERNEL, MAP = 3 * 8 * 8, 4 * 3 * 3 * 3, 4 * 6 * 6
GRAPH = OptimizedGraph(100, 90, 1_000_000, 2_000_000, {"Gelu": 3, "LayerNormalization": 2})


def convolution(batch: int | str = 1) -> onnx.ModelProto:
    """One convolution, 3×8×8 to 4×6×6."""
    return build(
        f"g (float[{batch},3,8,8] x) => (float[{batch},4,6,6] y) {{ y = Conv(x, w) }}",
        {"w": weight(4, 3, 3, 3)},
    )


def gelu() -> onnx.ModelProto:
    """Gelu with the error function, written out."""
    return build(
        """g (float[1,64] x) => (float[1,64] y)
        { d = Div(x, root) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half) }""",
        {name: np.float32(v) for name, v in (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5))},
    )


def test_a_convolution_is_counted_exactly() -> None:
    found = optimized_graph(convolution())
    assert (found.nodes >= 1, found.extended_nodes) == (True, 1)
    assert found.bytes == FLOAT * (IMAGE + KERNEL + MAP)
    assert found.multiply_adds == MAP * 3 * 3 * 3
    assert found.whole == {}


def test_a_size_that_is_open_counts_as_16() -> None:
    found = optimized_graph(convolution("N"))
    assert found.bytes == FLOAT * (16 * IMAGE + KERNEL + 16 * MAP)
    assert found.multiply_adds == 16 * MAP * 3 * 3 * 3


def test_half_precision_moves_half_the_bytes() -> None:
    moved = {
        kind: optimized_graph(build(f"g ({kind}[4,8] x) => ({kind}[4,8] y) {{ y = Relu(x) }}")).bytes
        for kind in ("float", "double", "int8")
    }
    assert moved == {"float": 2 * 32 * 4, "double": 2 * 32 * 8, "int8": 2 * 32}


def test_the_nodes_of_branches_are_counted_with_what_they_read() -> None:
    found = optimized_graph(
        build(
            """g (bool c, float[2,3] x) => (float[2,3] y) {
                y = If (c) <
                    then_branch = t () => (float[2,3] a) { r = Sin(x) a = Cos(r) },
                    else_branch = e () => (float[2,3] b) { b = Tan(x) }
                >
            }"""
        )
    )
    assert (found.nodes, found.extended_nodes) == (4, 4)
    inside = FLOAT * 6 * (4 + 2)  # each node of a branch reads one value and writes one
    assert found.bytes == 1 + FLOAT * 6 + inside, "the If itself reads its condition and writes its output"


def test_a_formula_that_becomes_one_node_is_counted_as_whole() -> None:
    found = optimized_graph(gelu())
    assert (found.extended_nodes, found.whole) == (1, {"Gelu": 1})
    assert found.bytes == FLOAT * 2 * 64


def test_multiply_adds_are_unknown_where_a_shape_is() -> None:
    found = optimized_graph(
        build(
            "g (float[4,8] x, int64[K] s) => (float[N,2] y) { r = Reshape(x, s) y = MatMul(r, w) }",
            {"w": weight(8, 2)},
        )
    )
    assert found.multiply_adds is None


def test_the_model_is_left_as_it_was_and_no_file_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path)
    model = ir.from_proto(gelu())
    optimized_graph(model)
    assert [value.shape for node in list(model.graph)[:-1] for value in node.outputs] == [None] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_onnx_runtime_cannot_load_is_an_error() -> None:
    with pytest.raises(ModelError):
        optimized_graph(build("g (float[2] x) => (float[2] y) { y = local.Unheard(x) }"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ()),
        ({"nodes": 101}, ("1 more node",)),
        ({"nodes": 95, "extended_nodes": 93}, ("3 more nodes",)),
        ({"nodes": 102, "extended_nodes": 95}, ("5 more nodes",)),
        ({"nodes": 90, "extended_nodes": 80, "bytes": 900_000, "multiply_adds": 1}, ()),
        ({"bytes": 1_000_900}, ()),
        ({"bytes": 1_020_000}, ("2.0% more bytes read and written",)),
        ({"multiply_adds": 2_001_900}, ()),
        ({"multiply_adds": 3_000_000}, ("50.0% more multiply-adds",)),
        ({"multiply_adds": None}, ()),
        ({"whole": {"Gelu": 1, "LayerNormalization": 2}}, ("2 fewer Gelu",)),
        ({"whole": {}}, ("5 fewer Gelu and LayerNormalization",)),
        ({"whole": {"Gelu": 2, "LayerNormalization": 2, "BiasGelu": 1}}, ()),
        ({"nodes": 101, "bytes": 2_000_000}, ("1 more node", "100.0% more bytes read and written")),
    ],
)
def test_what_grew_is_said_in_words(changes: dict[str, object], words: tuple[str, ...]) -> None:
    assert what_grew(GRAPH, replace(GRAPH, **changes)) == words


def test_unknown_multiply_adds_of_the_original_prove_nothing() -> None:
    assert what_grew(replace(GRAPH, multiply_adds=None), GRAPH) == ()
