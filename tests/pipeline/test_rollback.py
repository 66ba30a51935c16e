"""A defect is planted in the algebra; the fold that it spoils is undone alone, and the rest is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

import bnfold
from bnfold.algebra.kernel import Kernel
from bnfold.folding.fold import fold_into
from bnfold.graph.nodes import label
from bnfold.ops.conv import Conv
from bnfold.ops.linear import Weighted, multiplied
from bnfold.ops.matmul import MatMul
from bnfold.pipeline import rollback as module
from bnfold.pipeline.export import export
from bnfold.pipeline.exported import Export, ExportDisagreementError
from bnfold.report import json as report
from bnfold.report.terminal import text
from bnfold.tensors.product import Product
from bnfold.validation import compare as comparing
from bnfold.validation.layers import Blame, Layer
from bnfold.validation.validate import Validation
from tests.graphs import build, statistics, weight
from tests.small_networks import Draft, levit, residual

Plant = Callable[[pytest.MonkeyPatch], None]


def repvgg(seed: int) -> onnx.ModelProto:
    """Blocks of 4 and of 6 channels: a 3×3 and a 1×1 convolution and an identity, each with a BatchNorm."""
    d, x = Draft(seed), "x"
    for name, channels in (("one", 4), ("two", 6)):
        if name == "two":
            x = d.conv("wider", x, (6, 4, 1, 1), bias=True)
        branches = [
            d.norm(
                f"{name}.bn3", d.conv(f"{name}.conv3", x, (channels, channels, 3, 3), pads=[1] * 4), channels
            ),
            d.norm(f"{name}.bn1", d.conv(f"{name}.conv1", x, (channels, channels, 1, 1)), channels),
            d.norm(f"{name}.bn0", x, channels),
        ]
        x = d.node("Relu", f"{name}.relu", d.node("Sum", f"{name}.sum", *branches))
    return d.model(["N", 4, 8, 8], x)


def misscale(monkeypatch: pytest.MonkeyPatch, family: type[Weighted], faulty: Collection[str]) -> None:
    """Let an operator scale its first output channel by 1 % too much, in the nodes of these names."""
    honest = family.scales
    first: Any = 0 if family is Conv else (..., 0)

    def scales(self: Weighted, node: ir.Node, *given: Any) -> tuple[np.ndarray, np.ndarray]:
        array = np.array(multiplied(honest(self, node, *given)))
        if label(node) in faulty:
            array[first] *= 1.01
        return array, np.ones((1,) * array.ndim)

    monkeypatch.setattr(family, "scales", scales)


def forget_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sum of two kernels of four channels lose the bias of one."""
    honest = Kernel.plus

    def plus(self: Kernel, other: Kernel) -> Kernel:
        total = honest(self, other)
        return replace(total, bias=self.bias) if len(total.bias) == 4 else total

    monkeypatch.setattr(Kernel, "plus", plus)


def in_conv(monkeypatch: pytest.MonkeyPatch) -> None:
    misscale(monkeypatch, Conv, {"layer1.conv2"})


def in_two_convs(monkeypatch: pytest.MonkeyPatch) -> None:
    misscale(monkeypatch, Conv, {"stem.conv", "layer2.down.conv"})


def in_matmul(monkeypatch: pytest.MonkeyPatch) -> None:
    misscale(monkeypatch, MatMul, {"k.fc"})


