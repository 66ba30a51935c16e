"""Folds after which ONNX Runtime's own graph is worse are taken back, each alone, even without the list."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold import patterns
from bnfold.errors import ModelError
from bnfold.latency import optimized_graph as module
from bnfold.latency.optimized_graph import OptimizedGraph, optimized_graph, what_grew
from bnfold.pipeline import harm
from bnfold.pipeline.export import export
from bnfold.pipeline.exported import Export
from bnfold.validation import compare as comparing
from bnfold.validation.layers import Blame, Layer
from bnfold.validation.results import Check, Validation
from tests.graphs import build, statistics, weight


def gelu() -> onnx.ModelProto:
    """Conv → BatchNormalization → Gelu with the error function, written out → Conv → BatchNormalization."""
    return build(
        """g (float[1,3,8,8] x) => (float[1,4,4,4] y) {
            c = Conv(x, w)
            n = BatchNormalization(c, scale, bias, mean, var)
            d = Div(n, root)
            e = Erf(d)
            p = Add(e, one)
            m = Mul(n, p)
            h = Mul(m, half)
            k = Conv(h, v)
            y = BatchNormalization(k, l_scale, l_bias, l_mean, l_var)
        }""",
        {
            "w": weight(4, 3, 3, 3), "v": weight(4, 4, 3, 3, seed=2),
            **statistics(4), **statistics(4, 7, "l_"),
            "root": np.float32(math.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5),
        },
    )  # fmt: skip


def layer_norm() -> onnx.ModelProto:
    """Conv → BatchNormalization → LayerNorm, written out with its γ and β → MatMul."""
    draw = np.random.default_rng(3)
    return build(
        """g (float[1,4,8,8] x) => (float[1,10,6] y) {
            c = Conv(x, w)
            k = BatchNormalization(c, scale, bias, mean, var)
            r = Reshape(k, shape)
            mu = ReduceMean<axes = [-1]>(r)
            d = Sub(r, mu)
            q = Pow(d, two)
            s2 = ReduceMean<axes = [-1]>(q)
            s3 = Add(s2, eps)
            s = Sqrt(s3)
            n = Div(d, s)
            g = Mul(n, gamma)
            b = Add(g, beta)
            y = MatMul(b, u)
        }""",
        {
            "w": weight(10, 4, 3, 3), **statistics(10), "shape": np.array([1, 10, 36]),
            "two": np.float32(2), "eps": np.float32(1e-5), "u": weight(36, 6, seed=4),
            "gamma": draw.uniform(0.5, 2, 36).astype(np.float32),
            "beta": draw.normal(size=36).astype(np.float32),
        },
        opset=17,
    )  # fmt: skip


def branches() -> onnx.ModelProto:
    """A 3×3 and a 1×1 convolution with a BatchNorm each, added: they become one convolution."""
    return build(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
            a = Conv<pads = [1,1,1,1]>(x, w)
            an = BatchNormalization(a, a_scale, a_bias, a_mean, a_var)
            b = Conv(x, v)
            bn = BatchNormalization(b, b_scale, b_bias, b_mean, b_var)
            s = Add(an, bn)
            y = Relu(s)
        }""",
        {
            "w": weight(4, 4, 3, 3), "v": weight(4, 4, 1, 1, seed=5),
            **statistics(4, 0, "a_"), **statistics(4, 1, "b_"),
        },
    )  # fmt: skip


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Export]:
    """Export a model, whose nodes are named after what they compute, without timing it."""

    def run(model: onnx.ModelProto, **options: Any) -> Export:
        for node in model.graph.node:
            node.name = f"make_{node.output[0]}"
        onnx.save(model, tmp_path / "model.onnx")
        return export(tmp_path / "model.onnx", tmp_path / "out.onnx", **{"bench": False} | options)

    return run


@pytest.fixture
def no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of what runtimes recognise."""
    monkeypatch.setattr(patterns, "PATTERNS", ())


def operators(done: Export) -> list[str]:
    assert done.destination is not None
    return [node.op_type for node in onnx.load(done.destination).graph.node]


def codes(done: Export) -> dict[str, str]:
    return {site.name: site.reason.code for site in done.fold.kept if site.reason}


MODELS = {"Gelu": (gelu, ("make_d",)), "LayerNormalization": (layer_norm, ("make_g",))}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.usefixtures("no_list")
def test_the_judge_alone_takes_back_what_does_harm_and_keeps_the_rest(kind: str, exported) -> None:
    make, harmful = MODELS[kind]
    loose = bnfold.fold(make())
    grown = what_grew(optimized_graph(make()), optimized_graph(loose.model))
    assert f"1 fewer {kind}" in grown, "without the list and the judge the fold does harm"
    done = exported(make())
    assert {site.op_type for site in done.fold.folded} == {"BatchNormalization"}
    assert codes(done) == dict.fromkeys(harmful, "BN310")
    (site,) = done.fold.kept
    assert site.reason is not None
    assert " and ".join(grown) in site.reason.sentence
    assert operators(done) == [n.op_type for n in make().graph.node if n.op_type != "BatchNormalization"]
    assert done.graphs is not None
    assert done.graphs.taken_back == harmful
    assert (done.graphs.worse, done.graphs.apart) == ((), False)
    assert done.graphs.folded == optimized_graph(onnx.load(done.destination))
    assert done.graphs.folded.whole == {kind: 1}
    assert what_grew(done.graphs.original, done.graphs.folded) == ()


@pytest.mark.parametrize("kind", MODELS)
def test_with_the_list_there_is_nothing_to_take_back(kind: str, exported) -> None:
    make, _ = MODELS[kind]
    done = exported(make(), validate=False)
    assert done.graphs is not None
    assert (done.graphs.taken_back, done.graphs.worse, done.fold.kept) == ((), (), ())
    assert done.graphs.folded.whole == {kind: 1}


@pytest.mark.usefixtures("no_list")
def test_what_is_to_be_kept_stays_kept_while_a_fold_is_taken_back(exported) -> None:
    done = exported(gelu(), keep=["make_y"])
    assert codes(done) == {"make_y": "BN108", "make_d": "BN310"}
    assert operators(done).count("BatchNormalization") == 1


def planted(monkeypatch: pytest.MonkeyPatch, is_worse: Callable[[ir.Model], bool]) -> None:
    """Let ONNX Runtime's graph of some models have ten nodes more than it has."""
    honest = module.optimized_graph

    def count(model: ir.Model) -> OptimizedGraph:
        found = honest(model)
        return replace(found, nodes=found.nodes + 10 * is_worse(model))

    monkeypatch.setattr(module, "optimized_graph", count)


