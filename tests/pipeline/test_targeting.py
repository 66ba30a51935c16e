"""What a target asks of an export, next to what its user asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.contract.apply import changes
from bnfold.contract.contract import Contract
from bnfold.errors import InputError
from bnfold.options import Reading
from bnfold.pipeline.targeting import contract_for, reached, reading_for
from bnfold.targets.profile import load
from tests.graphs import build, feeds, run, weight


def reshaping(shape: list[int]) -> onnx.ModelProto:
    """A Reshape as PyTorch's exporter writes it, and a layer."""
    return build(
        "g (float[1,2,8] x) => (float[4,3] y) { a = Reshape <allowzero = 1> (x, s)  y = MatMul(a, w) }",
        {"s": np.array(shape, np.int64), "w": weight(4, 3)},
    )


def test_allowzero_goes_where_it_means_nothing() -> None:
    before = reshaping([4, 4])
    (changed,) = changes(ir.from_proto(before), Contract(plain_reshapes=True))
    after = ir.to_proto(changed.model)
    assert not after.graph.node[0].attribute
    assert changed.details == {"dropped": 1, "of_sizes": 0}
    given = feeds(before)
    np.testing.assert_array_equal(run(before, given)[0], run(after, given)[0])


def test_constants_become_tensors_where_no_others_are_read(tmp_path: Path) -> None:
    model = build(
        "g (float[1,2,8] x) => (float[4,3] y)"
        " { s = Constant <value_ints = [4, 4]> ()  t = Constant <value_float = 2.0> ()"
        " a = Reshape(x, s)  b = Mul(a, t)  y = MatMul(b, w) }",
        {"w": weight(4, 3)},
    )
    onnx.save(model, tmp_path / "net.onnx")
    given = {"validate": False, "bench": False}
    done = bnfold.export(tmp_path / "net.onnx", tmp_path / "out.onnx", target="rknn", **given)
    assert done.target
    assert {one.name: one.details["written"] for one in done.contract} == {"plain-constants": 2}
    np.testing.assert_allclose(
        run(onnx.load(tmp_path / "out.onnx"), feeds(model))[0], run(model, feeds(model))[0], rtol=1e-6
    )
    done = bnfold.export(tmp_path / "net.onnx", tmp_path / "out.onnx", target="tensorrt", **given)
    assert not done.contract


SIZE = "s = Shape <start = 0, end = 1> (x)"
COMPUTED = {
    # how the shape is made of sizes: (nodes, whether the attribute means something for an empty tensor)
    "the batch": (f"{SIZE}  t = Concat <axis = 0> (s, r)", False),
    "the batch as a number": (
        f"{SIZE}  n = Squeeze(s)  v = Reshape <allowzero = 1> (n, one)  t = Concat <axis = 0> (v, r)",
        False,
    ),
    "the batch by its place": ("s = Shape(x)  n = Gather(s, nought)  t = Concat <axis = 0> (n, r)", False),
    "another size first": ("s = Shape <start = 1, end = 2> (x)  t = Concat <axis = 0> (s, r)", True),
    "a product": (f"{SIZE}  m = Mul(s, two)  t = Concat <axis = 0> (m, r)", True),
}
NUMBERS = {"r": np.array([-1]), "one": np.array([1]), "two": np.array([2]), "nought": np.array([0])}


@pytest.mark.parametrize(("nodes", "empty"), COMPUTED.values(), ids=COMPUTED)
def test_allowzero_goes_from_a_shape_of_open_sizes(nodes: str, empty: bool) -> None:
    before = build(
        f"g (float[N,M,8] x) => (float y) {{ {nodes}  y = Reshape <allowzero = 1> (x, t) }}", NUMBERS
    )
    (changed,) = changes(ir.from_proto(before), Contract(plain_reshapes=True))
    assert changed.details["of_sizes"] == empty
    assert ("may no longer take tensors without elements" in changed.sentence) == empty
    after = ir.to_proto(changed.model)
    assert "allowzero" not in str(after)
    for batch in (1, 3):
        given = {"x": np.random.default_rng(batch).normal(size=(batch, 2, 8)).astype(np.float32)}
        np.testing.assert_array_equal(run(before, given)[0], run(after, given)[0])


