"""What holds the house together: which folder may import which, sizes, public names, and words to avoid."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bnfold

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "bnfold").rglob("*.py"))
PRODUCT = SOURCES + sorted((ROOT / "cli").rglob("*.py"))

# A folder, or a file directly in bnfold/, may import from itself and from those before it.
ROOMS = (
    *("_version", "errors", "reasons", "display", "result", "options"),
    *("algebra", "tensors", "graph", "files", "patterns", "ops", "folding"),
    *("runtime", "system", "inputs", "engines", "oracle", "validation", "latency"),
    *("contract", "torch", "edge", "targets", "pipeline"),
    *("gate", "report", "api", "fleet"),
)
ENTRANCES = {"__init__", "__main__"}  # they import whatever they lead to
MOST_FILES = 8  # directly in bnfold/
LONG_FILE, TOO_LONG_FILE = 400, 600
LONGEST_BODY = 60  # of a function, in lines without its docstring
MOST_PARAMETERS = 12
WORDS = re.compile(r"\b(is no|told|anew)\b", re.IGNORECASE)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PRODUCT}


def _name(path: Path) -> str:
    """A file's module: `bnfold.ops.conv`, and the folder's for its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "bnfold").parts[0].removesuffix(".py")


MODULES = {_name(path): path for path in SOURCES}


def _imports(path: Path, *, late: bool = True) -> set[str]:
    """The modules of bnfold that a file imports, other than for the type checker alone.

    Args:
        path: The file.
        late: Whether those count too that a function imports when it is called.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [TREES[path]]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(part if part in MODULES else node.module for part in parts)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
        elif late or not isinstance(node, FUNCTION):
            pending.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.startswith("bnfold.")}


def _functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a file, after a label that says where it is."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, FUNCTION):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_the_order_is_of_the_folders_that_there_are() -> None:
    assert set(ROOMS) == {_room(path) for path in SOURCES} - ENTRANCES


def test_imports_point_one_way() -> None:
    wrong = [
        f"{_name(path)} imports {name}"
        for path in SOURCES
        if _room(path) not in ENTRANCES
        for name in sorted(_imports(path))
        if ROOMS.index(name.split(".")[1]) > ROOMS.index(_room(path))
    ]
    assert not wrong, "these import from a later folder"


def test_no_module_takes_a_private_name_from_another() -> None:
    """What ruff's SLF does not see: `from module import _name`."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {alias.name}"
        for path in PRODUCT
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("bnfold.", "bnfold_cli."))
        for alias in node.names
        if re.match(r"_[^_]", alias.name)
    ]
    assert not wrong


@pytest.mark.parametrize("whole", [False, True], ids=["files", "folders"])
def test_no_imports_go_in_a_circle(whole: bool) -> None:
    """Among imports at the top of files; a function may import late what imports its module.

    A package's `__init__` only hands on what its folders hold, and is not one of its files.
    """
    graph: dict[str, set[str]] = {}
    for path in (path for path in SOURCES if not whole or path.name != "__init__.py"):
        name = _name(path.parent if whole else path)
        used = _imports(path, late=False) & MODULES.keys()
        if whole:
            used = {_name(MODULES[module].parent) for module in used}
        graph.setdefault(name, set()).update(used - {name})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_table_of_folders_is_in_the_order_of_imports() -> None:
    rows = re.findall(r"^\| (`bnfold/.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(?:bnfold/)?(\w+)(?:\.py|/)`", row)]
    assert listed == [room for room in ROOMS if room != "_version"]


def test_the_packages_are_the_folders() -> None:
    [block] = re.findall(
        r"^packages = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    folders = {path.parent for path in SOURCES}
    # 26 for the fold and its proof; the others for what is built on them: the gate, small devices, fleets
    assert len(folders) <= 38, "rooms: their number is what a stranger has to keep in mind"
    assert {path.parent for path in SOURCES if path.name == "__init__.py"} == folders
    assert re.findall(r'"(.+?)"', block) == [*sorted(map(_name, folders)), "bnfold_cli"]


def test_few_files_stand_outside_the_folders() -> None:
    assert len(list((ROOT / "bnfold").glob("*.py"))) <= MOST_FILES


@pytest.mark.filterwarnings("default")
def test_files_are_short_and_say_what_they_hold() -> None:
    lines = {path.relative_to(ROOT): path.read_text(encoding="utf-8").count("\n") for path in PRODUCT}
    for path, count in lines.items():
        if LONG_FILE < count <= TOO_LONG_FILE:
            warnings.warn(f"{path} has {count} lines, more than {LONG_FILE}", stacklevel=1)
    assert not [f"{path}: {count}" for path, count in lines.items() if count > TOO_LONG_FILE]
    assert not [path for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


def test_functions_are_short() -> None:
    found = []
    for path in PRODUCT:
        for label, function in _functions(path):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            length = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > LONGEST_BODY:
                found.append(f"{label}: {length} lines")
    assert not found


def test_signatures_are_short() -> None:
    found = []
    for path in PRODUCT:
        for label, function in _functions(path):
            arguments = function.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            if count > MOST_PARAMETERS:
                found.append(f"{label}: {count} parameters")
    wrong = [one for one in found if not re.match(r"bnfold/pipeline/export\.py:\d+ export: ", one)]
    assert not wrong, "only the whole job may have more"


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """What people read of a file, with its line: string literals, and of docstrings the summary.

    A command's docstring is its help text, so those of cli/ count whole.
    """
    documented = {
        node.body[0].value
        for node in ast.walk(TREES[path])
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)) and ast.get_docstring(node)
    }
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            summary = node in documented and path in SOURCES
            yield node.lineno, node.value.strip().split("\n\n")[0] if summary else node.value


def test_no_text_uses_the_words_to_avoid() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {' '.join(text.split())}"
        for path in PRODUCT
        for line, text in _texts(path)
        if WORDS.search(" ".join(text.split()))
    ]
    assert not found


PUBLIC = {
    *("Benchmark", "BnfoldError", "Checked", "Contract", "Equalized", "Export", "FoldResult"),
    *("Inspection", "Preprocessing", "Reason", "Site", "Validation", "__version__"),
    *("benchmark", "check", "equalize", "export", "fold", "inspect", "validate"),
}


def test_the_public_names() -> None:
    assert set(bnfold.__all__) == PUBLIC
    assert all(callable(getattr(bnfold, name)) for name in PUBLIC - {"__version__"})
    assert set(dir(bnfold)) == PUBLIC


def test_the_public_names_for_pytorch() -> None:
    pytest.importorskip("torch")
    import bnfold.torch

    assert set(dir(bnfold.torch)) == set(bnfold.torch.__all__) >= {"fold"}


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
    from bnfold.report.rules import all_rules, check_page, check_rules, page

    written = (ROOT / "docs" / "reasons.md").read_text()
    assert written == page(all_rules()), "type: bnfold explain --markdown > docs/reasons.md"
    written = (ROOT / "docs" / "rules.md").read_text()
    assert written == check_page(check_rules()), "type: bnfold explain --rules --markdown > docs/rules.md"


def test_codes_are_unique_and_ordered_by_their_kind() -> None:
    from bnfold.reasons import RULES

    assert all(
        rule.code == code and rule.code[:2] == "BN" and rule.code[2] in "12345"
        for code, rule in RULES.items()
    )
    assert list(RULES) == sorted(RULES)