def has_one_convolution(model: ir.Model) -> bool:
    return sum(node.op_type == "Conv" for node in model.graph) == 1


def test_merging_that_does_harm_is_switched_off_and_every_batchnorm_still_goes(exported, monkeypatch) -> None:
    assert operators(exported(branches())) == ["Conv", "Relu"]
    planted(monkeypatch, has_one_convolution)
    done = exported(branches())
    assert operators(done) == ["Conv", "Conv", "Add", "Relu"]
    assert (done.fold.kept, done.fold.merges) == ((), ())
    assert done.graphs is not None
    assert (done.graphs.taken_back, done.graphs.worse, done.graphs.apart) == ((), (), True)


def test_what_cannot_be_traced_to_a_fold_is_said_and_the_folds_are_kept(exported, monkeypatch) -> None:
    names = iter(range(10**6))
    planted(monkeypatch, lambda _: next(names) > 0)  # every model but the original
    done = exported(gelu())
    assert done.graphs is not None
    assert (done.graphs.taken_back, done.graphs.apart, done.fold.kept) == ((), False, ())
    assert done.graphs.worse
    assert done.graphs.worse[0].endswith("more nodes")
    assert "BatchNormalization" not in operators(done)


@pytest.mark.usefixtures("no_list")
def test_the_search_ends_when_its_tries_are_used_up(exported, monkeypatch) -> None:
    monkeypatch.setattr(harm, "_TRIES", 0)
    done = exported(gelu(), validate=False)
    assert done.graphs is not None
    assert done.graphs.taken_back == ()
    assert any("fewer Gelu" in words for words in done.graphs.worse)


def test_a_model_that_onnx_runtime_cannot_load_is_folded_unjudged(exported) -> None:
    model = build(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
            c = Conv(x, w)
            n = BatchNormalization(c, scale, bias, mean, var)
            y = local.Unheard(n)
        }""",
        {"w": weight(4, 3, 3, 3), **statistics(4)},
    )
    with pytest.raises(ModelError):
        optimized_graph(model)
    done = exported(model, validate=False)
    assert done.graphs is None
    assert done.no_graphs.startswith("it could not load one of the models (")
    assert operators(done) == ["Conv", "Unheard"]


@pytest.mark.parametrize("why", ["it is not installed", "the weights are larger than 1.5 GiB"])
def test_what_cannot_be_judged_is_folded_by_the_list(why: str, exported, monkeypatch) -> None:
    if why == "it is not installed":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        monkeypatch.setattr(harm, "_LARGEST", 100)
    done = exported(gelu(), validate=False)
    assert (done.graphs, done.no_graphs) == (None, why)
    assert operators(done) == ["Conv", "Div", "Erf", "Add", "Mul", "Mul", "Conv"]


def test_after_a_rollback_the_graph_is_that_of_the_file(exported, monkeypatch) -> None:
    """A validation that blames one fold is planted; without it the runtime's graph has a node more."""
    model = build(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
            n = BatchNormalization(x, scale, bias, mean, var)
            y = Conv(n, w)
        }""",
        {"w": weight(4, 3, 3, 3), **statistics(3)},
    )
    wrong = Layer("y", 0, 1.0, 1e-7, site="make_n", nodes=("make_y",), originals=("make_n",))
    passed = Check("cpu", "off", "y", "float32", ((1, 4, 6, 6),), 5e-5, 1e-6, 2e-7, 1.0, None, None)
    bad = Validation((), ("It differs.",), layers=(wrong,), blame=Blame(wrong))
    verdicts = iter([bad, Validation((passed,))])
    monkeypatch.setattr(comparing, "compare", lambda *_: next(verdicts))
    done = exported(model, rollback=True)
    assert operators(done) == ["BatchNormalization", "Conv"]
    assert done.rolled_back == ("make_n",)
    assert done.graphs is not None
    assert done.graphs.folded == optimized_graph(onnx.load(done.destination)) == done.graphs.original
    assert done.graphs.folded.extended_nodes == 2
