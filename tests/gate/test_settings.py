"""Which rules are asked about which file."""

from __future__ import annotations

import pytest

from bnfold.gate.rules import RULES
from bnfold.gate.settings import Settings, Source, begins, fits

ALWAYS = {code for code, rule in RULES.items() if rule.always}


def chosen(path: str = "models/net.onnx", **given: object) -> set[str]:
    codes = Settings(**given).codes(path)  # type: ignore[arg-type]
    assert list(codes) == sorted(codes)
    return set(codes)


def test_by_default_the_rules_of_the_default_are_asked() -> None:
    assert chosen() == {code for code, rule in RULES.items() if rule.default}
    assert "M107" not in chosen()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("M101",), {"M101"}),
        (("M10",), {code for code in RULES if code.startswith("M10")}),
        (("M2", "M104"), {"M104", *(code for code in RULES if code.startswith("M2"))}),
        (("M",), set(RULES)),
        (("ALL",), set(RULES)),
    ],
)
def test_a_selection_is_of_codes_and_their_beginnings(given: tuple[str, ...], wanted: set[str]) -> None:
    assert chosen(select=given) == wanted | ALWAYS
    assert chosen(extend_select=given) == chosen() | wanted


def test_whether_a_file_can_be_read_is_asked_unless_it_is_ignored() -> None:
    """A broken file would look as good as a whole one."""
    assert {"M300", "M301", "M302", "M304", "M305"} == ALWAYS
    assert chosen(select=("M101",), ignore=("M301",)) == {"M101"} | ALWAYS - {"M301"}
    assert chosen(select=("M101",), ignore=("M3",)) == {"M101"}


def test_what_is_ignored_goes_before_what_is_selected() -> None:
    assert chosen(select=("M1",), extend_select=("M201",), ignore=("M10", "M2")) == ALWAYS
    assert chosen(select=("ALL",), ignore=("ALL",)) == set()


def test_codes_are_ignored_for_files_that_fit_a_pattern() -> None:
    ignored = {"models/old/*": ("M1",), "tiny.onnx": ("M201",), "*.pt": ("ALL",)}
    assert chosen("models/old/net.onnx", per_file_ignores=ignored) == {
        code for code in chosen() if not code.startswith("M1")
    }
    assert chosen("models/old/tiny.onnx", per_file_ignores=ignored).isdisjoint({"M101", "M201"})
    assert chosen("elsewhere/tiny.onnx", per_file_ignores=ignored) == chosen() - {"M201"}
    assert chosen("net.pt", per_file_ignores=ignored) == set()
    assert chosen("net.onnx", per_file_ignores=ignored) == chosen()


def test_the_first_source_whose_pattern_fits_counts(tmp_path) -> None:
    sources = {"models/a*.onnx": Source(tmp_path / "a.pt"), "*.onnx": Source(tmp_path / "other.pt")}
    settings = Settings(sources=sources)
    assert settings.source("models/abc.onnx") == sources["models/a*.onnx"]
    assert settings.source("models/net.onnx") == sources["*.onnx"]
    assert settings.source("models/net.pt") is None


def test_a_pattern_is_of_the_path_or_of_the_name() -> None:
    assert fits("a/b/net.onnx", "net.*")
    assert fits("a/b/net.onnx", "a/*")
    assert not fits("a/b/net.onnx", "b/*")
    assert not fits("a/b/Net.onnx", "net.*")
    assert begins("M101", ("M2", "M10"))
    assert not begins("M101", ())


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*.onnx", {"net.onnx", "models/net.onnx", "models/old/net.onnx"}),
        ("net.onnx", {"net.onnx", "models/net.onnx", "models/old/net.onnx"}),
        ("models/*.onnx", {"models/net.onnx", "models/old/net.onnx"}),
        ("models/**/*.onnx", {"models/net.onnx", "models/old/net.onnx"}),
        ("**/*.onnx", {"net.onnx", "models/net.onnx", "models/old/net.onnx"}),
        ("models/old/", {"models/old/net.onnx"}),
        ("models/old", {"models/old/net.onnx"}),
        ("./models/net.onnx", {"models/net.onnx"}),
        ("old", set()),
        ("models/ol", set()),
    ],
)
def test_what_a_pattern_of_paths_fits(pattern: str, paths: set[str]) -> None:
    every = ("net.onnx", "models/net.onnx", "models/old/net.onnx")
    assert {path for path in every if fits(path, pattern)} == paths
