"""What an index shows of README.md has no link that is dead there."""

from __future__ import annotations

import re
import runpy
import tomllib

from tests.docs.workplace import ROOT

page = runpy.run_path(str(ROOT / "setup.py"))["page"]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def _relative(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|#", link)]


def test_links_are_text_where_the_address_of_the_source_is_not_known() -> None:
    assert _relative(TEXT)
    assert not _relative(page(TEXT))
    assert page("[how](docs/proof.md), [it](https://x.org/a), [here](#top)") == (
        "how, [it](https://x.org/a), [here](#top)"
    )


def test_links_are_absolute_where_it_is() -> None:
    made = page(TEXT, "https://example.org/bnfold/", "v1")
    assert not _relative(made)
    assert "](https://example.org/bnfold/blob/v1/docs/exactness.md)" in made


def test_every_data_file_of_the_package_is_packed() -> None:
    """Files that are not Python, such as the page's, are found by the patterns of pyproject.toml."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packed = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    here = {
        path for path in (ROOT / "bnfold").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert here <= packed


def test_the_versions_are_one() -> None:
    from bnfold import __version__

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == __version__
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == __version__
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert re.findall(r"(?:rev: |bnfold/bnfold@)v(\S+)", page) == [__version__, __version__]
