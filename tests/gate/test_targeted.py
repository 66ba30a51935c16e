"""Targets in the settings of the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnfold.errors import InputError
from bnfold.gate.configuration import load
from bnfold.gate.rules import RULES
from bnfold.gate.settings import Settings
from bnfold.gate.work import name_of
from tests.gate.models import job, layers, save

OURS = """title = "Ours"
next = ["ourcc {model}"]
[[rules]]
kind = "opset"
what = "Opsets up to 17 are read."
source = "https://example.com"
date = 2026-01-02
[rules.limit]
max = MAX
"""


def settings(folder: Path, text: str) -> Settings:
    (folder / "bnfold.toml").write_text(text)
    return load(folder / "bnfold.toml").settings


def test_targets_are_names_or_files_next_to_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(OURS.replace("MAX", "17"))
    found = settings(tmp_path, 'targets = ["rknn", "ours.toml"]').targets
    assert found == ("rknn", str(tmp_path / "ours.toml"))
    assert settings(tmp_path, 'targets = ["RKNN", "rk3588", "trt"]').targets == ("rknn", "tensorrt")


@pytest.mark.parametrize(
    ("text", "problem"), [('["rkn"]', "'rkn' is not a target"), ("[1]", "takes a list of")]
)
def test_a_target_that_is_not_known_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        settings(tmp_path, f"targets = {text}")
    assert problem in caught.value.problem


def test_rules_of_targets_are_asked_whatever_is_selected() -> None:
    always = {code for code, rule in RULES.items() if rule.always}
    aimed = {code for code, rule in RULES.items() if rule.for_targets}
    assert {"M307", "M309", "M314", "M315", "M319"} <= aimed
    assert set(Settings(select=("M101",)).codes("net.onnx")) == {"M101", *always}
    chosen = Settings(select=("M101",), targets=("rknn",), ignore=("M314",))
    assert set(chosen.codes("net.onnx")) == {"M101", *always, *aimed} - {"M314"}


def test_an_answer_is_kept_for_its_targets_alone(tmp_path: Path) -> None:
    """And for what they demanded when it was given: a profile may change."""
    asked = job(save(layers(), tmp_path / "net.onnx"), "M307")

    def name(*targets: str) -> str | None:
        return name_of(replace(asked, settings=Settings(targets=targets)), (), lambda _: "content")

    first, second = tmp_path / "a" / "ours.toml", tmp_path / "b" / "ours.toml"
    for path, most in ((first, "17"), (second, "18")):
        path.parent.mkdir()
        path.write_text(OURS.replace("MAX", most))
    assert len({name(), name("rknn"), name("rknn", "qnn"), name(str(first)), name(str(second))}) == 5
