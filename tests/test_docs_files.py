"""What docs/files.md shows can be typed as it stands, in its order, and says what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnfold_cli import main

pytest.importorskip("torch")
pytest.importorskip("safetensors")

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "files.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


def _session(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block with what it is shown to print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


SESSIONS = [session for block in BLOCKS for session in _session(block)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the trained models, in which the page's Python has run."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "models").mkdir()
    shutil.copy(ROOT / "models" / "convnet.pt", folder / "models")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx and torch.jit, about themselves
        patch.chdir(folder)
        names: dict[str, object] = {}
        for program in PROGRAMS:
            exec(compile(program, "docs/files.md", "exec"), names)
        yield folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("command", "printed"), SESSIONS, ids=range(len(SESSIONS)))
def test_a_command_does_what_the_page_says(command: str, printed: str) -> None:
    program, *words = shlex.split(command)
    assert program == "bnfold"
    done = CliRunner().invoke(main, words)
    if printed:
        assert (done.exit_code, done.stderr) == (2, printed)
    else:
        assert done.exit_code == 0, done.output
        assert "none stays" in done.stdout


def test_every_kind_has_its_section_with_a_command() -> None:
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert len(sections) == 8
    assert all("$ bnfold export" in text for title, text in sections if title != "What is refused")
