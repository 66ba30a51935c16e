"""What README.md shows can be typed as it stands, and the pages link to files that are there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnfold_cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ bnfold (.+)$", README, re.MULTILINE)
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the trained models, and one of them as `model.onnx`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "convnet.pt", "models")
    arguments = ["export", "models/convnet.pt", "--input-shape", "1x1x32x32", "-o", "model.onnx"]
    done = CliRunner().invoke(main, [*arguments, "--no-bench", "--no-validate", "--quiet"])
    assert done.exit_code == 0, done.output
    return tmp_path


def test_it_shows_something() -> None:
    assert len(COMMANDS) >= 2
    assert PROGRAMS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("workplace")
def test_a_command_runs(command: str) -> None:
    arguments = shlex.split(command)
    timed = [] if "--no-bench" in arguments else ["--seconds", "0.5"]
    done = CliRunner().invoke(main, [*arguments, *timed])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.usefixtures("workplace")
def test_a_program_runs(program: str) -> None:
    exec(compile(program, "README.md", "exec"), {})


def test_the_table_of_exit_codes_names_every_command_that_can_say_no() -> None:
    named = set(re.findall(r"^\| \| `(\w+)`:", README, re.MULTILINE))
    modules = {path.stem: path.read_text() for path in (ROOT / "cli").glob("[a-z]*.py")}
    saying = {name for name, text in modules.items() if re.search(r"\bsay_no\(|\b[eE]xit\(1\)", text)}
    assert named == saying | {"validate"}  # whose no is an error of the library


def _links(page: Path) -> list[str]:
    targets = re.findall(r"\]\(([^()\s]+)\)", page.read_text())
    return [target for target in targets if not re.match(r"[a-z]+:|#", target)]


def test_the_readme_links_to_other_pages() -> None:
    assert "docs/exactness.md" in _links(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in _links(page) if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing
