"""What docs/fleet.md shows for a laptop and for Dask can be typed; its tables leave nothing out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnfold.fleet.engines import local
from bnfold.fleet.results import STATES
from bnfold_cli import main
from tests.gate.models import layers, save

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fleet.md").read_text()
SECTIONS = dict(re.findall(r"^#+ (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
STAYS = "t = Tanh(a)\n y = BatchNormalization(t, scale, bias, mean, var)"


def commands(section: str, program: str) -> Iterator[tuple[list[str], str]]:
    """The words of each command of a program in a section, and what it is shown to print."""
    for block in re.findall(r"```console\n(.*?)```", SECTIONS[section], re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, printed = part.partition("\n")
            first, *words = shlex.split(line)
            if first == program:
                yield words, printed


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five models."""
    monkeypatch.chdir(tmp_path)
    for at in range(2):
        whole = save(layers(seed=at), tmp_path / "models" / f"folds{at}.onnx").read_bytes()
        save(layers(STAYS, seed=at), tmp_path / "models" / f"stays{at}.onnx")
    (tmp_path / "models" / "broken.onnx").write_bytes(whole[:300])
    return tmp_path


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the repository has in `models/`, and the manifest of the page."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("__pycache__"))
    [manifest] = re.findall(r"```json\n(.*?)```", SECTIONS["Where models are"], re.DOTALL)
    (folder / "zoo.jsonl").write_text(manifest)
    return folder


LINES = [*commands("Ten thousand models", "bnfold"), *commands("A laptop", "bnfold")]


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(("words", "printed"), LINES, ids=str)
def test_a_clone(clone: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], printed: str) -> None:
    """What the page shows first works there, line after line."""
    monkeypatch.chdir(clone)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert not printed or done.stdout.splitlines()[0] + "\n" == printed
    if "--resume" in words and "check" in words:
        assert done.stdout.splitlines()[-1] == "Nothing to do: all 2 results are there."


def test_what_a_fleet_writes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes of their own."""
    monkeypatch.setattr(local, "available", lambda: 1)  # a server takes a second to start
    done = CliRunner().invoke(main, ["fleet", "check", "models", "--out", "results"])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "5 models: 2 passed, 3 with findings.")
    written = {path.name for path in (workplace / "results").iterdir()} - {"results.parquet"}
    assert written <= set(re.findall(r"`([\w.]+)/?`", SECTIONS["Ten thousand models"]))
    assert {"results.jsonl", "report.json", "report.txt", "results"} <= written


@pytest.mark.usefixtures("opened")
def test_every_state_and_key_is_explained(workplace: Path) -> None:
    said = set(re.findall(r"`(\w+)`", SECTIONS["What happens to a model"]))
    assert set(STATES) <= said
    CliRunner().invoke(main, ["fleet", "fold", "models", "--out", "results"])
    keys = {
        key
        for line in (workplace / "results" / "results.jsonl").read_text().splitlines()
        for key in json.loads(line)
    }
    explained = set(re.findall(r"`(\w+)`", SECTIONS["A line of results.jsonl"])) | {"schema"}
    assert "next" in explained
    assert keys <= explained


@pytest.mark.fleet
def test_dask_on_several_machines(workplace: Path) -> None:
    """Its three lines, on the loopback, with one worker."""
    pytest.importorskip("distributed", reason='needs: pip install "bnfold[dask]"')
    dask = Path(sys.executable).with_name("dask")
    if not dask.exists():
        pytest.skip("the command dask is not installed next to Python")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    [(scheduler, _), (worker, _)] = commands("Dask on four machines", "dask")
    [(fleet, _)] = commands("Dask on four machines", "bnfold")
    places = {"8786": port, "scheduler:8786": f"127.0.0.1:{port}", "16": "1"}
    places |= {"s3://zoo/vision": "models", "s3://results/vision": "results"}

    def here(words: list[str]) -> list[str]:
        return [places.get(word, word.replace("scheduler:8786", f"127.0.0.1:{port}")) for word in words]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([dask, *words], **quiet)  # type: ignore[call-overload]
        for words in ([*here(scheduler), "--no-dashboard"], here(worker))
    ]
    try:
        bnfold = [sys.executable, "-m", "bnfold", *here(fleet), "--exit-zero"]
        done = subprocess.run(bnfold, capture_output=True, text=True, timeout=300, check=False)
        assert done.stdout.splitlines()[0] == "5 models: 2 passed, 3 with findings.", done.stderr
    finally:
        for process in started:
            process.terminate()
            process.wait()
        shutil.rmtree(workplace / "results", ignore_errors=True)
