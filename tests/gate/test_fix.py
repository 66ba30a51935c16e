"""Files are folded in place, each proved before it is replaced, whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from bnfold.errors import BnfoldError, DisagreementError, MissingExtraError
from bnfold.gate import fix as mending
from bnfold.gate.configuration import Configuration
from bnfold.gate.fix import Mended, difference, fix
from bnfold.gate.run import check
from bnfold.gate.settings import Settings
from tests.gate.models import codes, layers, save
from tests.graphs import assert_same, operators

pytestmark = pytest.mark.usefixtures("in_process")


NOTHING = Mended((), ())


def checked_in(folder: Path):
    return check(str(folder), Configuration(Settings(), folder))


def test_what_can_be_folded_is_and_a_second_check_finds_nothing(tmp_path: Path) -> None:
    original = layers()
    save(original, tmp_path / "a.onnx")
    save(original, tmp_path / "sub" / "b.onnx", data="b.bin")
    save(layers("y = Relu(a)"), tmp_path / "fine.onnx")
    fine = (tmp_path / "fine.onnx").read_bytes()
    assert fix(checked_in(tmp_path)) == Mended(("a.onnx", "sub/b.onnx"), ())
    for name in ("a.onnx", "sub/b.onnx"):
        folded = onnx.load(tmp_path / name)
        assert operators(folded) == ["Conv"]
        assert_same(original, folded)
    assert (tmp_path / "fine.onnx").read_bytes() == fine
    again = checked_in(tmp_path)
    assert again.findings == ()
    assert fix(again) == NOTHING


def test_other_findings_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_text("no model")
    assert fix(checked_in(tmp_path)) == NOTHING
    assert path.read_text() == "no model"


def test_a_file_outside_the_root_is_found_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name in findings is relative to the current folder and not to the root."""
    path = save(layers(), tmp_path / "outside" / "net.onnx")
    for folder in ("root", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    checked = check("../outside/net.onnx", Configuration(Settings(), tmp_path / "root"))
    assert fix(checked).files == ("../outside/net.onnx",)
    assert operators(onnx.load(path)) == ["Conv"]


def test_a_fold_that_is_not_proved_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as it was, and the other files are mended."""
    for name in "abc":
        save(layers(), tmp_path / f"{name}.onnx")
    before = (tmp_path / "c.onnx").read_bytes()
    checked = checked_in(tmp_path)
    from bnfold.pipeline import export as pipeline

    real = pipeline.export

    def export(source: Path, *arguments: object, **options: object) -> object:
        if source.name == "b.onnx":
            raise DisagreementError("b.onnx does not agree.")
        return real(source, *arguments, **options)

    monkeypatch.setattr(pipeline, "export", export)
    mended = fix(checked)
    assert mended == Mended(("a.onnx", "c.onnx"), (("b.onnx", "b.onnx does not agree"),))
    assert [operators(onnx.load(tmp_path / f"{name}.onnx")) for name in "ac"] == [["Conv"]] * 2
    assert (tmp_path / "b.onnx").read_bytes() == before


def test_without_what_proves_a_fold_the_check_ends_with_what_to_type(tmp_path: Path, monkeypatch) -> None:
    path = save(layers(), tmp_path / "net.onnx")
    before = path.read_bytes()

    def export(*_: object, **__: object) -> None:
        raise MissingExtraError("onnxruntime", "cpu", "validate")

    checked = checked_in(tmp_path)
    monkeypatch.setattr("bnfold.pipeline.export.export", export)
    with pytest.raises(BnfoldError, match="onnxruntime is needed") as caught:
        fix(checked)
    assert "pip install" in caught.value.fix
    assert path.read_bytes() == before


def test_the_difference_is_a_line_a_node_and_changes_nothing(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "net.onnx")
    before = path.read_bytes()
    (text,) = difference(checked_in(tmp_path))
    assert text.splitlines()[:2] == ["--- net.onnx", "+++ net.onnx (folded)"]
    assert "-BatchNormalization y: a, scale, bias, mean, var -> y" in text.splitlines()
    assert [line for line in text.splitlines()[3:] if line.startswith("+")]
    assert path.read_bytes() == before


def test_a_name_with_a_line_break_is_one_line(tmp_path: Path) -> None:
    model = layers()
    model.graph.node[1].name = "first\n+second"
    save(model, tmp_path / "net.onnx")
    (text,) = difference(checked_in(tmp_path))
    assert "-BatchNormalization first\\n+second: a" in text


KILLED = """
import os, signal, sys
from pathlib import Path
from bnfold.files import atomic
from bnfold.gate import run, work
from bnfold.gate.configuration import Configuration
from bnfold.gate.settings import Settings
folder, step = Path(sys.argv[1]), sys.argv[2]
run._answers = lambda asked, left, *_: ((at, work.Answer(work.answer(asked[at]))) for at in left)
checked = run.check(str(folder), Configuration(Settings(), folder))
from bnfold.gate import fix as mending
mending.outcomes = lambda function, asked, *_: ((name, function(*given)) for name, given in asked.items())
real = Path.replace
def replace(self, target):
    if step == "after":
        real(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
from bnfold.gate.fix import fix
fix(checked)
"""


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_in_the_middle_the_old_or_the_new_file_is_there_whole(tmp_path: Path, step: str) -> None:
    original = layers()
    path = save(original, tmp_path / "net.onnx")
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), step], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if step == "before":
        assert path.read_bytes() == before
    else:
        assert operators(onnx.load(path)) == ["Conv"]
        assert_same(original, onnx.load(path))
    assert codes(checked_in(tmp_path).findings) == (["M101"] if step == "before" else [])


def test_only_what_is_fixable_is_opened(tmp_path: Path) -> None:
    save(layers(), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_text("no model")
    assert mending.fixable(checked_in(tmp_path)) == [("a.onnx", tmp_path / "a.onnx")]
