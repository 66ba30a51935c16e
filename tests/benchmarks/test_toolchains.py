"""Pages of targets show commands that `benchmarks.toolchains` can type, and the tools of their profiles."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from benchmarks import toolchains
from bnfold.targets.profile import load


@pytest.mark.parametrize("name", toolchains.TOOLS)
def test_a_page_exports_for_its_target_and_names_the_tool_of_its_profile(name: str) -> None:
    page = (toolchains.PAGES / f"{name}.md").read_text(encoding="utf-8")
    lines = list(toolchains.typed(page))
    (export,) = [words for words in lines if words[:2] == ["bnfold", "export"]]
    assert export[2] in toolchains.FILES
    assert export[export.index("--target") + 1] == name
    shown = {words[0] for words in lines} - {"bnfold"}
    profile = load(name)
    named = {shlex.split(line)[0] for lines in (profile.next, *profile.next_for.values()) for line in lines}
    assert shown <= named
    assert not any(said in word for words in lines for word in words for said in toolchains.SIZES)


def test_a_tool_that_is_not_there_is_named(tmp_path: Path) -> None:
    place = toolchains.Place(tmp_path, [])
    assert place.lacks(toolchains.Tool(("no-such-tool",), "")) == "no-such-tool"
    assert place.lacks(toolchains.Tool(("import no_such_module",), "")) == "no_such_module"
    assert place.lacks(toolchains.Tool(("sh", "import sys"), "")) == ""