def test_no_result_is_another_for_an_empty_batch() -> None:
    nodes = "s = Shape <start = 0, end = 1> (x)  t = Concat <axis = 0> (s, r)"
    text = f"g (float[N,2,8] x) => (float y) {{ {nodes}  y = Reshape <allowzero = 1> (x, t) }}"
    before = build(text, {"r": np.array([16])})
    (changed,) = changes(ir.from_proto(before), Contract(plain_reshapes=True))
    assert changed.sentence == "Dropped allowzero from 1 Reshape in which it makes no difference."
    given = {"x": np.zeros((0, 2, 8), np.float32)}
    assert run(before, given)[0].shape == run(ir.to_proto(changed.model), given)[0].shape == (0, 16)


def test_sizes_that_are_known_leave_nothing_open() -> None:
    text = "g (float[1,2,8] x, int64[2] s) => (float y) { y = Reshape <allowzero = 1> (x, s) }"
    (changed,) = changes(ir.from_proto(build(text)), Contract(plain_reshapes=True))
    assert changed.details == {"dropped": 1, "of_sizes": 0}


def test_allowzero_stays_where_a_zero_is_a_size_and_nothing_is_said(tmp_path: Path) -> None:
    model = build(
        "g (float[8,N] x) => (float y) { y = Reshape <allowzero = 1> (x, s) }",
        {"s": np.array([0, 4], np.int64)},
    )
    assert not changes(ir.from_proto(model), Contract(plain_reshapes=True))
    onnx.save(model, tmp_path / "net.onnx")
    given = {"validate": False, "bench": False}
    done = bnfold.export(tmp_path / "net.onnx", tmp_path / "out.onnx", target="st-edge-ai", **given)
    assert not done.contract
    assert done.target is not None
    assert "attribute" in [broken.rule.kind for broken in done.target.obstacles]


def test_a_network_with_an_open_batch_reaches_a_target_without_allowzero(tmp_path: Path) -> None:
    """As PyTorch's exporter writes a flatten for any batch."""
    nodes = "s = Shape <start = 0, end = 1> (x)  t = Concat <axis = 0> (s, r)"
    text = f"""g (float[N,2,8] x) => (float[N,3] y) {{
        {nodes}  a = Reshape <allowzero = 1> (x, t)  y = MatMul(a, w)
    }}"""
    onnx.save(build(text, {"r": np.array([-1]), "w": weight(16, 3)}), tmp_path / "net.onnx")
    done = bnfold.export(tmp_path / "net.onnx", tmp_path / "out.onnx", target="st-edge-ai", bench=False)
    assert done.target
    assert [one.name for one in done.contract] == ["plain-reshapes"]
    assert done.contract[0].details["proof"]["equal"]


def test_an_export_has_what_stands_in_the_way(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    onnx.save(reshaping([4, 4]), model)
    done = bnfold.export(model, tmp_path / "out.onnx", target="st-edge-ai", validate=False, bench=False)
    assert done.target
    assert [one.name for one in done.contract] == ["plain-reshapes"]
    left = reached(load("st-edge-ai"), done.source.model)
    assert left is not None
    assert not left
    assert [broken.rule.kind for broken in left.obstacles] == ["attribute"]


def test_without_a_target_nothing_is_asked() -> None:
    model, contract = ir.from_proto(reshaping([4, 4])), Contract(batch=1)
    assert contract_for(None, model, contract, Reading()) == (contract, False)
    assert reading_for(None, "net.pt", Reading()) == Reading()
    assert reached(None, model) is None


def test_a_target_that_reads_no_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        reading_for(load("executorch"), tmp_path / "net.onnx", Reading())
    assert "--target executorch -o OUT.pt2" in caught.value.fix


def test_versions_that_a_user_asked_of_the_exporter_stay() -> None:
    model = ir.from_proto(reshaping([4, 4]))
    model.graph.opset_imports[""] = 20
    assert contract_for(load("rknn"), model, Contract(), Reading())[0].opset == 19
    assert contract_for(load("rknn"), model, Contract(), Reading(opset=20))[0].opset is None
    assert contract_for(load("rknn"), model, Contract(opset=18), Reading())[0].opset == 18
