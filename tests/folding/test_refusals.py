"""One tiny model for every reason: what stays has this code, stays as it is, and computes the same."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.folding import search
from bnfold.reasons import RULES, Reason
from bnfold.result import FoldResult
from tests.graphs import assert_same, build, operators, statistics, weight

NORM = "BatchNormalization(c, scale, bias, mean, var)"
POOL = {
    "w": weight(4, 4, 3, 3),
    "one": weight(1, 4, 3, 3, seed=5),
    "narrow": weight(1, 4, 1, 1, seed=8),
    "apart": weight(4, 4, 2, 2, seed=9),
    "m": weight(4, 4, seed=6),
    "n": weight(4, 4, seed=7),
    "b": weight(4, seed=2),
    "root2": np.array(2**0.5, np.float32),
    "unit": np.array(1, np.float32),
    "half": np.array(0.5, np.float32),
    "zero": np.zeros((2, 4, 4, 4), np.float32),
    "split": np.array([6, 0, 4]),
    **statistics(4, 2),
}


def graph(inputs: str, outputs: str, body: str, functions: str = "") -> str:
    return f"g ({inputs}) => ({outputs}) {{ {body} }}\n{functions}"


STREAM = f"c = Conv(x, w) e = {NORM} d = Relu(e) r = Conv<pads=[1,1,1,1]>(d, w) y = Add(c, r)"
X = "float[2,4,6,6] x"
Y = "float[2,4,4,4] y"
SAME = "float[2,4,6,6] y"

# the models, and the constants that are not those of the pool
CASES: dict[str, str] = {
    "BN101": graph(
        X, Y, "c = Conv(x, w) y, a, v = BatchNormalization<training_mode=1>(c, scale, bias, mean, var)"
    ),
    "BN102": graph(f"{X}, float[4] mean", Y, f"c = Conv(x, w) y = {NORM}"),
    "BN103": graph(X, Y, f"c = Conv(x, w) y = {NORM}"),
    "BN104": graph(X, Y, f"c = Conv(x, w) y = {NORM}"),
    "BN105": graph(X, Y, f"c = Conv(x, w) y = {NORM}"),
    "BN106": graph(
        X,
        Y,
        "c = Conv(x, w) y = local.Norm<eps=0.1>(c, scale, bias, mean, var)",
        '<domain: "local", opset_import: ["": 18]> Norm <eps> (c, scale, bias, mean, var) => (y) '
        "{ y = BatchNormalization<epsilon: float = @eps>(c, scale, bias, mean, var) }",
    ),
    "BN107": graph(X, Y, "c = Conv(x, w) y = InstanceNormalization(c, scale, bias)"),
    "BN108": graph(X, Y, f"c = Conv(x, w) y = {NORM}"),
    "BN201": graph(X, Y, f"d = Conv(x, w) c = Sigmoid(d) y = {NORM}"),
    "BN202": graph(f"{X}, float[4,4,3,3] w", Y, f"c = Conv(x, w) y = {NORM}"),
    "BN203": graph(X, Y, f"c = Conv(x, w) y = {NORM}"),
    "BN204": graph(X, Y, f"d = Conv(x, w) c = Transpose<perm=[0,2,1,3]>(d) y = {NORM}"),
    "BN205": graph(X, SAME, f"c = Relu(x) e = {NORM} y = Conv<pads=[1,1,1,1]>(e, w)"),
    "BN206": graph(X, "float[2,4,3,3] y", f"d = Conv(x, w) c = MaxPool<kernel_shape=[2,2]>(d) y = {NORM}"),
    "BN207": graph(X, Y, f"d = Conv(x, w) c = Relu(d) y = {NORM}"),
    "BN208": graph(
        "float[4,4] x, int64[K] s", "float[4,4] y", f"r = Reshape(x, s) c = MatMul(r, m) y = {NORM}"
    ),
    "BN209": graph("float[4,N,6] x", "float[6,N,4] y", "e = Sigmoid(x) c = Reshape(e, split) y = Mul(c, b)"),
    "BN210": graph(X, "float[2,4,8,8] y", f"c = Relu(x) e = {NORM} y = ConvTranspose(e, w)"),
    "BN211": graph(f"{X}, float[4] b", Y, f"c = Conv(x, w, b) y = {NORM}"),
    "BN212": graph(X, Y, f"d = Conv(x, w) e = Cast<to=11>(d) c = Cast<to=1>(e) y = {NORM}"),
    "BN213": graph(X, Y, f"d = Conv(x, one) e = Conv(x, w) c = Add(d, e) y = {NORM}"),
    "BN214": graph(X, SAME, f"c = Sigmoid(x) e = {NORM} d = Tanh(x) y = Add(e, d)"),
    "BN215": graph(X, Y, f"d = Conv(x, w) c = Trilu(d) y = {NORM}"),
    "BN216": graph(X, Y, f"c = Conv<group=3>(x, w) y = {NORM}"),
    "BN301": graph(X, f"{Y}, float[2,4,4,4] z", f"c = Conv(x, w) y = {NORM} z = Sigmoid(c)"),
    "BN302": graph(X, f"{Y}, float[2,4,4,4] c", f"c = Conv(x, w) y = {NORM}"),
    "BN303": graph(
        f"{X}, bool k",
        Y,
        f"c = Conv(x, w) y = If(k) <then_branch = t () => (float[2,4,4,4] p) {{ p = {NORM} }}, "
        "else_branch = f () => (float[2,4,4,4] q) { q = Identity(zero) }>",
    ),
    "BN304": graph(X, SAME, f"c = Identity(x) y = {NORM}"),
    "BN305": graph(
        "float[2,4] x",
        "float[2,4] y, float[2,4] z",
        f"c = Relu(x) e = {NORM} y = MatMul(e, m) z = MatMul(e, n)",
    ),
    "BN306": graph(X, Y, f"d = Conv(x, w) e = Identity(d) c = Identity(e) y = {NORM}"),
    "BN307": graph(X, SAME, f"c = Identity(x) d = Conv(c, narrow) e = {NORM} y = Add(d, e)"),
    "BN308": graph(
        X,
        SAME,
        f"c = Identity(x) d = Conv<pads=[1,1,1,1], dilations=[2,2]>(c, apart) e = {NORM} y = Add(d, e)",
    ),
    "BN309": graph(
        X, SAME, f"d = Div(x, root2) e = Erf(d) a = Add(e, unit) p = Mul(x, a) c = Mul(p, half) y = {NORM}"
    ),
    "BN311": graph(X, Y, STREAM),
    "BN312": graph(X, Y, STREAM),
    "BN403": graph(
        "float16[2,4,6,6] x, float16[2,4,6,6] z",
        "float16[2,4,4,4] y",
        f"p = Conv(x, w) q = Conv(z, w) c = Add(p, q) y = {NORM}",
    ),
    "BN402": graph("float16[2,4,6,6] x", "float16[2,4,4,4] y", f"c = Conv(x, w) y = {NORM}"),
    "BN401": graph("float16[2,4,6,6] x", "float16[2,4,4,4] y", f"c = Conv(x, w) y = {NORM}"),
}
CONSTANTS: dict[str, dict[str, np.ndarray]] = {
    "BN104": {"var": np.array([1, 1, -1, 1], np.float32)},
    "BN105": {"scale": np.ones(4, np.int32)},
    "BN206": {"scale": np.array([0.5, -0.5, 1, 2], np.float32)},
    "BN311": {"scale": np.array([0.5, -0.5, 1, 2], np.float32)},
    "BN312": {"scale": np.array([0.5, 0.003, 1, 2], np.float32)},
    "BN401": {
        "w": np.full((4, 4, 3, 3), 1000, np.float16),
        **statistics(4, dtype=np.float16),
        "scale": np.full(4, 200, np.float16),
    },
}
CONSTANTS["BN403"] = {  # the terms of a sum this large, times 1.5, could exceed 65504
    "w": weight(4, 4, 3, 3, dtype=np.float16),
    "scale": np.full(4, 1.5, np.float16),
    "bias": np.ones(4, np.float16),
    "mean": np.full(4, 2000, np.float16),
    "var": np.ones(4, np.float16),
}
CONSTANTS["BN402"] = {
    **CONSTANTS["BN401"],
    "w": np.full((4, 4, 3, 3), 1e-4, np.float16),
    "scale": np.full(4, 3e-3, np.float16),
}
KEEP = {"BN108": ["y"]}
OVERRIDABLE = {"BN103": "scale", "BN203": "w"}
# nothing to compare: NaN and infinity, what ONNX Runtime refuses, a shape that is fed
CANNOT_RUN = {"BN104", "BN105", "BN208", "BN216", "BN401", "BN402", "BN403"}


def model_for(code: str) -> onnx.ModelProto:
    """The model, with those constants of the pool that its text names and does not declare as inputs."""
    text = CASES[code]
    declared = set(re.findall(r"\] (\w+)", text.split("=>")[0]))
    named = {n for n in POOL if re.search(rf"[(, ]{n}[,)]", text)} - declared
    model = build(text, {name: CONSTANTS.get(code, {}).get(name, POOL[name]) for name in sorted(named)})
    if code in OVERRIDABLE:
        name = OVERRIDABLE[code]
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, POOL[name].shape)
        model.graph.input.append(value)
    return model


ELSEWHERE = {"BN310", "BN501", "BN502", "BN503"}  # of the whole job, and of a module
GRAPH = set(RULES) - ELSEWHERE


def given(result: FoldResult[onnx.ModelProto]) -> list[Reason]:
    """All reasons, of both directions."""
    both = [reason for site in result.kept for reason in (site.reason, site.reason_after)]
    return [reason for reason in both if reason is not None]


def test_there_is_a_model_for_every_reason_and_no_other():
    assert set(CASES) == GRAPH
    assert set(RULES) - GRAPH == ELSEWHERE, "tests/pipeline/test_harm.py and tests/torch have one for each"


@pytest.mark.parametrize("code", sorted(GRAPH))
def test_the_model_of_a_reason_is_kept_for_it(code, monkeypatch):
    if code == "BN306":
        monkeypatch.setattr(search, "_LIMIT", 2)
    model = model_for(code)
    result = bnfold.fold(model, keep=KEEP.get(code, ()))
    assert code in {reason.code for reason in given(result)}
    assert operators(result.model) == operators(model)
    assert result.nodes_after == result.nodes_before
    [site] = result.sites
    assert (site.status, site.into) == ("kept", ())
    if code not in CANNOT_RUN:
        assert_same(model, result.model)


@pytest.mark.parametrize("code", sorted(GRAPH))
def test_a_reason_is_a_sentence_with_all_its_facts_and_a_remedy(code, monkeypatch):
    if code == "BN306":
        monkeypatch.setattr(search, "_LIMIT", 2)
    reason = next(
        reason
        for reason in given(bnfold.fold(model_for(code), keep=KEEP.get(code, ())))
        if reason.code == code
    )
    assert "{" not in reason.sentence
    assert "None" not in reason.sentence
    assert reason.sentence.endswith(".")
    assert reason.remedy.endswith(".")
    assert str(reason) == f"{code}: {reason.sentence}"


@pytest.mark.parametrize("code", sorted(CASES))
def test_what_is_refused_stays_byte_for_byte_on_a_second_run(code, monkeypatch):
    if code == "BN306":
        monkeypatch.setattr(search, "_LIMIT", 2)
    keep = KEEP.get(code, ())
    once = bnfold.fold(model_for(code), keep=keep).model
    twice = bnfold.fold(once, keep=keep).model
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)
