"""The remedy fits what stays and what is around it: a quantised model, arithmetic, a preprocessing step."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from bnfold.reasons import QUANTISED_FIRST, RULES, Reason, Situation
from bnfold.result import Site
from tests.graphs import build, statistics, weight

NORM = "BatchNormalization(c, scale, bias, mean, var)"
IMAGE, Y = "float[2,4,6,6] x", "float[2,4,4,4] y"
CONSTANTS = {
    "w": weight(4, 4, 3, 3),
    "factor": np.array([0.5, 2, 1.5, -1], np.float32).reshape(4, 1, 1),
    "offset": np.array([0.5, 2, 1.5, -1], np.float32).reshape(4, 1, 1),
    "step": np.array(0.05, np.float32),
    "zero": np.array(3, np.int8),
    "whole": np.array([[1, 2], [3, 4]], np.int8),
    "order": np.array([2, 1, 0, 3]),
    "pair": np.array([0.5, 2], np.float32),
    **statistics(4),
}


def kept(inputs: str, outputs: str, body: str) -> Site:
    """The one site, which stays."""
    named = {name: array for name, array in CONSTANTS.items() if f" {name}" in body or f"({name}" in body}
    [site] = bnfold.fold(build(f"g ({inputs}) => ({outputs}) {{ {body} }}", named)).sites
    assert site.status == "kept"
    return site


def both(site: Site) -> list[Reason]:
    return [reason for reason in (site.reason, site.reason_after) if reason is not None]


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, w) q = QuantizeLinear(a, step, zero) c = DequantizeLinear(q, step, zero) y = " + NORM,
        "c = Identity(x) b = BatchNormalization(c, scale, bias, mean, var) q = QuantizeLinear(b, step, zero) "
        "d = DequantizeLinear(q, step, zero) y = Conv(d, w)",
    ],
    ids=["behind a quantised layer", "before one"],
)
def test_what_stands_beside_quantisation_is_to_be_folded_first(body: str) -> None:
    site = kept(IMAGE, Y, body)
    assert {reason.remedy for reason in both(site)} == {QUANTISED_FIRST}, "one remedy for both directions"
    assert any(
        "QuantizeLinear" in reason.sentence or "DequantizeLinear" in reason.sentence for reason in both(site)
    )


def test_a_scale_that_quantised_weights_cannot_take_is_to_be_folded_first() -> None:
    body = (
        "d = DequantizeLinear(integers, step, zero) r = Conv(x, d) "
        "c = Identity(r) y = BatchNormalization(c, scale, bias, mean, var)"
    )
    integers = np.full((4, 4, 3, 3), -128, np.int8)  # 2z − q is not one of the type's
    constants = {name: CONSTANTS[name] for name in ("step", "zero", "scale", "bias", "mean", "var")}
    constants |= {"integers": integers, "scale": np.array([-1, 1, -2, 2], np.float32)}
    [site] = bnfold.fold(build(f"g ({IMAGE}) => ({Y}) {{ {body} }}", constants)).sites
    assert site.reason is not None
    assert site.reason.code == "BN210"
    assert site.reason.remedy == QUANTISED_FIRST


def test_a_cast_of_integer_arithmetic_is_quantisation_and_another_cast_is_not() -> None:
    integers = kept(
        "int8[2,2] x", "float[2,2] y", "m = MatMulInteger(x, whole) f = Cast<to=1>(m) y = Mul(f, pair)"
    )
    assert integers.reason is not None
    assert (integers.reason.code, integers.reason.remedy) == ("BN212", QUANTISED_FIRST)


def test_a_float_model_is_not_called_quantised() -> None:
    site = kept(IMAGE, Y, f"a = Conv(x, w) c = Sigmoid(a) y = {NORM}")
    assert QUANTISED_FIRST not in {reason.remedy for reason in both(site)}
    assert "the BatchNorm" in both(site)[0].remedy


@pytest.mark.parametrize(
    "before",
    ["c = Identity(x)", "c = Transpose<perm=[0,1,3,2]>(x)", "c = Gather<axis=1>(x, order)", "c = Clip(x)"],
)
def test_a_normalisation_of_the_input_is_not_spoken_of_as_a_batchnorm(before: str) -> None:
    body = f"{before} s = Sub(c, offset) d = Mul(s, factor) y = Conv<pads=[1,1,1,1]>(d, w)"
    site = kept(IMAGE, "float[2,4,6,6] y", body)
    assert site.op_type == "Sub+Mul"
    assert [reason.situation for reason in both(site)] == [Situation.PREPROCESSING] * 2
    for reason in both(site):
        assert "BatchNorm" not in reason.remedy
        assert "before the model reads it" in reason.remedy


def test_arithmetic_inside_a_model_is_a_scale_and_shift() -> None:
    body = "c = Sigmoid(x) m = Mul(c, factor) d = Add(m, offset) y = Conv<pads=[1,1,1,1]>(d, w)"
    site = kept(IMAGE, "float[2,4,6,6] y", body)
    assert {reason.situation for reason in both(site)} == {Situation.ARITHMETIC}
    first, second = both(site)
    assert (
        first.remedy
        == "If you can change the architecture, put the scale and shift directly after a Conv or Linear."
    )
    assert second.code == "BN205"
    assert "BatchNorm" not in second.remedy


def test_a_batchnorm_of_the_input_is_one() -> None:
    site = kept(IMAGE, "float[2,4,6,6] y", f"c = Identity(x) d = {NORM} y = Conv<pads=[1,1,1,1]>(d, w)")
    assert {reason.situation for reason in both(site)} == {Situation.BATCHNORM}
    assert "a BatchNorm with" in both(site)[1].remedy


@pytest.mark.parametrize("situation", list(Situation))
def test_every_remedy_is_a_sentence_in_every_situation(situation: Situation) -> None:
    for rule in RULES.values():
        remedy = rule.remedy_for(situation)
        assert remedy.endswith(".")
        assert not {"{", "}"} & set(remedy)
        assert remedy[0].isupper()


def test_reasons_of_one_kind_differ_in_names_alone() -> None:
    rule = RULES["BN201"]
    one, other = rule(operator="Sigmoid", node="a"), rule(operator="Sigmoid", node="b")
    assert one.kind == other.kind
    assert one.kind != rule(operator="Tanh", node="a").kind
    assert one.kind != one.within(Situation.PREPROCESSING).kind, "another remedy"
    assert one.within(Situation.QUANTISED).within(Situation.PREPROCESSING).situation is Situation.QUANTISED
