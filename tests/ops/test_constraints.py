"""A node that contradicts its operator's definition: the BatchNorm stays, and commands name the fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner

import bnfold
from bnfold.ops.constraints import faults
from bnfold_cli import main
from tests.graphs import build, kept_codes, statistics, weight

NORM = "y = BatchNormalization(c, scale, bias, mean, var)"
FILTERS, KERNEL = weight(6, 4, 3, 3), "x, w"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# A line that makes c of x [2, 4, 8, 8], its constants, and what is wrong with it.
WRONG = {
    "groups": (
        "c = Conv <group=3> (x, w)",
        {"w": weight(8, 4, 3, 3)},
        "a weight of shape [8, 4, 3, 3] in 3 groups",
    ),
    "channels": (
        "c = Conv (x, w)",
        {"w": weight(6, 3, 3, 3)},
        "an input of 4 channels where its weight has 3",
    ),
    "rank": ("c = Conv (x, w)", {"w": weight(6, 4, 3)}, "an input of 4 axes for a weight of shape [6, 4, 3]"),
    "kernel": ("c = Conv <kernel_shape=[3,5]> (x, w)", {"w": FILTERS}, "a kernel_shape of [3, 5]"),
    "strides": ("c = Conv <strides=[1]> (x, w)", {"w": FILTERS}, "1 strides for 2 spatial axes"),
    "no stride": ("c = Conv <strides=[0,1]> (x, w)", {"w": FILTERS}, "strides of [0, 1]"),
    "pads": ("c = Conv <pads=[1,1]> (x, w)", {"w": FILTERS}, "2 pads for 2 spatial axes"),
    "bias": ("c = Conv (x, w, b)", {"w": FILTERS, "b": weight(5)}, "a bias of shape [5] for 6 channels"),
    "transposed bias": (
        "c = ConvTranspose <group=2> (x, w, b)",
        {"w": weight(4, 3, 3, 3), "b": weight(3)},
        "a bias of shape [3] for 6 channels",
    ),
    "transposed channels": ("c = ConvTranspose (x, w)", {"w": weight(6, 4, 3, 3)}, "an input of 4 channels"),
    "permutation": (
        "v = Conv (x, w) c = Transpose <perm=[0,1,1,3]> (v)",
        {"w": FILTERS},
        "a perm of [0, 1, 1, 3]",
    ),
    "few axes": ("v = Conv (x, w) c = Transpose <perm=[0,2,1]> (v)", {"w": FILTERS}, "for 4 axes"),
    "Pad": ("v = Conv (x, w) c = Pad (v, p)", {"w": FILTERS, "p": ints(0, 0, 1, 1)}, "4 pads for 4 axes"),
    "Concat": ("v = Conv (x, w) c = Concat <axis=7> (v, v)", {"w": FILTERS}, "axis 7 of 4"),
    "Squeeze": ("v = Conv (x, w) c = Squeeze (v, a)", {"w": FILTERS, "a": ints(5)}, "axis 5 of 4"),
    "axis twice": (
        "v = Conv (x, w) c = Unsqueeze (v, a)",
        {"w": FILTERS, "a": ints(2, 2)},
        "one of them twice",
    ),
    "Split": (
        "v = Conv (x, w) c, d = Split <axis=1> (v, a)",
        {"w": FILTERS, "a": ints(4, 4)},
        "a split of [4, 4] of 6",
    ),
    "Reshape": (
        "v = Conv (x, w) c = Reshape (v, a)",
        {"w": FILTERS, "a": ints(2, 7, -1)},
        "a shape of [2, 7, -1] for 432",
    ),
    "two open sizes": (
        "v = Conv (x, w) c = Reshape (v, a)",
        {"w": FILTERS, "a": ints(-1, 6, -1)},
        "a shape of [-1, 6, -1]",
    ),
    "Expand": (
        "v = Conv (x, w) c = Expand (v, a)",
        {"w": FILTERS, "a": ints(5, 6)},
        "a shape of [5, 6] for [2, 6, 6, 6]",
    ),
    "Tile": (
        "v = Conv (x, w) c = Tile (v, a)",
        {"w": FILTERS, "a": ints(1, 2)},
        "repeats of [1, 2] for 4 axes",
    ),
    "blocks": (
        "v = Conv (x, w) c = DepthToSpace <blocksize=2> (v)",
        {"w": FILTERS},
        "blocks of 2 for a size of 6",
    ),
    "broadcast": ("v = Conv (x, w) c = Add (v, k)", {"w": FILTERS, "k": weight(5, 1, 1)}, "[5, 1, 1]"),
    "slope": ("v = Conv (x, w) c = PRelu (v, k)", {"w": FILTERS, "k": weight(4, 1, 1)}, "[4, 1, 1]"),
    "pool": (
        "v = Conv (x, w) c = MaxPool <kernel_shape=[2]> (v)",
        {"w": FILTERS},
        "1 kernel_shape for 2 spatial",
    ),
    "no kernel": ("v = Conv (x, w) c = MaxPool (v)", {"w": FILTERS}, "no attribute kernel_shape"),
    "inputs": ("c = Conv (x)", {}, "1 inputs where it takes 2 to 3"),
    "left out": ('c = Conv ("", w)', {"w": FILTERS}, "no input 0, X"),
    "instance": (
        "v = Conv (x, w) c = InstanceNormalization (v, k, k)",
        {"w": FILTERS, "k": weight(4)},
        "an input 1 of shape [4] for 6 channels",
    ),
    "type": (
        "c = Conv <group=2.0> (x, w)",
        {"w": FILTERS},
        "an attribute group of type FLOAT in place of INT",
    ),
    "unknown": ("c = Conv <groop=2> (x, w)", {"w": FILTERS}, "an attribute groop, which Conv does not have"),
    "of another operator": (
        "v = Conv (x, w) c = Relu <alpha=0.1> (v)",
        {"w": FILTERS},
        "an attribute alpha, which Relu does not have",
    ),
}
ROWS = {
    "Gemm": (
        "c = Gemm (x, w, b)",
        {"w": weight(8, 6), "b": weight(5)},
        "a bias of shape [5] for a weight of shape [8, 6]",
    ),
    "columns": ("c = Gemm <transB=1> (x, w)", {"w": weight(8, 6)}, "a product of 8 columns with 6 rows"),
    "three axes": ("c = Gemm (x, w)", {"w": weight(1, 8, 6)}, "a weight of shape [1, 8, 6]"),
    "MatMul": ("c = MatMul (x, w)", {"w": weight(7, 6)}, "a product of 8 columns with 7 rows"),
}


def contradicting(line: str, held: dict[str, np.ndarray], shape: str) -> onnx.ModelProto:
    return build(f"g (float[{shape}] x) => (float y) {{ {line} {NORM} }}", {**held, **statistics(6)})


@pytest.mark.parametrize(("line", "held", "fault"), [*WRONG.values(), *ROWS.values()], ids=[*WRONG, *ROWS])
def test_a_contradiction_is_a_reason(line: str, held: dict[str, np.ndarray], fault: str) -> None:
    shape = "2,8" if (line, held, fault) in ROWS.values() else "2,4,8,8"
    model = contradicting(line, held, shape)
    result = bnfold.fold(model)
    assert {site.status for site in result.sites} == {"kept"}
    assert "BN216" in kept_codes(result)
    said = list(faults(ir.from_proto(model)))
    assert fault in said[0], said


@pytest.mark.parametrize("name", ["groups", "bias", "transposed bias", "pads", "channels"])
@pytest.mark.parametrize("command", ["export", "validate", "bench"])
def test_commands_name_the_fault_of_the_file(name: str, command: str, tmp_path: Path) -> None:
    line, held, fault = WRONG[name]
    path = str(tmp_path / "wrong.onnx")
    onnx.save(contradicting(line, held, "2,4,8,8"), path)
    second = ["-o", str(tmp_path / "out.onnx"), "--no-bench"] if command == "export" else [path]
    ran = CliRunner().invoke(main, [command, path, *second])
    assert ran.exit_code == 2, ran.output
    assert fault in " ".join(ran.output.split())
    assert "--inputs" not in ran.output
    assert "save or export it again" in " ".join(ran.output.split())


def test_attributes_of_other_versions_and_of_runtimes_are_left_alone() -> None:
    """Exporters of other opsets leave `spatial`; names that begin with two underlines are a runtime's own."""
    model = build(
        "g (float[2,4,8,8] x) => (float[2,6,6,6] y) { c = Conv <__layout=1> (x, w) "
        "y = BatchNormalization <spatial=1> (c, scale, bias, mean, var) }",
        {"w": FILTERS, **statistics(6)},
    )
    assert not list(faults(ir.from_proto(model)))
    assert not bnfold.fold(model).kept


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    model = build(
        f"g (float[2,4,8,8] x) => (float[2,6,6,6] y) {{ c = Conv(x, w) {NORM} }}",
        {"w": FILTERS, **statistics(5)},
    )
    assert "BN216" in kept_codes(bnfold.fold(model))


