"""Changes of layout that only a BatchNorm kept apart go with it; all others stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from tests.graphs import build, fold_and_compare, operators, statistics, weight

NORM = "b = BatchNormalization (a, scale, bias, mean, var)"


def sequence(
    back: list[int], *, shape: str = "2,3,5", there: str = "-1,4", rest: str = "", outputs: str = "y"
) -> onnx.ModelProto:
    """A MatMul whose rows are flattened for a BatchNorm, and brought back to a shape afterwards."""
    ranks = {"y": len(back), "z": 2}
    declared = ", ".join(f"float[{','.join('?' * ranks[name])}] {name}" for name in outputs.split())
    text = f"""g (float[{shape}] x) => ({declared}) {{
        m = MatMul (x, w)
        there = Constant <value_ints = [{there}]> ()
        a = Reshape (m, there)
        {NORM}
        back = Constant <value_ints = {back}> ()
        y = Reshape (b, back)
        {rest}
    }}"""
    return build(text, {"w": weight(5, 4), **statistics(4)})


@pytest.mark.parametrize(
    "model",
    [
        sequence([2, 3, 4]),
        sequence([-1, 3, 4]),
        sequence([2, -1, 4]),
        sequence([2, 3, 4], there="6,4"),
        sequence([-1, 3, 4], shape="N,3,5"),
        sequence([2, -1, 4], shape="2,T,5"),
        sequence([-1, 3, 4], shape="N,3,5", there="-1,4"),
    ],
    ids=["static", "first left", "second left", "all given", "open batch", "open time", "minus one twice"],
)
def test_reshapes_that_undo_each_other_go(model: onnx.ModelProto) -> None:
    result = fold_and_compare(model)
    assert operators(result.model) == ["MatMul", "Add"]


def test_the_bias_keeps_the_rank_of_a_vector() -> None:
    """`[N]`, as exporters write it and runtimes recognise, and not `[1, 1, N]`."""
    folded = fold_and_compare(sequence([2, 3, 4])).model
    add = next(node for node in folded.graph.node if node.op_type == "Add")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in folded.graph.initializer}
    assert [shapes[name] for name in add.input if name in shapes] == [(4,)]


def test_reshapes_go_on_both_sides_of_two_blocks() -> None:
    """Two blocks in a row, each flattened and brought back."""
    second = statistics(6, 3, "n")
    model = build(
        """g (float[N,3,5] x) => (float[N,3,6] y) {
            flat = Constant <value_ints = [-1,4]> ()
            wide = Constant <value_ints = [-1,3,4]> ()
            flat2 = Constant <value_ints = [-1,6]> ()
            wide2 = Constant <value_ints = [-1,3,6]> ()
            m = MatMul (x, w)
            a = Reshape (m, flat)
            b = BatchNormalization (a, scale, bias, mean, var)
            c = Reshape (b, wide)
            r = Relu (c)
            m2 = MatMul (r, v)
            a2 = Reshape (m2, flat2)
            b2 = BatchNormalization (a2, nscale, nbias, nmean, nvar)
            y = Reshape (b2, wide2)
        }""",
        {"w": weight(5, 4), "v": weight(4, 6), **statistics(4), **second},
    )
    assert operators(fold_and_compare(model).model) == ["MatMul", "Add", "Relu", "MatMul", "Add"]


def test_a_flatten_undone_by_a_reshape_goes() -> None:
    model = build(
        f"""g (float[2,3,5] x) => (float[2,3,4] y) {{
            m = MatMul (x, w)
            a = Flatten <axis = 2> (m)
            {NORM}
            back = Constant <value_ints = [2,3,4]> ()
            y = Reshape (b, back)
        }}""",
        {"w": weight(5, 4), **statistics(4)},
    )
    assert operators(fold_and_compare(model).model) == ["MatMul", "Add"]


STAY: Mapping[str, tuple[onnx.ModelProto, list[str]]] = {
    "another final shape": (sequence([3, 2, 4]), ["MatMul", "Reshape"]),
    "one axis more": (sequence([2, 3, 2, 2]), ["MatMul", "Reshape"]),
    "two open sizes": (sequence([-1, 3, 4], shape="N,T,5"), ["MatMul", "Reshape"]),
    "another open size": (sequence([3, -1, 4], shape="N,3,5"), ["MatMul", "Reshape"]),
}


@pytest.mark.parametrize("name", STAY)
def test_a_reshape_to_another_shape_stays(name: str) -> None:
    """The BatchNorm is gone all the same, and of two Reshapes in a row the second is enough."""
    model, expected = STAY[name]
    found = operators(fold_and_compare(model).model)
    assert "BatchNormalization" not in found
    assert [op for op in found if op != "Add"] == expected


def test_a_size_that_is_copied_reads_the_first_reshape() -> None:
    """With a zero in its target, the second Reshape takes a size from what the first gives."""
    found = operators(fold_and_compare(sequence([0, 2, 2])).model)
    assert [op for op in found if op != "Add"] == ["MatMul", "Reshape", "Reshape"]


def test_the_flattened_value_is_read_elsewhere() -> None:
    """Its other reader sees other numbers, so the BatchNorm stays, and with it the Reshapes."""
    model = sequence([2, 3, 4], rest="z = Sigmoid (a)", outputs="y z")
    found = operators(fold_and_compare(model).model)
    assert found.count("Reshape") == 2
    assert "BatchNormalization" in found


def test_the_normalised_value_is_read_elsewhere() -> None:
    """The first Reshape stays for its other reader; the second, which undid it, goes."""
    model = sequence([2, 3, 4], rest="z = Sigmoid (b)", outputs="y z")
    found = operators(fold_and_compare(model).model)
    assert "BatchNormalization" not in found
    assert found.count("Reshape") == 1


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_value_between_is_an_output(name: str) -> None:
    model = sequence([2, 3, 4])
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [6, 4]))
    folded = fold_and_compare(model).model
    assert operators(folded).count("Reshape") >= (2 if name == "a" else 1)
    assert name in {made for node in folded.graph.node for made in node.output}


def transposed(there: list[int], back: list[int], shape: str = "2,4,4,4") -> onnx.ModelProto:
    return build(
        f"""g (float[{shape}] x) => (float[?,?,?,?] y) {{
            m = MatMul (x, w)
            a = Transpose <perm = {there}> (m)
            {NORM}
            y = Transpose <perm = {back}> (b)
        }}""",
        {"w": weight(4, 4), **statistics(4)},
    )


def test_transposes_that_cancel_go() -> None:
    """Not their own inverse: the second is the inverse of the first."""
    assert operators(fold_and_compare(transposed([0, 3, 1, 2], [0, 2, 3, 1])).model) == ["MatMul", "Add"]


def test_transposes_that_do_not_cancel_stay() -> None:
    """All sizes are the same, so only the axes tell."""
    found = operators(fold_and_compare(transposed([0, 3, 1, 2], [0, 3, 1, 2])).model)
    assert found.count("Transpose") == 2
    assert "BatchNormalization" not in found


def test_reshapes_without_an_affine_between_are_left_alone() -> None:
    """What bnfold did not bring about it does not tidy up."""
    model = build(
        """g (float[2,3,4] x) => (float[2,3,4] y) {
            there = Constant <value_ints = [6,4]> ()
            back = Constant <value_ints = [2,3,4]> ()
            a = Reshape (x, there)
            b = Reshape (a, back)
            y = Relu (b)
        }"""
    )
    assert operators(bnfold.fold(model).model) == ["Reshape", "Reshape", "Relu"]


def test_the_numbers_are_those_of_the_formula() -> None:
    model = sequence([2, 3, 4])
    folded = fold_and_compare(model).model
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in folded.graph.initializer}
    scale = held["scale"] / np.sqrt(held["var"] + 1e-5)
    matmul, add = (next(n for n in folded.graph.node if n.op_type == op) for op in ("MatMul", "Add"))
    np.testing.assert_allclose(after[matmul.input[1]], held["w"] * scale, rtol=1e-6)
    shift = next(after[name] for name in add.input if name in after)
    np.testing.assert_allclose(shift, held["bias"] - held["mean"] * scale, rtol=1e-5)
