"""What is published, tried before a release: python -m pytest -m release. It downloads packages.

It takes the wheel in dist/ (`make dist`), and skips without one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, TOUR, blocks, commands
from tests.docs.workplace import ROOT
from tests.release.environments import BASE, JOBS, Environment, tried

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SEPARATE = {"dev", "docs", "release", "benchmarks"}  # extras for those who work on bnfold

pytestmark = [pytest.mark.release, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel in dist/."""
    found = sorted((ROOT / "dist").glob("bnfold-*.whl"))
    if not found:
        pytest.skip("there is no wheel in dist/: make dist")
    return found[-1]


def _interpreter(version: str) -> str | None:
    """The path of an interpreter that is installed, by uv, by pyenv or by the system; None without one."""
    uv = Path(sys.executable).parent / "uv"
    found = subprocess.run(
        [uv, "python", "find", "--no-python-downloads", version], capture_output=True, text=True, check=False
    )
    if not found.returncode:
        return found.stdout.strip()
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return next(map(str, sorted(root.glob(f"versions/{version}.*/bin/python"))), None)


def test_every_extra_has_a_job(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("METADATA")]
        extras = set(re.findall(r"^Provides-Extra: (.+)$", archive.read(name).decode(), re.MULTILINE))
    assert extras - SEPARATE == set(JOBS)


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {
        str(path.relative_to(ROOT)).replace("cli/", "bnfold_cli/", 1)
        if folder == "cli"
        else str(path.relative_to(ROOT))
        for folder in ("bnfold", "cli")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == here


def test_the_source_distribution_holds_tests_and_documentation(wheel: Path) -> None:
    with tarfile.open(next(wheel.parent.glob("bnfold-*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "README.md",
        "CHANGELOG.md",
        "setup.py",
        "docs/index.md",
        "models/convnet.pt",
        "tests/graphs.py",
    } <= held


@pytest.mark.parametrize("extra", JOBS)
def test_an_extra_works_in_a_new_environment(wheel: Path, extra: str) -> None:
    if extra in {"mnn", "openvino", "ray"} and sys.version_info >= (3, 14):
        pytest.skip("has no wheel for it yet")
    assert not tried(wheel, [extra])


def test_the_newest_versions_work(wheel: Path) -> None:
    assert not tried(wheel, ["cpu", "ci", "report"], constrained=False)


def test_every_python_writes_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    written = {}
    for version in PYTHONS:
        python = _interpreter(version)
        if python is None:
            print(f"there is no Python {version} here")
            continue
        (tmp_path / version).mkdir()
        made = Environment(tmp_path / version, wheel, python=python)
        assert not made.failures(BASE), version
        written[version] = made.hashes()
    assert len(written) >= 2, written
    assert len({tuple(hashes.items()) for hashes in written.values()}) == 1, written
    print(f"equal: {', '.join(written)}")


def test_the_ten_tasks(wheel: Path, tmp_path: Path) -> None:
    """As docs/tasks.md shows them, in its order, typed into a shell of a new environment."""
    made = Environment(tmp_path, wheel, ["ci", "cpu", "torch"])
    tasks = 0
    for language, block in blocks(DOCS / "tasks.md"):
        if TOUR in block:
            continue  # the environment's folder is such a one already
        tasks += 1
        if language == "python":
            done = made.run(["python", "-c", block])
            assert not done.returncode, done.stderr
        for command, _, code in commands(block) if language == "console" else ():
            done = made.run(command)
            assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    assert tasks == 10
    version = made.run("bnfold --version").stdout.split()[1]
    assert version in wheel.name
