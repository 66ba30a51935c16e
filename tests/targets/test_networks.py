"""Every target on four kinds of networks: what `check` finds, and what is left after `export --target`.

What is expected is written down by hand from what each profile's sources say, and not taken from the profile.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from bnfold.files.load import load_onnx
from bnfold.targets.check import obstacles
from bnfold.targets.profile import load, names
from bnfold.targets.view import View
from bnfold_cli import main
from tests.targets.nets import NETWORKS

TARGETS = names()
ASKED = "M307,M308,M309,M314,M315,M316,M317,M318,M319"
OPSET, SIZES, OPERATOR, USE, RANK, FORM = "M307", "M309", "M314", "M315", "M316", "M319"

BEFORE = {
    # target: (residual, inverted residual, dynamic, impossible)
    "esp-dl": ([], [SIZES], [SIZES], [OPERATOR] * 3),  # batch 1, nothing open; neither Det nor NonZero
    "executorch": ([FORM], [FORM], [FORM], [FORM]),  # no ONNX file at all
    "hailo": ([], [], [], [RANK]),  # the list of layers is not public; a Conv over one size does not compile
    "litert": ([], [], [], [OPERATOR] * 2),  # onnx2tf has NonZero, no Det of such a size, and nobody's Warp
    "mnn": ([], [], [], [OPERATOR]),  # the converter of MNN has both
    "ncnn": ([], [], [], [OPERATOR] * 3),
    "onnxruntime-mobile": ([], [], [], [OPERATOR]),  # has all of ONNX, and nobody's Warp
    "openvino": ([], [], [], [OPERATOR] * 2),  # no Det
    "qnn": ([], [SIZES], [SIZES], [OPERATOR] * 3),  # neither Det nor NonZero; nothing open
    "rknn": ([OPSET], [SIZES], [SIZES], [OPERATOR] * 3),  # opsets up to 19, and the first has 20
    "st-edge-ai": ([USE], [], [SIZES], [OPERATOR] * 3),  # an open batch is 1; no allowzero
    "tensorrt": ([], [], [], [OPERATOR] * 2),  # no Det
    "tflite-micro": ([], [SIZES], [SIZES], [OPERATOR] * 3),  # neither; nothing open
}
FOR_ITS_USER = {"esp-dl", "qnn", "rknn", "st-edge-ai", "tflite-micro"}
"""Targets for which somebody has to say how large the pictures of the dynamic network are."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], prog_name="bnfold")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The networks as files."""
    folder = tmp_path_factory.mktemp("networks")
    paths = {name: folder / f"{name.replace(' ', '_')}.onnx" for name in NETWORKS}
    for name, make in NETWORKS.items():
        onnx.save(make(), paths[name])
    return paths


@pytest.fixture(scope="module")
def found(saved: dict[str, Path]) -> dict[str, dict[str, list[str]]]:
    """The codes of what stands in the way of each network to each target, as `check` says them."""
    targets = [word for name in TARGETS for word in ("--target", name)]
    options = ("--no-cache", "--jobs", "1", "--select", ASKED, "--output-format", "json")
    result = run("check", *saved.values(), *targets, *options)
    assert result.exit_code == 1
    codes: dict[str, dict[str, list[str]]] = {name: {target: [] for target in TARGETS} for name in saved}
    by_file = {path.name: name for name, path in saved.items()}
    for one in json.loads(result.stdout)["findings"]:
        target = one["message"].removeprefix("for ").partition(",")[0]
        codes[by_file[Path(one["path"]).name]][target].append(one["code"])
    return codes


def test_every_target_is_written_down() -> None:
    assert set(BEFORE) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_stands_in_the_way(found: dict[str, dict[str, list[str]]], target: str) -> None:
    assert tuple(found[network][target] for network in NETWORKS) == BEFORE[target]


def left(target: str, written: Path) -> list[str]:
    return [one.rule.kind for one in obstacles(load(target), View(load_onnx(written)))]


def exported(target: str, model: Path, out: Path, *options: object) -> Result:
    return run("export", model, "-o", out, "--target", target, "--no-bench", "--no-validate", *options)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "executorch"])
def test_what_is_written_passes(saved: dict[str, Path], tmp_path: Path, target: str) -> None:
    for network in ("residual", "inverted residual"):
        out = tmp_path / f"{network}.onnx"
        result = exported(target, saved[network], out)
        assert result.exit_code == 0, result.stderr
        assert f"Nothing that bnfold knows stands in the way to {target}." in result.stdout
        assert left(target, out) == []
        assert "BatchNormalization" not in [node.op_type for node in onnx.load(out).graph.node]
    result = exported(target, saved["dynamic"], out)
    assert result.exit_code == (target in FOR_ITS_USER)
    assert left(target, out) == ["sizes"] * (target in FOR_ITS_USER)
    assert exported(target, saved["dynamic"], out, "--set-shape", "x=1x3x16x16").exit_code == 0
    assert left(target, out) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_cannot_work_there_is_left_and_said(saved: dict[str, Path], tmp_path: Path, target: str) -> None:
    out = tmp_path / "out.onnx"
    result = exported(target, saved["impossible"], out)
    if target == "executorch":
        assert result.exit_code == 2
        assert "no ONNX file" in result.stderr
        assert not out.exists()
        return
    assert result.exit_code == 1
    count = len(BEFORE[target][-1])
    assert f"{count} thing{'s stand' if count > 1 else ' stands'} in the way to {target}" in result.stdout
    assert len(left(target, out)) == count


def test_what_is_written_for_a_phone_is_in_ort_format(saved: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.ort"
    assert exported("onnxruntime-mobile", saved["inverted residual"], out).exit_code == 0
    assert out.read_bytes()[4:8] == b"ORTM"


@pytest.mark.parametrize(("network", "target"), [("residual", "rknn"), ("inverted residual", "esp-dl")])
def test_its_steps_are_proved(saved: dict[str, Path], tmp_path: Path, network: str, target: str) -> None:
    given = ("--no-bench", "--samples", "1", "--json", tmp_path / "report.json")
    result = run("export", saved[network], "-o", tmp_path / "out.onnx", "--target", target, *given)
    assert result.exit_code == 0, result.stderr
    steps = json.loads((tmp_path / "report.json").read_text())["contract"]["steps"]
    assert [step["details"]["proof"]["equal"] for step in steps] == [True]
