"""What ONNX Runtime makes of both models is one line, and what is worse all the same one more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnfold import reasons
from bnfold.latency.optimized_graph import OptimizedGraph
from bnfold.pipeline.harm import RuntimeGraphs
from bnfold.report.terminal.graphs import graphs
from bnfold.report.terminal.tables import change, large
from bnfold.result import Site
from tests.report.shown import GONE, STAYS, result, words

BEFORE = OptimizedGraph(174, 160, 32_200_000, 33_400_000)
AFTER = OptimizedGraph(158, 150, 31_900_000, 33_400_000)
FOUND = RuntimeGraphs(BEFORE, AFTER)
LINE = (
    "ONNX Runtime's own graph: 174 → 158 nodes, 32.2 → 31.9 MB read and written,"
    " 33.4 → 33.4 million multiply-adds"
)


def back(number: int) -> Site:
    """A site whose fold was taken back."""
    name = f"mul_{number}"
    reason = reasons.RUNTIME_WORSE(node=name, what="3 more nodes")
    return Site(name, name, "Mul", "", "kept", (), reason)


def test_the_figures_of_both_graphs_are_one_line() -> None:
    assert words(graphs(FOUND, result(GONE, STAYS))) == f"{LINE}."


def test_what_the_runtime_does_not_say_is_left_out() -> None:
    found = replace(FOUND, folded=replace(AFTER, multiply_adds=None))
    assert words(graphs(found, result(GONE))) == f"{LINE.rpartition(', ')[0]}."


@pytest.mark.parametrize(
    ("sites", "nodes", "said"),
    [
        ((back(1),), ("mul_1",), "; 1 fold that made it worse was taken back."),
        ((back(1), STAYS, back(2)), ("mul_1", "mul_2"), "; 2 folds that made it worse were taken back."),
        ((back(1),), ("mul_1", "add_1"), "; 1 fold that made it worse was taken back."),
        ((GONE,), ("add_1",), "; 1 fold that made it worse was taken back."),
        (
            (replace(STAYS, reason_after=back(1).reason),),
            ("a", "b"),
            "; 1 fold that made it worse was taken back.",
        ),
    ],
)
def test_what_was_taken_back_is_counted_in_folds(sites, nodes, said: str) -> None:
    assert words(graphs(replace(FOUND, taken_back=nodes), result(*sites))) == f"{LINE}{said}"


def test_branches_that_are_left_apart_are_said() -> None:
    shown = words(graphs(replace(FOUND, apart=True), result(GONE)))
    assert shown == f"{LINE}; it was worse with branches and layers merged, so none are."


def test_what_is_worse_all_the_same_is_said_plainly() -> None:
    found = replace(FOUND, worse=("2 more nodes", "3.0% more multiply-adds"))
    shown = words(graphs(found, result(GONE)))
    assert shown == f"{LINE}. The fold makes it worse, with 2 more nodes and 3.0% more multiply-adds."


def test_a_unit_that_both_have_is_written_once() -> None:
    assert change("1.5 kB", "2.0 kB") == "1.5 → 2.0 kB"
    assert change("999 bytes", "2.0 kB") == "999 bytes → 2.0 kB"
    assert change("5", "4") == "5 → 4"


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0"), (416_520, "416,520"), (33_400_000, "33.4 million"), (1_230_000_000, "1.23 billion")],
)
def test_large_numbers_have_three_digits(number: int, written: str) -> None:
    assert large(number) == written
