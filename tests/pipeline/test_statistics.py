"""The numbers of folded BatchNorms, in a file and in the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.folding.fold import fold
from bnfold.pipeline import statistics
from bnfold.pipeline.fold_file import fold_file
from tests import graphs
from tests.graphs import build, weight

NORM = graphs.statistics(4)


def model(after: str = "Relu") -> onnx.ModelProto:
    return build(
        f"""g (float[2,3,5,5] x) => (float[2,4,5,5] y) {{
            [conv] c = Conv (x, w)
            [norm] n = BatchNormalization <epsilon = 0.001> (c, scale, bias, mean, var)
            [next] y = {after} (n) }}""",
        {"w": weight(4, 3, 1, 1), **NORM},
    )


def test_every_number_of_a_folded_site() -> None:
    original = ir.from_proto(model())
    [one] = statistics.of_folded(statistics.read(original), fold(original).model)
    assert (one.site, one.node, one.value, one.graph, one.into) == ("norm", "norm", "n", "", ("conv",))
    for name, key in (("gamma", "scale"), ("beta", "bias"), ("mean", "mean")):
        assert np.array_equal(np.float32(getattr(one, name)), NORM[key])
    assert np.allclose(one.sigma, np.sqrt(NORM["var"].astype(float)), rtol=1e-8, atol=0)
    assert one.epsilon == pytest.approx(1e-3, rel=1e-7)
    reach = 6 * np.abs(NORM["scale"].astype(float))
    assert np.allclose(one.low, NORM["bias"] - reach, rtol=1e-7)
    assert np.allclose(one.high, NORM["bias"] + reach, rtol=1e-7)


def test_the_range_holds_what_comes_out() -> None:
    """On data that has the mean and the deviation that the BatchNorm knows."""
    [one] = statistics.read(ir.from_proto(model()))
    rng = np.random.default_rng(0)
    read = rng.normal(0, 1, (100_000, 4)) * np.array(one.sigma) + np.array(one.mean)
    out = (read - one.mean) / np.sqrt(np.square(one.sigma) + one.epsilon) * one.gamma + one.beta
    assert np.all((out >= one.low) & (out <= one.high))
    assert np.all(out.max(axis=0) > np.array(one.beta) + 3.5 * np.abs(one.gamma))


def test_a_site_that_stays_is_left_out() -> None:
    original = ir.from_proto(model())
    known = statistics.read(original)
    assert len(known) == 1
    assert statistics.of_folded(known, fold(original, keep=["norm"]).model) == ()
    assert statistics.of_folded(known, original) == ()
    broken = original.clone()
    for text in ("{", "[]", "null", '{"into": 3}'):
        broken.metadata_props["bnfold.fold"] = text
        assert statistics.of_folded(known, broken) == ()


def test_parameters_that_are_computed_from_inputs_have_no_numbers() -> None:
    other = build(
        "g (float[2,4,5,5] x, float[4] v) => (float[2,4,5,5] y) {"
        " y = BatchNormalization (x, scale, bias, mean, v) }",
        {name: NORM[name] for name in ("scale", "bias", "mean")},
    )
    assert statistics.read(ir.from_proto(other)) == ()


def test_in_place_and_in_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    done = fold_file(path, path, in_place=True, record=True, record_in_model=True)
    assert [one.site for one in done.statistics] == ["norm"]
    written = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    [entry] = json.loads(written[statistics.KEY])
    assert entry["gamma"] == list(done.statistics[0].gamma)
    assert np.array_equal(np.float32(entry["gamma"]), NORM["scale"])


def test_nothing_is_recorded_unasked(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    done = fold_file(path, tmp_path / "out.onnx")
    assert done.statistics == ()
    assert statistics.KEY not in {entry.key for entry in onnx.load(tmp_path / "out.onnx").metadata_props}
