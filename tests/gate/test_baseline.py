"""Findings that are accepted stay so by model, code and site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bnfold.errors import InputError, SaveError
from bnfold.gate.baseline import read, sift, write
from bnfold.gate.finding import Finding, Found


def finding(path: str = "a.onnx", code: str = "M101", *sites: str) -> Finding:
    return Finding(path, code, Found("1 thing is wrong", "{} things are wrong", sites))


def test_what_was_written_is_accepted(tmp_path: Path) -> None:
    every = [finding("b.onnx", "M101", "x", "y"), finding("a.onnx", "M307"), finding("a.onnx", "M101", "z")]
    file = tmp_path / "baseline.json"
    write(every, file)
    sifted = sift(every, read(file), ["a.onnx", "b.onnx"])
    assert (sifted.new, sifted.accepted, sifted.gone) == ((), 4, ())
    assert json.loads(file.read_text()) == {
        "version": 1,
        "accepted": {"a.onnx": {"M101": ["z"], "M307": [""]}, "b.onnx": {"M101": ["x", "y"]}},
    }


def test_the_same_findings_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    every = [finding("b.onnx", "M101", "x"), finding("a.onnx", "M307"), finding("a.onnx", "M101", "z")]
    write(every, tmp_path / "one")
    write(every[::-1], tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_new_site_fails_alone() -> None:
    known = {"a.onnx": {"M101": ["x"]}}
    sifted = sift([finding("a.onnx", "M101", "x", "new")], known, ["a.onnx"])
    assert sifted.new == (finding("a.onnx", "M101", "new"),)
    assert sifted.new[0].found.headline == "1 thing is wrong"
    assert (sifted.accepted, sifted.gone) == (1, ())


@pytest.mark.parametrize("other", [finding("b.onnx", "M101", "x"), finding("a.onnx", "M102", "x")])
def test_another_model_or_another_code_is_not_accepted(other: Finding) -> None:
    assert sift([other], {"a.onnx": {"M101": ["x"]}}, ["a.onnx", "b.onnx"]).new == (other,)


def test_what_is_gone_is_named_for_the_files_that_were_looked_at() -> None:
    known = {"a.onnx": {"M307": [""], "M101": ["x", "y"]}, "b.onnx": {"M101": ["z"]}}
    sifted = sift([finding("a.onnx", "M101", "y")], known, ["a.onnx"])
    assert sifted.gone == (("a.onnx", "M101", "x"), ("a.onnx", "M307", ""))


def test_several_findings_of_a_code_are_all_weighed() -> None:
    """As with M107, of which there is one for each reason."""
    known = {"a.onnx": {"M107": ["x", "y"]}}
    several = [finding("a.onnx", "M107", "x"), finding("a.onnx", "M107", "y", "z")]
    sifted = sift(several, known, ["a.onnx"])
    assert (sifted.new, sifted.accepted, sifted.gone) == ((finding("a.onnx", "M107", "z"),), 2, ())


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    strange = finding("a\udcff.onnx", "M101", "new\nline", "é\x1b", '"')
    write([strange], tmp_path / "baseline.json")
    assert sift([strange], read(tmp_path / "baseline.json"), []).new == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "accepted": []}',
        '{"version": 1, "accepted": {"a": ["M101"]}}',
        '{"version": 1, "accepted": {"a": {"M101": "x"}}}',
        '{"version": 1, "accepted": {"a": {"M101": [["x"]]}}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_not_a_baseline_is_said(tmp_path: Path, content: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="is not a baseline"):
        read(file)


def test_another_version_is_said(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text('{"version": 2, "accepted": {}}')
    with pytest.raises(InputError, match="version 2"):
        read(tmp_path / "baseline.json")


def test_one_that_is_not_there_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "absent.json")
    assert "--write-baseline" in caught.value.fix


def test_a_baseline_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "baseline.json"
    write([finding()], file)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        write([], file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("baseline.json")
    write([finding()], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "baseline.json")


def test_what_is_accepted_in_other_files_can_stay(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write([finding("a.onnx", "M101", "x"), finding("b.onnx", "M101", "y")], path)
    before = read(path)
    write([finding("b.onnx", "M102", "z")], path, {"a.onnx": before["a.onnx"]})
    assert read(path) == {"a.onnx": {"M101": ["x"]}, "b.onnx": {"M102": ["z"]}}
