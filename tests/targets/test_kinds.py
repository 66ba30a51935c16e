"""Each kind of rule finds a model that breaks it, with its nodes, and nothing in one that does not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.targets.attributes import Attribute
from bnfold.targets.batchnorm import BatchNorm
from bnfold.targets.constants import PlainConstants
from bnfold.targets.form import Form
from bnfold.targets.inputs import Constant, Outputs, Rank
from bnfold.targets.operators import Operators
from bnfold.targets.profile import KINDS, Limit
from bnfold.targets.sizes import Sizes
from bnfold.targets.types import Types
from bnfold.targets.versions import IrVersion, Opset
from bnfold.targets.view import View
from tests.graphs import build, statistics, weight


@dataclass(frozen=True)
class Case:
    """A limit, what breaks it, and what does not.

    Attributes:
        limit: The limit.
        broken: A graph that breaks it.
        words: The message.
        sites: What it names.
        whole: A graph that does not break it.
        constants: Weights by name.
        opset: Of both graphs.
    """

    limit: Limit
    broken: str
    words: str
    sites: tuple[str, ...] = ()
    whole: str = "g (float[1,4,8,8] x) => (float y) { y = Relu(x) }"
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 18


CONV = "g (float[1,4,8,8] x) => (float y) {{ {} }}"
W = {"w": weight(4, 2, 3, 3)}
NORM = statistics(4)
BN = "BatchNormalization(a, scale, bias, mean, var)"
STEPS = {name: np.array([number], np.int64) for name, number in (("at", 0), ("end", 8), ("ax", 2), ("by", 2))}

CASES = [
    Case(Opset(max=17), CONV.format("y = Relu(x)"), "the opset is 18, and 17 is the limit", whole=""),
    Case(Opset(min=19), CONV.format("y = Relu(x)"), "the opset is 18, and 19 is the oldest", whole=""),
    Case(
        PlainConstants(),
        "g (float[2,3] x) => (float y) { s = Constant <value_ints = [3, 2]> ()  y = Reshape(x, s) }",
        "1 Constant holds numbers, and only tensors are read",
        ("s",),
        "g (float[2,3] x) => (float y) { s = Constant <value = int64[2] {3, 2}> ()  y = Reshape(x, s) }",
    ),
    Case(IrVersion(max=8), CONV.format("y = Relu(x)"), "the IR version is 9, and 8 is the limit", whole=""),
    Case(
        Sizes(),
        "g (float[N,4,8,8] x) => (float y) { y = Relu(x) }",
        "1 input has open sizes ([N, 4, 8, 8])",
        ("x",),
    ),
    Case(
        Sizes("batch"),
        "g (float[N,4,H,8] x) => (float y) { y = Relu(x) }",
        "open sizes ([N, 4, H, 8])",
        ("x",),
        "g (float[N,4,8,8] x) => (float y) { y = Relu(x) }",
    ),
    Case(
        Sizes(batch=1),
        "g (float[2,4] x) => (float y) { y = Relu(x) }",
        "an input has a batch of 2, and only 1 is taken",
        ("x",),
        "g (float[1,4] x, float[2] z) => (float y) { y = Relu(x) }",
    ),
    Case(
        Operators(allowed=("Relu",)),
        CONV.format("b = Gelu(x)  c = Gelu(b)  y = Relu(c)"),
        "2 Gelus are not among",
        ("b", "c"),
        opset=20,
    ),
    Case(Operators(refused=("Erf",)), CONV.format("y = Erf(x)"), "1 Erf is not among the operators", ("y",)),
    Case(Operators(refused=("Erf",)), CONV.format("y = local.Strange(x)"), "1 local::Strange is not", ("y",)),
    Case(
        Operators(allowed=("Relu",), domains=("other",)),
        CONV.format("y = local.Strange(x)"),
        "1 local::Strange is not",
        ("y",),
    ),
    Case(
        Attribute(("Conv",), "group", (1, "channels")),
        CONV.format("y = Conv <group = 2> (x, w)"),
        "1 Conv has group = 2, and 1 or one a channel is taken",
        ("y",),
        CONV.format("y = Conv <group = 4> (x, d)"),
        {**W, "d": weight(4, 1, 3, 3)},
    ),
    Case(
        Attribute(("Conv",), "kernel_shape", max=2),
        CONV.format("y = Conv(x, w)"),
        "kernel_shape = [3, 3], and at most 2 is taken",
        ("y",),
        CONV.format("y = Conv(x, v)"),
        {"w": weight(4, 4, 3, 3), "v": weight(4, 4, 2, 2)},
    ),
    Case(
        Attribute(("MaxPool",), "dilations", (1,)),
        CONV.format("y = MaxPool <kernel_shape = [2, 2], dilations = [1, 2]> (x)"),
        "dilations = [1, 2], and 1 is taken",
        ("y",),
        CONV.format("y = MaxPool <kernel_shape = [2, 2]> (x)"),
    ),
    Case(
        Attribute(("DepthToSpace",), "mode", ("CRD",)),
        CONV.format("y = DepthToSpace <blocksize = 2> (x)"),  # the default counts
        "mode = DCR, and CRD is taken",
        ("y",),
        CONV.format('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)'),
    ),
    Case(
        Attribute(("Slice",), "steps", (1,), input=4),
        CONV.format("y = Slice(x, at, end, ax, by)"),
        "steps = 2, and 1 is taken",
        ("y",),
        CONV.format("y = Slice(x, at, end, ax)"),
        STEPS,
    ),
    Case(
        Attribute(("Elu",), "alpha", refused=(1.0,), min=0.5),
        CONV.format("y = Elu(x)"),
        "alpha = 1, and anything but 1.0 and at least 0.5 is taken",
        ("y",),
        CONV.format("y = Elu <alpha = 0.75> (x)"),
    ),
    Case(
        Constant(("Conv",), 1, "weight"),
        "g (float[1,4,8,8] x, float[4,4,3,3] w) => (float y) { y = Conv(x, w) }",
        "1 Conv has a computed weight",
        ("y",),
        CONV.format("v = Neg(w)  y = Conv <group = 2> (x, v)"),  # converters evaluate it
        W,
    ),
    Case(
        Outputs(("MaxPool",), 1),
        "g (float[1,4,8,8] x) => (float y, int64 i) { y, i = MaxPool <kernel_shape = [2, 2]> (x) }",
        "1 MaxPool has more outputs in use than the 1",
        ("y",),
        CONV.format("y, i = MaxPool <kernel_shape = [2, 2]> (x)"),  # nothing reads i
    ),
    Case(
        Rank(("Conv",), min=4, max=4),
        "g (float[1,4,8] x) => (float y) { y = Conv(x, w) }",
        "1 Conv reads 3 dimensions, and 4 are taken",
        ("y",),
        CONV.format("y = Conv(x, v)"),
        {"w": weight(4, 4, 3), "v": weight(4, 4, 3, 3)},
    ),
    Case(
        Rank(max=3), CONV.format("y = Relu(x)"), "1 Relu reads 4 dimensions, and at most 3", ("y",),
        "g (float[4,8] x) => (float y) { y = Relu(x) }",
    ),
    Case(
        Types(("float32",), "inputs"),
        "g (float16[2] x) => (float16 y) { y = Relu(x) }",
        "1 input is in float16, which is not taken",
        ("x",),
    ),
    Case(
        Types(("float32", "int64")),
        "g (float[2] x) => (float y) { a = Cast <to = 11> (x)  b = Neg(a)  y = Cast <to = 1> (b) }",
        "2 nodes compute in float64",
        ("a", "b"),
    ),
    Case(
        BatchNorm(("Conv",)),
        CONV.format(f"a = Relu(x)  y = {BN}"),
        "1 BatchNorm stays where the toolchain folds none",
        ("y",),
        CONV.format(f"a = Conv <group = 2> (x, w)  y = {BN}"),
        {**NORM, **W},
    ),
    Case(
        BatchNorm(("Conv",), rank=4),
        f"g (float[1,4,8] x) => (float y) {{ a = Relu(x)  y = {BN} }}",
        "1 BatchNorm stays",
        ("y",),
        CONV.format(f"a = Relu(x)  y = {BN}"),
        NORM,
    ),
    Case(Form(("pt2",)), CONV.format("y = Relu(x)"), "the file is ONNX, and the target reads prog", whole=""),
]  # fmt: skip


def view(text: str, case: Case) -> View:
    used = {name: array for name, array in case.constants.items() if re.search(rf"[ (]{name}[,)]", text)}
    return View(ir.from_proto(build(text, used, opset=case.opset)))


def test_every_kind_has_a_model_that_breaks_it() -> None:
    assert {type(case.limit) for case in CASES} == set(KINDS.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.limit).__name__)
def test_what_breaks_a_limit_is_found(case: Case) -> None:
    (found,) = case.limit.look(view(case.broken, case))
    assert case.words in found.headline
    assert not found.headline.endswith(".")
    assert found.sites == case.sites


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.whole], ids=lambda case: type(case.limit).__name__
)
def test_what_breaks_none_is_not(case: Case) -> None:
    assert not list(case.limit.look(view(case.whole, case)))


def test_what_is_not_known_is_not_held_against_a_model() -> None:
    """A rank that inference does not find, channels that are open, an attribute that a caller sets."""
    model = View(ir.from_proto(build("g (float x) => (float y) { a = local.Strange(x)  y = Relu(a) }")))
    assert not list(Rank(("Relu",), max=1).look(model))
    open_channels = View(
        ir.from_proto(build("g (float[1,C,8,8] x) => (float y) { y = Conv <group = 2> (x, w) }", W))
    )
    assert not list(Attribute(("Conv",), "group", (1, "channels")).look(open_channels))


def test_bodies_of_functions_are_looked_at_and_their_calls_are_not() -> None:
    text = (
        "g (float[2] x) => (float[2] y) { y = local.twice(x) }\n"
        '<domain: "local", opset_import: ["" : 18]> twice (x) => (y) { y = Erf(x) }'
    )
    (found,) = Operators(refused=("Erf",)).look(View(ir.from_proto(build(text))))
    assert found.headline.startswith("1 Erf is not")


def test_a_name_with_braces_stays_as_it_is() -> None:
    model = build("g (float[2] x) => (float[2] y) { a = local.Odd(x)  y = local.Odd(a) }")
    for node in model.graph.node:
        node.op_type = "O{}d"
    (found,) = Operators().look(View(ir.from_proto(model)))
    assert found.headline.startswith("2 local::O{}ds are not")


def test_versions_name_the_nearest_that_is_read() -> None:
    assert [Opset(12, 19).nearest(version) for version in (9, 15, 22)] == [12, 15, 19]
    assert onnx.defs.onnx_opset_version() == Opset(min=1).nearest(onnx.defs.onnx_opset_version())