def test_sizes_that_are_not_known_are_taken_to_fit() -> None:
    model = build(
        f"g (float[N,C,H,W] x) => (float[N,6,P,Q] y) {{ c = Conv <group=2> (x, w) {NORM} }}",
        {"w": FILTERS, **statistics(6)},
    )
    assert not bnfold.fold(model).kept
    assert not list(faults(ir.from_proto(model)))


def test_two_transposes_by_what_is_no_permutation_do_not_cancel() -> None:
    model = build(
        "g (float[2,2,2] x) => (float y) { a = MatMul(x, w) t = Transpose <perm=[0,0,2]> (a) "
        "n = BatchNormalization(t, scale, bias, mean, var) y = Transpose <perm=[0,1,2]> (n) }",
        {"w": weight(2, 2), **statistics(2)},
    )
    assert [node.op_type for node in bnfold.fold(model).model.graph.node].count("Transpose") == 2


def test_a_faulty_branch_that_does_not_run_is_not_blamed(tmp_path: Path) -> None:
    model = build(
        "g (float[2,4,8,8] x) => (float[2,6,6,6] y) { k = Constant <value = bool {1}> () c = Conv(x, w) "
        "v = If(k) <then_branch = t () => (float[2,6,6,6] a) { a = Relu(c) }, "
        "else_branch = e () => (float d) { d = Add(c, five) }> "
        "y = BatchNormalization(v, scale, bias, mean, var) }",
        {"w": FILTERS, "five": weight(5), **statistics(6)},
    )
    assert len(list(faults(ir.from_proto(model)))) == 1
    onnx.save(model, tmp_path / "model.onnx")
    assert bnfold.validate(tmp_path / "model.onnx", tmp_path / "model.onnx").passed


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("k = DequantizeLinear(q, s)", {"q": np.int8(3), "s": weight(6, 1, 1)}),
        ("k = Transpose <perm=[0,0,1]> (s)", {"s": weight(6, 1, 1)}),
    ],
)
def test_what_fails_over_constants_is_no_constant(line: str, held: dict[str, np.ndarray]) -> None:
    model = build(
        f"g (float[2,4,8,8] x) => (float y) {{ {line} v = Conv(x, w) c = Mul(v, k) {NORM} }}",
        {"w": FILTERS, **held, **statistics(6)},
    )
    assert "BatchNormalization" in [node.op_type for node in bnfold.fold(model).model.graph.node]


@pytest.mark.parametrize("factor", [np.float32("nan"), np.float32(2), np.complex64(1 + 2j)])
def test_sizes_that_are_not_integers_are_not_known(factor: np.generic) -> None:
    model = build(
        "g (float[N,L,4] x) => (float y) { s = Shape(x) n = Gather(s, zero) m = Mul(n, factor) "
        "a = Unsqueeze(m, axis) t = Concat<axis=0>(a, last) v = MatMul(x, w) c = Reshape(v, t) "
        "y = BatchNormalization(c, scale, bias, mean, var) }",
        {
            "w": weight(4, 6),
            "zero": np.int64(0),
            "factor": factor,
            "axis": ints(0),
            "last": ints(6),
            **statistics(6),
        },
    )
    assert len(bnfold.fold(model).sites) == 1  # and no exception
