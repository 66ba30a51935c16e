"""The page holds everything, escapes everything, fetches nothing, and is written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bnfold
from bnfold.errors import MissingExtraError
from bnfold.report.json import export_document
from bnfold.report.page import html, plots
from tests.report.sample_page import NASTY, sample, validation

CONVNET = Path(__file__).parents[3] / "models" / "convnet.pt"
_VOID = {"meta", "input", "wbr", "br", "link"}


class Tree(HTMLParser):
    """Collects tags, ids and text, and demands that every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return html.render(sample())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bnfold.Export:
    target = tmp_path_factory.mktemp("page") / "convnet.onnx"
    return bnfold.export(CONVNET, target, input_shape="1x1x32x32", seconds=0.2)


def test_every_element_is_closed_and_every_name_unique(page: str) -> None:
    tree = Tree(page)
    assert tree.open == []
    assert len(tree.ids) == len(set(tree.ids))


def test_names_of_a_model_stay_text(page: str) -> None:
    tree = Tree(page)
    assert tree.tags.count("script") == 1
    assert NASTY not in page
    assert any(NASTY in words for words in ["".join(tree.words)])


def test_the_only_script_is_the_one_that_the_policy_names(page: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    name = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{name}'" in page
    assert "default-src 'none'" in page


def test_nothing_is_fetched(page: str) -> None:
    assert re.findall(r"""(?:src|href|action)=["'](?!#)""", page) == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation": None}, "Not compared"),
        ({"validation": None}, "no error is known"),
        ({"validation": validation(0)}, "The layers were not compared one by one."),
        ({"benchmarks": []}, "Not run: nothing was timed on CPU."),
        ({}, "Not run: nothing was timed on CUDA."),
        ({"graphs": None}, "own graphs of the two models were not compared"),
        ({}, "The fold makes it worse,</strong> with 1 more node and 1 fewer Gelu."),
        ({}, "No parallel branches were merged, since the graph was worse with them merged."),
        ({}, "since the graph was worse with them folded: <code>&lt;script&gt;"),
    ],
)
def test_what_is_missing_is_said(
    changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_both", lambda *_: plots.Plot("<svg></svg>", "<svg></svg>"))
    assert sentence in html.render(sample(3, **changes))


def test_a_model_without_sites_has_a_page() -> None:
    text = html.render(sample(0, validation=None, benchmarks=[]))
    assert "This model has no BatchNorm" in text
    assert "No weight took a BatchNorm" in text
    assert Tree(text).open == []


def test_five_hundred_sites_take_little_time_and_room() -> None:
    html.render(sample(1))  # loads matplotlib
    start = time.process_time()
    text = html.render(sample(500))
    assert time.process_time() - start < 10  # it takes one; a loaded machine is slower
    assert len(text.encode()) < 2_000_000


def test_a_real_export_has_its_page(exported: bnfold.Export) -> None:
    record = export_document("export", exported)
    text = html.page(exported, command="bnfold export models/convnet.pt", record=record)
    assert "Agrees with the original" in text
    assert "bnfold export models/convnet.pt" in text
    assert record["source"]["sha256"] in text
    assert record["output"]["sha256"] in text
    assert all(f"<code>{site.name}</code>" in text for site in exported.fold.sites)
    assert "All 4 weights as a table" in text
    assert text == html.page(exported, command="bnfold export models/convnet.pt", record=record)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"bnfold\[report\]"):
        html.render(sample(3))


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    html.write("old", path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(bnfold.BnfoldError):
            html.write("new", path)
    assert path.read_text() == "old"
    html.write("naïve \udcff", path)
    assert path.read_text(encoding="utf-8") == "naïve ?"
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
