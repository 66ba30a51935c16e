"""`bnfold fold` while the disk fills up, the source changes, or somebody ends it: whole files or none.

Runs are processes: forks of one that has imported everything (`saboteur.py`), so that there can be hundreds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.graphs import assert_same, build, statistics, weight

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, audits and mounts as Linux has them")

GRAPH = """g (float[1, 64, 4, 4] x) => (float[1, 1024] y) {
    a = Conv(x, w)
    b = BatchNormalization(a, scale, bias, mean, var)
    c = Relu(b)
    d = Flatten(c)
    y = MatMul(d, untouched)
}"""
OLD = b"what stood there before"
CLEAN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENTS = 12


def network(path: Path, seed: int) -> Path:
    """Two megabytes that a fold changes and four that it does not."""
    constants = {"w": weight(512, 64, 4, 4, seed=seed), "untouched": weight(512, 1024, seed=seed + 1)}
    onnx.save(build(GRAPH, constants | statistics(512, seed=seed)), path)
    return path


@dataclass(frozen=True)
class Run:
    """What became of one run."""

    code: int
    stderr: str
    seconds: float
    steps: int


class Place:
    """A folder with a model, another one of the same size, and what both become."""

    def __init__(self, folder: Path, server: subprocess.Popen[str]) -> None:
        self.folder, self.server = folder, server
        self.kept = folder / "kept"
        self.work = folder / "work"
        for made in (self.kept, self.work):
            made.mkdir()
        self.models = [network(self.kept / f"{name}.onnx", seed) for name, seed in (("one", 3), ("two", 7))]
        self.source, self.target = self.work / "model.onnx", self.work / "out.onnx"
        self.folded: list[bytes] = []
        for model in self.models:
            self.reset(model)
            done = self.fold()
            assert (done.code, done.stderr) == (0, "")
            assert_same(onnx.load(model), onnx.load(self.target))
            self.folded.append(self.target.read_bytes())
        self.seconds, self.steps = done.seconds, done.steps
        self.before = self.models[0].read_bytes()
        assert self.models[1].stat().st_size == len(self.before)

    def reset(self, model: Path | None = None) -> None:
        """A fresh folder with the source, and something where the output goes."""
        shutil.rmtree(self.work)
        self.work.mkdir()
        shutil.copy(model or self.models[0], self.source)
        self.target.write_bytes(OLD)

    def fold(self, *more: str, arguments: list[object] | None = None, **request: Any) -> Run:
        """Run the command; see `saboteur.py` for the request."""
        words = [*(arguments or [self.source, "-o", self.target]), "--quiet", *more]
        asked = {"arguments": ["fold", *map(str, words)], "folder": str(self.folder), **request}
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        return Run(**json.loads(self.server.stdout.readline()))

    def names(self) -> set[str]:
        """What lies in the folder."""
        return {path.name for path in self.work.iterdir()}


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    program = Path(__file__).with_name("saboteur.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="module")
def place(server: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("disk"), server)


def assert_clear(run: Run) -> None:
    """The cause on one line, advice below it and nothing else, with exit code 2."""
    assert run.code == 2, run
    first, *advice = run.stderr.splitlines()
    assert first.startswith("bnfold: "), run.stderr
    assert all(line.startswith("  ") for line in advice), run.stderr
    assert "a bug in bnfold" not in run.stderr


def assert_whole(place: Place, run: Run, *, killed: bool = False) -> None:
    """The output is what it was or all that it shall be, and nothing lies about."""
    written = place.target.read_bytes()
    assert written in (OLD, *place.folded), f"a broken file of {len(written)} bytes"
    assert "Traceback" not in run.stderr, run.stderr
    if run.code == 0:
        assert written != OLD
    if not killed:
        assert place.names() <= {place.source.name, place.target.name}, place.names()


def assert_ended(run: Run, sent: signal.Signals) -> None:
    """By the signal, in one way or another, or too late for it."""
    assert run.code in (0, 128 + sent, -sent), run


def moments(place: Place) -> Iterator[dict[str, Any]]:
    """Before every step, and at random moments between the first and the last."""
    assert place.steps > 3, "steps are not seen"
    yield from ({"step": step} for step in range(place.steps))
    draw = random.Random(0)
    yield from ({"after": draw.uniform(0, place.seconds)} for _ in range(MOMENTS))


@pytest.mark.parametrize("sent", [signal.SIGKILL, *CLEAN], ids=lambda sent: sent.name)
def test_a_signal_leaves_the_old_file_or_the_new_one(place: Place, sent: signal.Signals) -> None:
    for moment in moments(place):
        place.reset()
        run = place.fold(**moment, deed=["kill", sent])
        assert_ended(run, sent)
        assert_whole(place, run, killed=sent == signal.SIGKILL)
        assert place.source.read_bytes() == place.before


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_signal_while_a_file_replaces_itself(place: Place, sent: signal.Signals) -> None:
    for moment in moments(place):
        place.reset()
        run = place.fold(arguments=[place.source, "--in-place"], **moment, deed=["kill", sent])
        assert_ended(run, sent)
        assert place.source.read_bytes() in (place.before, place.folded[0])
        assert sent == signal.SIGKILL or place.names() == {place.source.name, place.target.name}


@pytest.mark.parametrize("kind", ["remove", "cut", "cut to nothing", "fill", "swap"])
def test_a_source_that_changes_half_way(place: Place, kind: str) -> None:
    deed: list[object] = [kind.split()[0], str(place.source)]
    deed += {"cut": [len(place.before) // 2], "cut to nothing": [0]}.get(kind, [])
    deed += [str(place.models[1])] if kind in ("fill", "swap") else []
    outcomes = set()
    for moment in moments(place):
        place.reset()
        run = place.fold(**moment, deed=deed)
        assert_whole(place, run)
        outcomes.add(run.code)
        if run.code:
            assert_clear(run)
            assert place.target.read_bytes() == OLD
    assert outcomes <= {0, 2}
    assert 2 in outcomes or kind == "swap", "no run saw the change"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_signal_never_tears_a_model_from_its_data(place: Place, sent: signal.Signals) -> None:
    def weights() -> list[bytes]:
        model = onnx.load(place.target)
        return [onnx.numpy_helper.to_array(one).tobytes() for one in model.graph.initializer]

    both = []
    for model in place.models:
        place.reset(model)
        place.target.unlink()
        undisturbed = place.fold(pair_from=2**21)
        assert undisturbed.code == 0, undisturbed.stderr
        assert len(place.names()) == 3
        both.append(weights())
    for step in range(undisturbed.steps + 1):
        place.reset(place.models[1])
        place.target.unlink()
        assert place.fold(pair_from=2**21).code == 0
        shutil.copy(place.models[0], place.source)
        run = place.fold(pair_from=2**21, step=step, deed=["kill", sent])
        assert_ended(run, sent)
        assert weights() in both
        assert sent == signal.SIGKILL or len(place.names()) == 3, (step, place.names())


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("pair", [False, True])
def test_a_file_that_may_not_grow(place: Place, share: float, pair: bool) -> None:
    place.reset()
    more = {"pair_from": 2**21} if pair else {}
    run = place.fold(limit=int(share * len(place.folded[0])), **more)
    assert_clear(run)
    assert "File too large" in run.stderr
    assert place.target.read_bytes() == OLD
    assert place.names() == {place.source.name, place.target.name}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only those who may mount have a small disk to fill")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(place: Place, disk: Path) -> None:
    place.reset()
    target = disk / "out.onnx"
    for arguments in ([place.source, "-o", target], [place.source, "-o", target, "--json", disk / "r.json"]):
        target.write_bytes(OLD)
        run = place.fold(arguments=arguments)
        assert_clear(run)
        assert "No space left on device" in run.stderr
        assert [path.name for path in disk.iterdir()] == [target.name]
        assert target.read_bytes() == OLD
    assert place.source.read_bytes() == place.before


def test_from_one_disk_to_another(place: Place, disk: Path) -> None:
    """The kernel does not copy within a file system then."""
    place.reset()
    subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
    there = shutil.copy(place.source, disk / "model.onnx")
    for source, target in ((there, place.target), (place.source, disk / "out.onnx")):
        run = place.fold(arguments=[source, "-o", target])
        assert (run.code, run.stderr) == (0, "")
        assert target.read_bytes() == place.folded[0]


def test_a_folder_that_turns_read_only(place: Place, disk: Path) -> None:
    place.reset()
    (disk / "out.onnx").write_bytes(OLD)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    run = place.fold(arguments=[place.source, "-o", disk / "out.onnx"])
    assert_clear(run)
    assert "read-only" in run.stderr
    assert (disk / "out.onnx").read_bytes() == OLD


def test_a_folder_without_rights(place: Place, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o555)
    place.reset()
    run = place.fold(arguments=[place.source, "-o", tmp_path / "out.onnx"])
    tmp_path.chmod(0o755)
    assert_clear(run)
    assert not (tmp_path / "out.onnx").exists()


def test_a_process_from_its_very_start(place: Place) -> None:
    """Not a fork: ended while it imports, reads and writes."""
    command = [sys.executable, "-m", "bnfold", "fold", str(place.source), "-o", str(place.target)]
    draw = np.random.default_rng(0)
    for delay in draw.uniform(0, 0.6, 4):
        place.reset()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.terminate()
            _, stderr = process.communicate()
        run = Run(process.returncode, stderr, 0, 0)
        assert_ended(run, signal.SIGTERM)
        assert_whole(place, run)
        assert place.source.read_bytes() == place.before
