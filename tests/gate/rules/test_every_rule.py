"""Every rule finds a model that breaks it, says where, and finds nothing in one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bnfold.gate.rules import RULES
from bnfold.gate.settings import Limits, Settings, Source
from bnfold.gate.work import Job, answer
from tests.gate.models import BATCHNORM, job, layers, save
from tests.graphs import build, statistics, weight

Ask = Callable[[Path], Job]

ELSEWHERE = {
    "M300": "test_run.py: a process has to end for it",
    "M405": "test_agreement.py: without the stopwatch",
    "M320": "tests/cli/test_targets.py: a file of PyTorch",
}


@dataclass(frozen=True)
class Case:
    """A rule, and what breaks it.

    Attributes:
        code: Of the rule.
        broken: Makes a file that breaks it.
        sites: What the finding names.
        whole: Makes a file that does not; by itself a Conv and a BatchNorm that folds.
        words: A part of the message.
    """

    code: str
    broken: Ask
    sites: tuple[str, ...] = ()
    whole: Ask | None = None
    words: str = ""


def file(model: onnx.ModelProto, **others: Any) -> Ask:
    """A model with the limits that are given."""
    return lambda folder: job(save(model, folder / "net.onnx"), limits=Limits(**others))


def with_the_other_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with ONNX's own operators imported as `ai.onnx`."""
    model.opset_import[0].domain = "ai.onnx"
    return model


def aimed(model: onnx.ModelProto, target: str) -> Ask:
    """A model that is for a target."""
    return lambda folder: replace(job(save(model, folder / "net.onnx")), settings=Settings(targets=(target,)))


def content(data: bytes | None) -> Ask:
    """A file of these bytes, or none."""

    def make(folder: Path) -> Job:
        if data is not None:
            (folder / "net.onnx").write_bytes(data)
        return job(folder / "net.onnx")

    return make


def with_source(source: onnx.ModelProto) -> Ask:
    return lambda folder: job(
        save(layers(), folder / "net.onnx"), source=Source(save(source, folder / "source.onnx"))
    )


def with_earlier(earlier: onnx.ModelProto, model: onnx.ModelProto | None = None) -> Ask:
    return lambda folder: job(
        save(model or layers(), folder / "net.onnx"), earlier=save(earlier, folder / "earlier.onnx")
    )


def external(damage: Callable[[Path], object], data: str = "net.bin") -> Ask:
    """A model with external data, to which something is done."""

    def make(folder: Path) -> Job:
        path = save(layers(), folder / "net.onnx", data=data)
        damage(folder)
        return job(path)

    return make


