"""Where ONNX Runtime's graph is worse after a layer took its neighbour, that one is taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from bnfold.latency import optimized_graph as module
from bnfold.latency.optimized_graph import OptimizedGraph
from bnfold.pipeline.export import export
from bnfold.pipeline.exported import Export
from tests.graphs import build, operators, statistics, weight


def model() -> onnx.ModelProto:
    """Pad → Conv → Conv → BatchNormalization; each may go into the second Conv."""
    made = build(
        """g (float[1,3,8,8] x) => (float[?,?,?,?] y) {
            p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
            a = Pad (x, p)
            b = Conv (a, v)
            c = Conv (b, w)
            y = BatchNormalization (c, scale, bias, mean, var)
        }""",
        {"v": weight(8, 3, 3, 3), "w": weight(4, 8, 1, 1, seed=2), **statistics(4)},
    )
    for node in made.graph.node:
        node.name = f"make_{node.output[0]}"
    return made


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Export]:
    """Export, while ONNX Runtime is said to have ten nodes more where an operator is rarer than that."""

    def run(kind: str, wanted: int) -> Export:
        honest = module.optimized_graph

        def count(one: ir.Model) -> OptimizedGraph:
            found = honest(one)
            is_worse = sum(node.op_type == kind for node in one.graph) < wanted
            return replace(found, nodes=found.nodes + 10 * is_worse)

        monkeypatch.setattr(module, "optimized_graph", count)
        onnx.save(model(), tmp_path / "model.onnx")
        return export(tmp_path / "model.onnx", tmp_path / "out.onnx", bench=False)

    return run


def test_with_nothing_worse_all_of_them_go(exported: Callable[[str, int], Export]) -> None:
    done = exported("Conv", 0)
    assert operators(onnx.load(done.destination or "")) == ["Conv"]


@pytest.mark.parametrize(
    ("kind", "wanted", "left", "taken_back"),
    [("Pad", 1, ["Pad", "Conv"], ("make_a",)), ("Conv", 2, ["Conv", "Conv"], ())],
)
def test_what_does_harm_is_taken_back_and_the_batchnorm_still_goes(
    exported: Callable[[str, int], Export],
    kind: str,
    wanted: int,
    left: list[str],
    taken_back: tuple[str, ...],
) -> None:
    done = exported(kind, wanted)
    assert operators(onnx.load(done.destination or "")) == left
    assert done.fold.kept == ()
    assert done.graphs is not None
    assert (done.graphs.taken_back, done.graphs.worse) == (taken_back, ())
    assert done.graphs.apart == (kind == "Conv")
