"""What holds the house together: which room may import which, the public names, and what stays unloaded."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bnfold

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "bnfold").rglob("*.py"))

# A room may import from itself and from those above it.
ROOMS = (
    *("_version", "errors", "reasons", "result", "options"),
    *("algebra", "tensors", "graph", "files", "ops", "folding"),
    *("runtime", "system", "inputs", "oracle", "validation", "latency", "torch", "pipeline", "report"),
)


def _layer(module: str) -> int:
    room = module.split(".")[1]
    return ROOMS.index(room)


def _imports(path: Path) -> set[str]:
    """The modules of bnfold that a file imports, other than for the type checker alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names if node.module == "bnfold" else {node.module})
    return {name for name in found if name.startswith("bnfold.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module == "bnfold.__init__":
        return
    wrong = {name for name in _imports(path) if _layer(name) > _layer(module)}
    assert not wrong, f"{module} imports from a later layer: {sorted(wrong)}"


def _table_of_rooms() -> dict[str, int]:
    """Every room of bnfold/ that CONTRIBUTING.md lists, with the number of its row."""
    rows = re.findall(r"^\| (`bnfold/.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    rooms = [re.findall(r"`(?:bnfold/)?(\w+)(?:\.py|/)`", row) for row in rows]
    return {room: number for number, names in enumerate(rooms) for room in names}


def test_the_layers_are_the_rooms_that_there_are() -> None:
    there = {path.relative_to(ROOT / "bnfold").parts[0].removesuffix(".py") for path in SOURCES}
    assert set(ROOMS) == there - {"__init__"}


def test_the_table_of_rooms_is_in_the_order_of_imports() -> None:
    rooms = _table_of_rooms()
    assert set(rooms) == set(ROOMS) - {"_version"}
    for path in SOURCES:
        room = path.relative_to(ROOT / "bnfold").parts[0].removesuffix(".py")
        used = {name.split(".")[1] for name in _imports(path)} & set(rooms)
        below = [other for other in used if room in rooms and rooms[other] > rooms[room]]
        assert not below, f"{room} imports from {below}, which the table lists below it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text)) or not text.strip()


def test_the_public_names() -> None:
    assert set(bnfold.__all__) == {
        "Benchmark",
        "BnfoldError",
        "Export",
        "FoldResult",
        "Reason",
        "Site",
        "Validation",
        "__version__",
        "benchmark",
        "export",
        "fold",
        "validate",
    }
    assert all(hasattr(bnfold, name) for name in bnfold.__all__)
    assert all(callable(getattr(bnfold, name)) for name in ("benchmark", "export", "fold", "validate"))


@pytest.mark.parametrize(
    "program", ["import bnfold", "import bnfold, bnfold.report.terminal.text, bnfold.pipeline.read"]
)
def test_importing_loads_no_framework(program: str) -> None:
    check = "import sys; print(sorted({'torch', 'onnxruntime', 'onnxscript'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_page_of_reasons_is_up_to_date() -> None:
    from bnfold.report.rules import all_rules, page

    written = (ROOT / "docs" / "reasons.md").read_text()
    assert written == page(all_rules()), "type: bnfold explain --markdown > docs/reasons.md"


def test_codes_are_unique_and_ordered_by_their_kind() -> None:
    from bnfold.reasons import RULES

    assert all(
        rule.code == code and rule.code[:2] == "BN" and rule.code[2] in "12345"
        for code, rule in RULES.items()
    )
    assert list(RULES) == sorted(RULES)