def elsewhere(folder: Path) -> Job:
    """A model whose data is in the folder above."""
    model = onnx.load(save(layers(), folder / "net.onnx", data="net.bin"), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../net.bin"
    (folder / "net.bin").rename(folder.parent / "net.bin")
    onnx.save(model, folder / "net.onnx")
    return job(folder / "net.onnx")


def appended(folder: Path) -> None:
    with (folder / "net.bin").open("ab") as stream:
        stream.write(bytes(1 << 17))


def of_weight(number: float) -> onnx.ModelProto:
    """A model with one number in its first weight that is not like the others."""
    special = weight(4, 3, 3, 3)
    special[1, 2, 0, 0] = number
    return layers(w=special)


def unsorted() -> onnx.ModelProto:
    model = layers()
    nodes = [*model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def circle() -> onnx.ModelProto:
    """Two nodes that wait for each other."""
    return layers("b = Add(a, c)  c = Relu(b)  y = Relu(c)")


def opened() -> onnx.ModelProto:
    """The same model for any batch."""
    return layers(x="N,3,8,8")


def with_input(name: str) -> onnx.ModelProto:
    """The same model with another name of its input."""
    model = layers()
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    return model


def branches(lines: str) -> onnx.ModelProto:
    held = {"w": weight(4, 4, 3, 3), "v": weight(4, 4, 1, 1)}
    text = f"g (float[1,4,8,8] x) => (float[1,4,8,8] y) {{ {lines} }}"
    return build(text, {name: array for name, array in held.items() if f" {name})" in text})


def two(ratio: float) -> onnx.ModelProto:
    """Two convolutions; one channel of the first is so many times the others."""
    first = weight(4, 3, 3, 3)
    first[0] *= ratio
    return layers("b = Relu(a)  y = Conv(b, v)", w=first, v=weight(4, 4, 3, 3, seed=2))


def gelu(factor: float) -> onnx.ModelProto:
    """Gelu written out; the number within Erf is 1/√2 where it is one."""
    numbers = {"root": factor, "one": 1.0, "half": 0.5}
    return build(
        "g (float[2,8] x) => (float[2,8] y)"
        "{ d = Div(x, root)  e = Erf(d)  f = Add(e, one)  m = Mul(x, f)  y = Mul(m, half) }",
        {name: np.array(number, np.float32) for name, number in numbers.items()},
    )


FINE = file(layers())
CONV = file(layers("y = Relu(a)"))
QUANTISED = (
    f"q = QuantizeLinear(a, step, zero)  b = DequantizeLinear(q, step, zero)  y = {BATCHNORM}".replace(
        "(a, sc", "(b, sc"
    )
)
TANH = f"b = Tanh(a)  y = {BATCHNORM}".replace("(a, sc", "(b, sc")
STEP = {"step": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
CUSTOM = "y = local.Strange(a)"
DILATED = "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (a)"
HALF = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }")
LONE = build(f"g (float[1,4,8] x) => (float[1,4,8] y) {{ a = Relu(x)  y = {BATCHNORM} }}", statistics(4))

CASES = [
    Case("M101", FINE, ("y",), CONV, "1 BatchNorm can be folded"),
    Case("M102", file(layers(f"y, m, v = {BATCHNORM}".replace("n(", "n <training_mode = 1> ("))), ("y",)),
    Case("M103", file(layers(mean=np.zeros(4, np.float32), var=np.ones(4, np.float32))), ("y",)),
    Case(
        "M104",
        file(branches("a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Conv(x, v)  y = Add(a, b)")),
        ("y.conv",),
        file(branches("y = Conv <pads = [1, 1, 1, 1]> (x, w)")),
    ),
    Case("M105", file(gelu(1.7)), ("e",), file(gelu(2**0.5)), "written-out Gelu"),
    Case("M106", file(layers(QUANTISED, **STEP)), ("y",)),
    Case("M107", file(layers(TANH)), ("y",), FINE, "1 BatchNorm stays (BN2"),
    Case("M201", file(of_weight(np.nan)), ("w",)),
    Case("M202", file(of_weight(-np.inf)), ("w",)),
    Case("M203", file(of_weight(1e-40)), ("w",)),
    Case("M204", file(of_weight(-1e5)), ("w",)),
    Case("M205", file(layers(scale=np.array([1, 2e4, 1, 1], np.float32))), ("y",)),
    Case("M206", file(two(1000.0)), ("a",), file(two(1.0))),
    Case(
        "M207",
        file(
            layers(
                f"y = {BATCHNORM}".replace("n(", "n <epsilon = 1e-12> ("),
                var=np.array([1, 0, 1, 2], np.float32),
            )
        ),
        ("y",),
    ),
    Case("M301", content(None), words="is not there"),
    Case("M301", content(b""), words="is empty"),
    Case("M301", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), words="Git LFS"),
    Case("M301", content(b"#!/bin/sh\necho no model\n"), words="text"),
    Case("M302", content(layers().SerializeToString()[:-100])),
    Case("M302", file(circle())),
    Case("M303", file(unsorted())),
    Case("M304", external(lambda folder: (folder / "net.bin").unlink()), whole=external(lambda _: None)),
    Case("M304", external(lambda folder: (folder / "net.bin").write_bytes(b"short")), words="too short"),
    Case("M305", elsewhere, words="outside the model's folder"),
    Case("M306", external(appended), ("net.bin",), external(lambda _: None)),
    Case("M307", file(layers(), opset=17), whole=file(layers(), opset=18), words="18, and 17 is the limit"),
    Case("M307", file(with_the_other_name(layers()), opset=17), words="18, and 17 is the limit"),
    Case("M308", file(layers(), ir_version=8), whole=file(layers(), ir_version=9)),
    Case("M309", file(layers(), shapes={"x": "Nx3x8x8"}), ("x",), file(layers(), shapes={"x": "1x*x8x8"})),
    Case("M309", file(opened(), shapes={"*": "1x3x8x8"}), ("x",), file(opened(), shapes={"x": "Nx3x8x8"})),
    Case("M309", file(layers(), shapes={"x": "3x8x8"}), ("x",), file(layers(), shapes={"image": "3x8x8"})),
    Case("M310", file(layers(CUSTOM), domains=()), ("local::Strange",), file(layers(), domains=())),
    Case("M310", file(layers(CUSTOM), domains=("other",)), ("local::Strange",), file(layers(CUSTOM))),
    Case("M311", file(layers(), bytes=400), whole=file(layers(), bytes=2000), words="and 400 is the limit"),
    Case("M312", file(layers(), parameters=123), whole=file(layers(), parameters=124)),
    Case("M313", file(layers(), nodes=1), whole=file(layers(), nodes=2)),
    Case("M314", file(layers(), operators=("Conv",)), ("BatchNormalization",)),
    Case("M314", file(layers(CUSTOM), operators=("Conv", "Strange")), ("local::Strange",)),
    Case("M307", aimed(layers(opset=20), "rknn"), whole=aimed(layers(), "rknn"), words="for rknn, the opset"),
    Case("M309", aimed(opened(), "qnn"), ("x",), aimed(layers(), "qnn"), "for qnn, 1 input has open sizes"),
    Case(
        "M314", aimed(layers(CUSTOM), "ncnn"), ("y",), aimed(layers(), "ncnn"), "for ncnn, 1 local::Strange"
    ),
    Case(
        "M315", aimed(layers(DILATED), "tensorrt"), ("y",), aimed(layers(), "tensorrt"), "for tensorrt, 1 Max"
    ),
    Case("M316", aimed(layers("y = MatMul(a, a)"), "st-edge-ai"), ("y",), aimed(layers(), "st-edge-ai")),
    Case("M317", aimed(HALF, "st-edge-ai"), ("x",), aimed(layers(), "st-edge-ai"), "in float16"),
    Case("M318", aimed(LONE, "esp-dl"), ("y",), aimed(layers(), "esp-dl"), "1 BatchNorm stays"),
    Case("M319", aimed(layers(), "executorch"), whole=aimed(layers(), "rknn"), words="the file is ONNX"),
    Case("M401", with_source(layers(seed=1)), whole=with_source(layers()), words="its source"),
    Case("M402", with_earlier(layers(seed=1)), whole=with_earlier(layers()), words="what it computed before"),
    Case("M403", with_earlier(layers(opset=17)), ("anything",), with_earlier(layers())),
    Case("M403", with_earlier(opened()), ("anything",), with_earlier(layers())),
    Case("M403", with_earlier(with_input("image")), ("anything",), with_earlier(layers())),
    Case(
        "M404",
        with_earlier(layers(), layers(f"b = {BATCHNORM}  c = Sin(b)  y = Asin(c)")),
        whole=with_earlier(layers()),
        words="has grown",
    ),
]
NAMES = [f"{case.code}-{place}" for place, case in enumerate(CASES)]


def only(question: Job, code: str) -> Job:
    return Job(question.path, question.name, (code,), question.settings, question.source, question.earlier)


def test_every_rule_has_a_model_that_breaks_it() -> None:
    assert {case.code for case in CASES} | ELSEWHERE.keys() == RULES.keys()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_model_that_breaks_a_rule_is_found(case: Case, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (finding,) = answer(only(case.broken(tmp_path / "models"), case.code))
    assert finding.code == case.code
    assert finding.path == "net.onnx"
    assert (finding.severity, finding.fixable) == (RULES[case.code].severity, RULES[case.code].fixable)
    assert case.words in finding.found.headline
    assert not finding.found.headline.endswith(".")
    assert str(tmp_path) not in finding.found.headline or case.code in ("M304", "M305")
    if case.sites == ("anything",):
        assert all(finding.found.sites)
    else:
        assert finding.found.sites == case.sites


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_model_that_breaks_no_rule_is_not(case: Case, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert answer(only((case.whole or FINE)(tmp_path / "models"), case.code)) == []
