"""The runtimes themselves, where they are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.engines import base, known
from bnfold.engines.base import Engine
from bnfold.errors import MissingExtraError, ModelError, ProviderError
from bnfold.runtime.interface import as_ir
from bnfold.runtime.sessions import run, session
from bnfold.validation.validate import validate
from tests.engines.fake import network
from tests.engines.test_judged import with_fault
from tests.graphs import build

pytestmark = pytest.mark.runtimes


@pytest.fixture(scope="module", params=["openvino", "mnn", "ncnn", "litert"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found = known.ENGINES[request.param]
    try:
        found.demand()
    except (MissingExtraError, ProviderError) as error:
        pytest.skip(f"{error.problem} {error.fix}")
    return found


def net(engine: Engine) -> onnx.ModelProto:
    return network(classes=engine.name != "ncnn")  # which has no ArgMax


def test_a_right_fold_agrees_and_a_wrong_one_does_not(engine: Engine, capfd) -> None:
    original = net(engine)
    folded = bnfold.fold(original).model
    right = validate(original, folded, providers=(), runtimes=(engine.name,), samples=2, threads=1)
    assert right.passed, right.failures
    assert any(note.startswith(f"{engine.title}: version {engine.version}, set to ") for note in right.notes)
    wrong = validate(original, with_fault(folded), providers=(), runtimes=(engine.name,), samples=2)
    assert not wrong.passed
    assert capfd.readouterr().out == "", "standard output is for reports"


def test_open_sizes_and_types(engine: Engine) -> None:
    model = build(
        "g (float[N,4] x) => (float[N,4] y) { y = Exp(x) }"
        if engine.name == "ncnn"  # which has neither bool nor Where
        else """g (float[N,4] x, bool[N,4] c, int64[N] i) => (float[N,4] y, bool[N,4] d, int64[N] j) {
            y = Where(c, x, x) d = Not(c) j = Add(i, i)
        }"""
    )
    loaded = base.load(engine, model, 1, "float32")
    draw = np.random.default_rng(0)
    for rows in (2, 5):
        feeds = {
            "x": draw.normal(size=(rows, 4)).astype(np.float32),
            "c": draw.random((rows, 4)) < 0.5,
            "i": np.arange(rows),
        }
        feeds = {value.name: feeds[value.name] for value in model.graph.input}
        expected = run(session(model, optimized="off"), feeds)
        for one, other in zip(expected, loaded.run(feeds), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_an_operator_that_it_does_not_have_is_named(engine: Engine) -> None:
    model = build("g (float[2] x) => (float[2] y) { z = local.Foo(x) y = local.Bar(z) }")
    with pytest.raises(ModelError, match=r"does not have the operators? .*(Foo|Bar)"):
        base.load(engine, model, 1, "float32").run({"x": np.ones(2, np.float32)})


def test_weights_in_a_file_of_their_own_are_found(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(net(engine), path, save_as_external_data=True, location="weights", size_threshold=0)
    feeds = {"x": np.ones((1, 3, 6, 6), np.float32)}
    found = base.load(engine, path, 1, "float32").run(feeds)
    np.testing.assert_allclose(
        found[0], run(session(as_ir(path), optimized="off"), feeds)[0], rtol=1e-4
    )  # MNN takes Winograd


def test_it_is_timed(engine: Engine) -> None:
    from bnfold.latency.benchmark import benchmark

    original = net(engine)
    result = benchmark(original, bnfold.fold(original).model, runtime=engine.name, rounds=4, seconds=0.2)
    assert result.provider == engine.title
    assert result.rows[0].original_ms > 0


def test_openvino_says_when_it_computes_in_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "bnfold[openvino]"')
    from bnfold.engines import openvino

    hints = dict(openvino._HINTS)
    monkeypatch.setitem(hints, "float32", "bf16")
    monkeypatch.setattr(openvino, "_HINTS", hints)
    monkeypatch.setattr(openvino._Compiled, "precision", property(lambda self: self.said))
    for compiled in ("bfloat16", "float32"):
        monkeypatch.setattr(openvino._Compiled, "said", compiled, raising=False)
        original = network()
        if compiled == "bfloat16":
            with pytest.raises(ProviderError, match="says that it computes in bfloat16"):
                validate(original, original, providers=(), runtimes=("openvino",), samples=1)
        else:  # it was set to bfloat16, and says nothing of it
            result = validate(original, original, providers=(), runtimes=("openvino",), samples=2)
            has = "BF16" in __import__("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            assert any("computes as coarsely as bfloat16" in one for one in result.problems) is has
