"""All rules together: on random chains of layers, in reports, and where they must not act."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.folding import record
from bnfold.folding.fold import fold_into
from bnfold.folding.neighbours import RULES
from bnfold.pipeline.export import export
from tests.folding.test_property import check
from tests.graphs import assert_same, build, fold_and_compare, operators, statistics, weight
from tests.random_neighbours import neighbour_model

EXAMPLES = int(os.environ.get("BNFOLD_PROPERTY_EXAMPLES", "200"))
figures = {"graphs": 0, "joins": 0}
kinds: set[str] = set()


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES == 200, deadline=None, database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip
@given(data=st.data())
def test_layers_that_take_their_neighbours_change_no_function(data: st.DataObject) -> None:
    choices: list[int] = []

    def choose(n: int) -> int:
        choices.append(data.draw(st.integers(0, n - 1)) if n > 1 else 0)
        return choices[-1]

    check(neighbour_model, choose, choices)
    replay = iter(choices)
    joins = bnfold.fold(neighbour_model(lambda _: next(replay))).joins
    figures["graphs"] += 1
    figures["joins"] += len(joins)
    kinds.update(join.op_type for join in joins)


def test_the_random_chains_are_worth_it() -> None:
    """Runs behind the property: chains in which nothing joins would prove nothing."""
    if figures["graphs"] < 100:
        pytest.skip("the property has not run, or stopped at its first failure")
    assert figures["joins"] >= figures["graphs"] / 2, figures
    assert kinds >= {"Pad", "Gather", "Slice", "Conv", "Gemm", "MatMul", "MatMul+Add"}, kinds
    print(figures, kinds)


def everything() -> onnx.ModelProto:
    """Gather → Pad → Conv → Conv → BatchNormalization → Relu → pool → Gemm → MatMul."""
    return build(
        """g (float[1,3,8,8] x) => (float[1,2] y) {
            i = Constant <value_ints = [2,1,0]> ()
            p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
            o = Gather <axis = 1> (x, i)
            a = Pad (o, p)
            b = Conv (a, v)
            c = Conv (b, w, wb)
            n = BatchNormalization (c, scale, bias, mean, var)
            r = Relu (n)
            s = GlobalAveragePool (r)
            f = Flatten (s)
            l = Gemm (f, l1, lb)
            y = MatMul (l, l2)
        }""",
        {
            "v": weight(8, 3, 3, 3), "w": weight(4, 8, 1, 1, seed=2), "wb": weight(4),
            "l1": weight(4, 6), "lb": weight(6, seed=3), "l2": weight(6, 2, seed=4), **statistics(4),
        },
    )  # fmt: skip


ONE_OF_EACH = ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_an_export_is_proved(tmp_path: Path) -> None:
    onnx.save(everything(), tmp_path / "model.onnx")
    done = export(tmp_path / "model.onnx", tmp_path / "out.onnx", bench=False)
    folded = onnx.load(tmp_path / "out.onnx")
    assert operators(folded) == ONE_OF_EACH
    assert done.validation is not None
    assert done.validation.is_fold
    assert done.validation.layers
    assert all(layer.agrees for layer in done.validation.layers)
    assert {layer.name for layer in done.validation.layers} >= {"r", "y"}
    assert done.graphs is not None
    assert done.graphs.worse == ()


def test_the_record_is_written_where_nothing_else_was_folded() -> None:
    model = build(
        """g (float[1,3,8,8] x) => (float[?,?,?,?] y) {
            p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
            a = Pad (x, p)
            y = Conv (a, w)
        }""",
        {"w": weight(4, 3, 3, 3)},
    )
    result = bnfold.fold(model)
    assert result.sites == ()
    assert record.is_fold_of(ir.from_proto(result.model), ir.from_proto(model))


def test_a_module_keeps_what_its_forward_makes() -> None:
    result = fold_into(None, ir.from_proto(everything()), keep_layout=True)
    kept = operators(ir.to_proto(result.model))
    assert kept == ["Gather", "Pad", "Conv", "Conv", *ONE_OF_EACH[1:], "MatMul"]
    assert result.joins == ()


def test_without_merging_weights_are_not_multiplied_with_each_other() -> None:
    result = bnfold.fold(everything(), merge=False)
    assert operators(result.model) == ["Conv", "Conv", *ONE_OF_EACH[1:], "MatMul"]
    assert [join.op_type for join in result.joins] == ["Pad", "Gather"]
    assert_same(everything(), result.model)


def test_a_number_that_is_too_large_only_after_the_fold_is_taken_back() -> None:
    """The product of both weights fits, and not with the scale that goes into it later."""
    model = build(
        """g (float[1,2,3,3] x) => (float[1,2,3,3] y) {
            a = Conv (x, v)
            c = Conv (a, w)
            y = BatchNormalization (c, scale, bias, mean, var)
        }""",
        {
            "v": np.full((4, 2, 1, 1), 1e18, np.float32), "w": np.full((2, 4, 1, 1), 1e18, np.float32),
            **statistics(2), "scale": np.full(2, 1e3, np.float32),
        },
    )  # fmt: skip
    with np.errstate(over="ignore"):
        result = bnfold.fold(model)
    held = [onnx.numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer]
    assert all(np.isfinite(array).all() for array in held)


def test_what_an_exporter_writes_for_a_bias_of_zeros_is_no_other_reader() -> None:
    """As torch.onnx.export does for `Conv2d(bias=False)` unless it optimises."""
    zeros = "{0}c = CastLike (zero, {1}) {0}s = Shape <start = 0, end = 1> ({2}) {0}z = Expand ({0}c, {0}s)"
    model = build(
        f"""g (float[1,3,8,8] x) => (float[?,?,?,?] y) {{
            p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
            zero = Constant <value_float = 0.0> ()
            a = Pad (x, p)
            {zeros.format("v", "a", "v")}
            b = Conv (a, v, vz)
            {zeros.format("w", "b", "w")}
            y = Conv (b, w, wz)
        }}""",
        {"v": weight(8, 3, 3, 3), "w": weight(4, 8, 1, 1, seed=2)},
    )
    result = fold_and_compare(model)
    assert operators(result.model) == ["Conv"]
    assert len(result.model.graph.initializer) == 2  # neither old weight is left for its shape


def test_one_pass_is_enough_for_a_long_chain() -> None:
    """Each layer takes the one before it in turn, so the work grows with the number of layers alone."""
    count = 200
    nodes = " ".join(f"h{i + 1} = Conv (h{i}, w{i})" for i in range(count))
    model = build(
        f"g (float[1,4,3,3] h0) => (float[1,4,3,3] h{count}) {{ {nodes} }}",
        {f"w{i}": np.eye(4, dtype=np.float32)[:, ::-1].reshape(4, 4, 1, 1).copy() for i in range(count)},
    )
    result = bnfold.fold(model)
    assert operators(result.model) == ["Conv"]
    assert len(result.joins) == count - 1
    assert_same(model, result.model)


def test_every_rule_has_its_own_file() -> None:
    files = {rule.join.__module__.rsplit(".")[-1] for rule in RULES}
    here = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert files <= here