CASES = [
    (residual, in_conv, {"layer1.bn2"}),
    (residual, in_two_convs, {"stem.bn", "layer2.down.bn"}),
    (levit, in_matmul, {"k.bn"}),
    (repvgg, forget_a_bias, {"one.bn0", "one.bn1", "one.bn3"}),
]
case = pytest.mark.parametrize(("network", "plant", "bad"), CASES, ids=["conv", "convs", "matmul", "merge"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the process in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attempt(model: onnx.ModelProto, **options: Any) -> Export:
    """Export a model to `out.onnx`."""
    onnx.save(model, "model.onnx")
    return export("model.onnx", "out.onnx", bench=False, samples=2, **options)


def shown(done: Export) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(text.export_report(done))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def batchnorms(path: str) -> set[str]:
    return {node.name for node in onnx.load(path).graph.node if node.op_type == "BatchNormalization"}


# What is wrong is undone, and nothing else


@case
def test_the_bad_fold_is_undone_and_the_others_are_kept(network, plant: Plant, bad, monkeypatch) -> None:
    assert not bnfold.fold(network(0)).kept
    with monkeypatch.context() as planted:
        plant(planted)
        done = attempt(network(0), rollback=True)
    assert {site.node for site in done.fold.kept} == bad == batchnorms("out.onnx")
    assert {site.reason.code for site in done.fold.kept} == {"BN108"}
    assert done.validation.passed
    assert set(done.rolled_back) & {site.node for site in done.fold.sites} == bad
    assert bnfold.validate(network(0), onnx.load(done.destination)).passed


@case
def test_without_being_asked_nothing_is_undone_or_written(network, plant: Plant, bad, monkeypatch) -> None:
    plant(monkeypatch)
    with pytest.raises(ExportDisagreementError) as caught:
        attempt(network(0))
    assert caught.value.exit_code == 1
    assert "--rollback" in caught.value.fix
    found = caught.value.export
    assert (found.destination, found.rolled_back) == (None, ())
    assert not Path("out.onnx").exists()
    accused = {
        name for layer in found.validation.layers if not layer.agrees for name in layer.site.split(", ")
    }
    assert accused == bad
    assert found.validation.blame.layer.site in found.validation.failures[0]


@case
def test_what_was_undone_is_said_in_words_and_in_the_document(
    network, plant: Plant, bad, monkeypatch
) -> None:
    plant(monkeypatch)
    done = attempt(network(0), rollback=True)
    page = shown(done)
    said = page.partition("Rolled back, because the fold was wrong: ")[2].partition(".  ")[0]
    assert all(name in said for name in bad)
    assert "or a fold that included it was rolled back" in page
    assert "The folded model computes what the original computes," in page
    document = json.loads(report.dumps(report.export_document("export", done)))
    assert bad <= set(document["rolled_back"])
    assert document["output"] is not None
    reasons = {site["node"]: site["reason"] for site in document["fold"]["sites"]}
    assert {node for node, reason in reasons.items() if reason and reason["code"] == "BN108"} == bad


def test_all_that_is_seen_to_be_wrong_is_undone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    in_two_convs(monkeypatch)
    rounds = _counted(monkeypatch)
    attempt(residual(0), rollback=True)
    assert rounds == [set(), {"stem.conv", "stem.bn", "layer2.down.conv", "layer2.down.bn"}]


def test_a_right_fold_is_left_alone() -> None:
    done = attempt(residual(0), rollback=True)
    assert (done.rolled_back, done.fold.kept) == ((), ())
    assert "Rolled back" not in shown(done)


def test_what_was_to_be_kept_stays_beside_what_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    in_conv(monkeypatch)
    done = attempt(residual(0), rollback=True, keep=["layer2.bn1"])
    assert batchnorms("out.onnx") == {"layer1.bn2", "layer2.bn1"}
    assert "layer2.bn1" not in done.rolled_back


def test_what_shows_only_after_a_round_is_undone_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = {"layer1.conv2"}
    misscale(monkeypatch, Conv, faulty)
    rounds = _counted(monkeypatch, lambda count: count == 2 and faulty.add("layer2.conv1"))
    done = attempt(residual(0), rollback=True)
    assert len(rounds) == 3
    assert (
        batchnorms("out.onnx") == {"layer1.bn2", "layer2.bn1"} == {n for n in done.rolled_back if ".bn" in n}
    )
    assert done.rolled_back.index("layer1.bn2") < done.rolled_back.index("layer2.bn1")


def test_a_fold_that_only_the_runtime_computes_wrongly_is_undone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a provider would that computes something else: in float64 every value agrees."""
    right = Layer("layer1.bn2_out", 3, 0.0, 1e-7, originals=("layer1.conv2", "layer1.bn2"))
    other = replace(right, name="layer1.bn1_out", originals=("layer1.conv1", "layer1.bn1"))
    layers, blame = (other, right), Blame(right, runtime=True, provider="cuda")
    outcomes = [
        Validation((), ("It differs.",), layers=layers, blame=blame),
        bnfold.validate(*[residual(0)] * 2),
    ]
    monkeypatch.setattr(comparing, "compare", lambda *_: outcomes.pop(0))
    assert attempt(residual(0), rollback=True).rolled_back == ("layer1.bn2", "layer1.conv2")
    assert batchnorms("out.onnx") == {"layer1.bn2"}


# What cannot be undone ends


def _counted(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object] = lambda _: None
) -> list[set[str]]:
    """What each fold had to keep."""
    honest, rounds = module.fold_into, []

    def fold(_write: None, model: ir.Model, *, keep: Collection[str], **options: Any) -> Any:
        rounds.append(set(keep))
        before(len(rounds))
        return honest(None, model, keep=keep, **options)

    monkeypatch.setattr(module, "fold_into", fold)
    return rounds


def refused(model: onnx.ModelProto, **options: Any) -> ExportDisagreementError:
    with pytest.raises(ExportDisagreementError) as caught:
        attempt(model, rollback=True, **options)
    assert not Path("out.onnx").exists()
    assert "--rollback" not in caught.value.fix, "it was tried"
    return caught.value


def test_a_fault_that_no_fold_made_ends_with_the_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = _counted(monkeypatch)
    honest = module.fold_into

    def spoiled(_write: None, model: ir.Model, **options: Any) -> Any:
        result = honest(None, model, **options)
        value = result.model.graph.initializers["fc.weight"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)
        return result

    monkeypatch.setattr(module, "fold_into", spoiled)
    error = refused(residual(0))
    assert rounds == [set(), {"fc"}]
    assert error.export.rolled_back == ("fc",)
    assert not error.export.fold.kept


def test_a_fault_within_a_branch_cannot_be_undone_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(
        "g (float[1,3,6,6] x) => (float[1,4,4,4] y) { y = If(yes) "
        "<then_branch = t () => (float[1,4,4,4] p) "
        "{ c = Conv(x, w) p = BatchNormalization(c, scale, bias, mean, var) }, "
        "else_branch = e () => (float[1,4,4,4] q) { q = Conv(x, w) }> }",
        {"yes": np.array(True), "w": weight(4, 3, 3, 3), **statistics(4)},
    )
    assert len(bnfold.fold(model).folded) == 1
    rounds = _counted(monkeypatch)
    monkeypatch.setattr(Conv, "bias", lambda *_: np.zeros(4))
    error = refused(model)
    assert rounds == [set(), {"y"}]
    assert error.export.validation.blame.layer.name == "y"


def test_nodes_that_were_inlined_cannot_be_undone_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(
        "g (float[1,3,6,6] x) => (float[1,4,4,4] y) { y = local.block(x, w, scale, bias, mean, var) }\n"
        '<domain: "local", opset_import: ["" : 18]> block (x, w, s, b, m, v) => (y) '
        "{ c = Conv(x, w) y = BatchNormalization(c, s, b, m, v) }",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    rounds = _counted(monkeypatch)
    monkeypatch.setattr(Conv, "bias", lambda *_: np.zeros(4))
    assert refused(model, inline_functions=True).export.rolled_back == ()
    assert rounds == [set()]


def test_where_nothing_is_blamed_nothing_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    in_conv(monkeypatch)
    rounds = _counted(monkeypatch)
    error = refused(residual(0), oracle="off", tolerance=1e-6)
    assert error.export.validation.blame is None
    assert rounds == [set()]


@pytest.mark.parametrize("held", [0, module._HELD])
def test_a_large_model_has_weights_that_are_computed_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    expected = fold_into(None, ir.from_proto(residual(0))).model
    monkeypatch.setattr(module, "_HELD", held)
    found = attempt(residual(0)).fold.model
    lazy = {name for name, v in found.graph.initializers.items() if isinstance(v.const_value, Product)}
    assert bool(lazy) is (held == 0)
    for name, value in expected.graph.initializers.items():
        assert np.array_equal(found.graph.initializers[name].const_value.numpy(), value.const_value.numpy())
