"""The profiles that come with bnfold, and those that users write."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from bnfold.errors import InputError
from bnfold.report.targets import facts
from bnfold.runtime.interface import Port
from bnfold.targets.check import obstacles
from bnfold.targets.operators import Operators
from bnfold.targets.plan import Plan, plan
from bnfold.targets.profile import Limit, Profile, load, names
from bnfold.targets.view import View
from tests.graphs import build, statistics, weight

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "targets"
ASKED_FOR = {
    *("onnxruntime-mobile", "openvino", "tensorrt", "ncnn", "mnn", "litert", "executorch", "rknn", "qnn"),
    *("hailo", "st-edge-ai", "esp-dl", "tflite-micro"),
}
PROFILES = [load(name) for name in names()]
NEW = {"Scatter", "Upsample", "Affine", "ImageScaler"}  # operators that the standard has no more
WEIGHTS = {"w": weight(4, 3, 3, 3), "d": weight(4, 1, 3, 3), "v": weight(10, 4), **statistics(4)}
BN = "BatchNormalization({}, scale, bias, mean, var)"
CLASSIFIER = (
    "g (float[{}] x) => (float y) {{"
    " a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = {}  c = Relu(b)  p = MaxPool <kernel_shape = [2, 2]> (c)"
    " q = Conv <group = 4, pads = [1, 1, 1, 1]> (p, d)  s = Add(p, q)  m = GlobalAveragePool(s)"
    " f = Flatten(m)  y = Gemm <transB = 1> (f, v) }}"
)
STRANGE = "g (float[1,3,8] x) => (float y) { a = local.Strange(x)  y = Conv(a, u) }"
FIRST = {"executorch": "form", "hailo": "rank"}  # what stands first in their way; the operator in all others


def classifier(x: str = "1,3,8,8", opset: int = 17) -> ir.Model:
    """A small network of what every target has, with a BatchNorm after its first layer."""
    return ir.from_proto(build(CLASSIFIER.format(x, BN.format("a")), WEIGHTS, opset=opset))


def kinds(profile: Profile, model: ir.Model) -> list[str]:
    return [broken.rule.kind for broken in obstacles(profile, View(model))]


def test_every_target_that_was_promised_has_a_profile() -> None:
    assert set(names()) == ASKED_FOR


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_profile_says_where_it_is_from(profile: Profile) -> None:
    assert profile.rules
    assert profile.next
    for one in (*profile.rules, *profile.notes):
        assert one.source.startswith("https://")
        assert date(2020, 1, 1) < one.date < date(2100, 1, 1)
        assert one.what.endswith(".")
    assert any("BatchNorm" in one.what for one in (*profile.rules, *profile.notes)), "whether one may remain"
    assert all("{model}" in line or "{stem}" in line or "install" in line for line in profile.next)


INT8 = {"esp-dl", "hailo", "litert", "openvino", "qnn", "rknn", "st-edge-ai", "tensorrt", "tflite-micro"}
MAKES_INT8 = re.compile(
    r"bnfold export .*--|--equalize|hailo optimize|onnx2tf -oiqt|nncf\.quantize\(|rknn\.build\("
)


@pytest.mark.parametrize("name", sorted(INT8))
def test_what_computes_in_int8_names_the_command(name: str) -> None:
    said = [note.what for note in load(name).notes if re.search(r"int8|8 or 16 bits|uint8", note.what)]
    assert said
    assert all(MAKES_INT8.search(one) for one in said)


def test_int8_is_called_so_everywhere() -> None:
    assert not [profile.name for profile in PROFILES for note in profile.notes if "ight bits" in note.what]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_its_operators_exist(profile: Profile) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    for limit in (rule.limit for rule in profile.rules):
        own = (
            limit.allowed + limit.refused if isinstance(limit, Operators) else getattr(limit, "operators", ())
        )
        assert {name for name in own if "::" not in name} <= known | NEW
        assert len(own) == len(set(own))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_plain_network_has_nothing_in_its_way(profile: Profile) -> None:
    assert kinds(profile, classifier()) == ["form"] * (profile.name == "executorch")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_network_that_cannot_work_there_is_refused(profile: Profile) -> None:
    model = ir.from_proto(build(STRANGE, {"u": weight(4, 3, 3)}))
    for value in model.graph.all_nodes():
        value.outputs[0].shape = ir.Shape([1, 3, 8]) if value.op_type == "Strange" else None
        value.outputs[0].dtype = ir.DataType.FLOAT
    assert FIRST.get(profile.name, "operators") in kinds(profile, model)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_its_page_has_its_facts(profile: Profile) -> None:
    page = (PAGES / f"{profile.name}.md").read_text(encoding="utf-8")
    made = facts(profile)
    assert made in page, (
        f"type: python -m benchmarks.targets --pages  (bnfold targets {profile.name} --markdown)"
    )
    assert f"--target {profile.name}" in page.replace(made, ""), "commands, before and after bnfold"
    assert page.startswith(f"# {profile.title}\n")
    assert f"(targets/{profile.name}.md)" in (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "sizes", "opset", "planned", "stays"),
    [
        ("rknn", "1,3,8,8", 20, Plan(opset=19), []),
        ("rknn", "N,3,8,8", 11, Plan(opset=12, batch=1), []),
        ("rknn", "1,3,H,W", 17, Plan(), ["sizes"]),
        ("qnn", "N,3,8,8", 17, Plan(batch=1), []),
        ("esp-dl", "N,3,8,8", 17, Plan(batch=1), []),
        ("esp-dl", "2,3,8,8", 17, Plan(), ["sizes"]),
        ("st-edge-ai", "N,3,8,8", 21, Plan(opset=20, plain_reshapes=True), []),
        ("tensorrt", "N,3,H,W", 17, Plan(), []),
    ],
)
def test_what_can_be_done_is_planned(
    name: str, sizes: str, opset: int, planned: Plan, stays: list[str]
) -> None:
    model = classifier(sizes, opset)
    assert plan(load(name), model) == planned
    done = classifier(sizes.replace("N", f"{planned.batch or 'N'}"), planned.opset or opset)
    assert kinds(load(name), done) == stays


def test_inputs_without_a_batch_keep_theirs() -> None:
    model = ir.from_proto(
        build(
            "g (float[N,4] x, float[5,4] z) => (float y) { a = Relu(x)  y = MatMul(a, w) }",
            {"w": weight(4, 4)},
        )
    )
    assert plan(load("qnn"), model) == Plan(shapes={"x": (1, 4)})


def test_a_pytorch_model_is_exported_at_an_opset_that_is_read() -> None:
    assert plan(load("rknn"), None) == Plan(opset=19)
    assert plan(load("tensorrt"), None) == Plan()


PROFILE = """
title = "Our chip"
next = ["ourcc {model}"]
[[rules]]
kind = "attribute"
what = "Convolutions are of one size."
source = "https://example.com/limits"
date = 2026-01-02
[rules.limit]
operators = ["Conv"]
name = "group"
allowed = [1]
"""


def test_a_target_of_ones_own_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ourchip.toml"
    path.write_text(PROFILE)
    profile = load(str(path))
    assert (profile.name, profile.title) == ("ourchip", "Our chip")
    assert kinds(profile, classifier()) == ["attribute"]
    assert profile.commands(Path("out/net.onnx")) == ("ourcc out/net.onnx",)


def test_commands_name_the_sizes_of_the_model() -> None:
    ports = (Port("x", "float32", ("N", 1, 32, 32)), Port("mask", "bool", (4, None)))
    [pnnx] = load("ncnn").commands(Path("net.onnx"), ports)
    assert pnnx == "pnnx net.onnx inputshape=[1,1,32,32],[4,1]"
    assert load("openvino").commands(Path("net.onnx"), ports)[1].endswith("x[1,1,32,32],mask[4,1]")


def test_a_name_that_a_shell_would_run_is_left_for_the_user() -> None:
    [command] = load("ncnn").commands(Path("a $(id).onnx"), (Port("x", "float32", (1, 3)),))
    assert command == "pnnx {model} inputshape=[1,3]"


def test_commands_are_those_for_the_kind_of_file() -> None:
    """The converter to ORT format and the check of ONNX Runtime read ONNX files and no others."""
    mobile = load("onnxruntime-mobile")
    assert [line.split()[2] for line in mobile.commands(Path("net.onnx"))] == [
        "onnxruntime.tools.check_onnx_model_mobile_usability",
        "onnxruntime.tools.convert_onnx_models_to_ort",
    ]
    [config] = mobile.commands(Path("out/net.ort"))
    assert "([Path('out/net.ort')], Path('net.required_operators.config'), True)" in config


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('kind = "attribute"', 'kind = "colour"', "'colour' is not a kind of rule"),
        ('name = "group"', 'nam = "group"', "has no 'nam'"),
        ("2026-01-02", '"yesterday"', "has to be as in"),
        ("https://example.com/limits", "hearsay", "is not an address"),
        ('title = "Our chip"', "", "title"),
        ("[rules.limit]", "[rules.limit", "is not a profile"),
        ('title = "Our chip"', "title = 3", "the title 3 is not a text"),
        ("[[rules]]", "next_for = 3\n[[rules]]", "is not a profile"),
        ("[1]", "[" * 3000, "is not a profile"),
        (
            "[[rules]]",
            '[[notes]]\nwhat = "So."\nsource = "https://a"\ndate = 2026-11-28\nquantizes = "yes"\n[[rules]]',
            "quantizes has to be true or false, and not 'yes'",
        ),
        ('["Conv"]', '"Conv"', "'operators' of a rule of kind 'attribute' cannot be 'Conv'"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "ourchip.toml"
    path.write_text(PROFILE.replace(old, new))
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("name", "fix"), [("tensorr", "Did you mean tensorrt?"), ("absent.toml", "Check its path")]
)
def test_a_target_that_is_not_known(name: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        load(name)
    assert fix in caught.value.fix


def test_the_form_of_a_file() -> None:
    assert [load(name).form for name in ("rknn", "executorch", "onnxruntime-mobile")] == [
        "onnx",
        "pt2",
        "ort",
    ]
    limit: Limit | None = load("rknn").limit(Operators)
    assert isinstance(limit, Operators)


def test_targets_are_found_by_their_aliases_in_any_case() -> None:
    aliases = [(name, alias) for name in names() for alias in load(name).aliases]
    called = [alias for _, alias in aliases]
    assert len({*called, *names()}) == len(called) + len(names())
    for name, alias in aliases:
        assert load(alias) is load(alias.upper()) is load(name)
    assert load("TFLite_Micro").name == "tflite-micro"
