"""`bnfold fleet` on generated models: equal reports, nothing lost and nothing twice, throughput, growth.

    python -m benchmarks.fleet PART… [--models N] [--rows FILE] [--page docs/fleet.md]

PART is one of `engines`, `chaos`, `chaos-dask`, `loop`, `growth`, `memory`, `s3`, `ray`, `large`, or `all`;
what each shows stands in its function's docstring. The first three plant faults, `fleet_unit` says how. Times
are those of the processors, since a busy machine would spoil others. `s3` needs bnfold[s3] and moto,
`engines` and `chaos-dask` bnfold[dask], `ray` bnfold[ray]; what is not installed is left out with a message.
Ends with an AssertionError if anything is not as it has to be.

With `--rows`, `all` goes on where an earlier run was ended, if bnfold's code is the same as it was then: all
figures of a page are of one state. It takes about 40 minutes on two cores, `chaos-dask` 15 of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from benchmarks import fleet_models
from benchmarks.fleet_page import MARKS, Row, section
from benchmarks.page import replaced
from benchmarks.processes import ROOT
from bnfold.fleet.plan import UNIT as PLAIN
from bnfold.gate.run import deciding

UNIT = "benchmarks.fleet_unit:one"
NOTHING = "benchmarks.fleet_unit:nothing"
TIME_LIMIT = 6.0  # seconds of a planted slow model: a hundred times what any other takes
KILL_EACH = (3.0, 10.0)  # seconds between two workers that are killed
GROWTH = (100, 1000, 10_000)
MEMORY = (1000, 10_000, 50_000)
SMALL = 200  # models of the parts that need not be large
LARGE = 100_000_000  # bytes of the model on paper
LOOP = 60  # models that the shell loop checks


# --- the coordinator, a process of its own so that it can be killed and measured


def coordinate(source: str, out: str, engine: str, *, resume: bool, unit: str, command: str) -> Row:
    """Run a fleet with two workers, and say what it took."""
    from bnfold.fleet import sources
    from bnfold.fleet.engines import opened
    from bnfold.fleet.ledger import Ledger
    from bnfold.fleet.plan import Limits, Plan
    from bnfold.fleet.run import run
    from bnfold.gate.settings import Settings

    plan = Plan(command, out, limits=Limits(TIME_LIMIT), versions=deciding(), unit=unit)
    begin = time.monotonic()
    with Ledger(plan, sources.models([source], command, Settings(), out=out)) as ledger:
        count, listed = len(ledger), time.monotonic()
        before = _usage()
        with opened(engine, 2) as workers:
            done = run(ledger, workers, resume=resume)
    after = _usage()
    return {
        "models": count,
        "done": done.progress.states.total(),
        "known": done.progress.known,
        "listing_seconds": listed - begin,
        "seconds": time.monotonic() - listed,
        "coordinator_processor_seconds": after["own"] - before["own"],
        "workers_processor_seconds": after["children"] - before["children"],
        "coordinator_bytes": after["bytes"],
    }


def _usage() -> dict[str, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "own": own.ru_utime + own.ru_stime,
        "children": children.ru_utime + children.ru_stime,
        "bytes": _most_memory(),
    }


def _most_memory() -> int:
    """The most bytes that this program held; `ru_maxrss` counts what started it as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _started(*words: object, log: IO[str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet", "coordinate", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )


def _ran(*words: object, log: IO[str] | None = None) -> Row:
    process = _started(*words, log=log)
    said, _ = process.communicate()
    assert process.returncode == 0, f"the coordinator ended with {process.returncode}"
    row: Row = json.loads(said.splitlines()[-1])
    return row


# --- what is compared


def records(out: Path) -> dict[str, Row]:
    """The results by path, without what differs from run to run; a path that occurs twice is an error."""
    found: dict[str, Row] = {}
    for record in _lines(out):
        record.pop("measured")
        assert record["path"] not in found, f"{record['path']} occurs twice"
        found[record["path"]] = record
    return found


def twice(out: Path) -> int:
    """How many models have more than one line, or more than one stored answer."""
    answers = [path for path in out.glob("results/*/*.json") if not path.name.endswith(".again.json")]
    lines = Counter(record["path"] for record in _lines(out))
    stored = Counter(json.loads(path.read_text())["path"] for path in answers)
    return sum(count > 1 for counts in (lines, stored) for count in counts.values())


def _lines(out: Path) -> Iterator[Row]:
    with (out / "results.jsonl").open() as stream:
        yield from map(json.loads, stream)


def report(out: Path) -> Row:
    """The report without what differs from run to run."""
    found: Row = json.loads((out / "report.json").read_text())
    found.pop("measured")
    return found


def _without_out(text: Any, out: Path) -> Any:
    """The same with the name of the results' folder left out."""
    return json.loads(json.dumps(text).replace(str(out), "OUT"))


# --- the parts


def engines(work: Path, models: Path) -> Row:
    """Two local processes and a Dask LocalCluster of two workers give equal results and equal reports."""
    rows = {
        engine: _ran(models, work / f"{models.name}-{engine}", engine, "--unit", UNIT, "--command", "fold")
        for engine in ("local", "dask")
    }
    outs = {engine: work / f"{models.name}-{engine}" for engine in rows}
    equal = {engine: _without_out([records(out), report(out)], out) for engine, out in outs.items()}
    assert equal["local"] == equal["dask"], "the two engines differ"
    largest = max(record["size"] for record in records(outs["local"]).values())
    states = report(outs["local"])["states"]
    return {"runs": rows, "states": states, "largest": largest, "equal": True}


def chaos(work: Path, models: Path, engine: str = "local", seed: int = 0) -> Row:
    """Workers killed at random and the coordinator killed twice change no result, and no record is lost.

    A model whose workers were all killed is asked again by another `--resume`, as somebody would who reads
    the report. The undisturbed run is that of `engines`, where there is one.
    """
    draw, out = random.Random(seed), work / f"{models.name}-chaos-{engine}"
    shutil.rmtree(out, ignore_errors=True)
    undisturbed = work / f"{models.name}-local"
    if not (undisturbed / "report.json").exists():
        _ran(models, undisturbed, "local", "--unit", UNIT, "--command", "fold")
    count = len(records(undisturbed))
    ends = [count // 3, 2 * count // 3]
    begin = time.monotonic()
    row: Row = {"engine": engine, "workers_killed": 0, "coordinators_killed": 0, "further_resumes": -1}
    words = (models, out, engine, "--unit", UNIT, "--command", "fold")
    while True:
        process = _started(*words, *(["--resume"] if out.exists() else []))
        due = time.monotonic() + draw.uniform(*KILL_EACH)
        while process.poll() is None:
            time.sleep(0.25)
            if ends and sum(1 for _ in out.glob("results/*/*")) >= ends[0]:
                ends.pop(0)
                os.kill(process.pid, signal.SIGKILL)
                row["coordinators_killed"] += 1
                process.wait()
                break
            if time.monotonic() >= due:
                due = time.monotonic() + draw.uniform(*KILL_EACH)
                if workers := list(_workers(process.pid, engine)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(draw.choice(workers), signal.SIGKILL)
                        row["workers_killed"] += 1
        if process.returncode == 0:
            row["further_resumes"] += 1
            if not report(out)["states"].get("lost"):
                break
        else:
            assert process.returncode == -signal.SIGKILL, f"the coordinator ended with {process.returncode}"
    row |= {"twice": twice(out), "seconds": time.monotonic() - begin}
    assert not row["twice"], row
    found, wanted = (_without_out(records(one), one) for one in (out, undisturbed))
    row |= {
        "models": len(wanted),
        "missing": len(wanted.keys() - found.keys()),
        "different": sum(found[path] != wanted[path] for path in found.keys() & wanted.keys()),
        "report_is_equal": _without_out(report(out), out) == _without_out(report(undisturbed), undisturbed),
    }
    assert not row["missing"] + row["different"], row
    assert row["report_is_equal"], "the reports differ"
    return row


def _workers(coordinator: int, engine: str) -> Iterator[int]:
    """The processes of a coordinator that serve models, but not those of single models."""
    mark = b"process_server" if engine == "local" else b"multiprocessing"
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    for process, parent in parents.items():
        if parent == coordinator or parents.get(parent) == coordinator:
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{process}/cmdline").read_bytes()
                is_helper = b"resource_tracker" in line or b"forkserver" in line
                if mark in line and not is_helper and (engine != "local" or parent == coordinator):
                    yield process


def loop(work: Path, models: Path) -> Row:
    """A shell loop of `bnfold check` next to a fleet: processor time a model, on models of under 1 kB."""
    names = [str(path) for path in sorted(models.rglob("*.onnx"))[:LOOP]]
    bnfold = Path(sys.executable).with_name("bnfold")
    script = 'for model in "$@"; do "$0" check --no-cache -q "$model"; done'
    before, begin = _usage(), time.monotonic()
    subprocess.run(["sh", "-c", script, str(bnfold), *names], check=False)
    each = (_usage()["children"] - before["children"]) / len(names)
    wall = (time.monotonic() - begin) / len(names)
    row = _ran(models, work / "loop", "local", "--command", "check")
    fleet = (row["coordinator_processor_seconds"] + row["workers_processor_seconds"]) / row["models"]
    return {
        "loop_models": len(names),
        "fleet_models": row["models"],
        "loop_processor_seconds": each,
        "fleet_processor_seconds": fleet,
        "loop_seconds": wall,
        "fleet_seconds": row["seconds"] / row["models"],
        "times": each / fleet,
    }


def growth(work: Path) -> Row:
    """What a model costs in fleets of 100, 1,000 and 10,000, and what the coordinator holds."""
    rows = {}
    for count in GROWTH:
        folder = work / f"trivial{count}"
        fleet_models.trivial(folder, count)
        row = _ran(folder, work / f"growth{count}", "local", "--command", "fold")
        assert row["done"] == count
        rows[count] = row
    return {"runs": rows}


def memory(work: Path) -> Row:
    """What the coordinator holds in fleets of 1,000 to 50,000, with a unit of work that does nothing."""
    rows = {}
    for count in MEMORY:
        folder = work / f"empty{count}"
        for at in range(count):
            path = folder / f"{at // 1000:03}" / f"model{at:05}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        row = _ran(folder, work / f"memory{count}", "local", "--unit", NOTHING, "--command", "fold")
        assert row["done"] == count
        rows[count] = row
        for done in (folder, work / f"memory{count}"):
            shutil.rmtree(done)
    return {"runs": rows}


def s3(work: Path) -> Row:
    """An S3 server on the loopback: read, written, killed, resumed; no credential is in what was written."""
    import s3fs
    from moto.server import ThreadedMotoServer

    secret = "correct-horse-battery-staple"
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    key = "fleet-access-key-id"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        fs = s3fs.S3FileSystem(skip_instance_cache=True)
        fs.mkdir("zoo")
        fleet_models.fleet(work / "s3models", SMALL, seed=3)
        fs.put(f"{work / 's3models'}/", "zoo/models/", recursive=True)
        words = ("s3://zoo/models", "s3://zoo/out", "local", "--command", "fold")
        with (work / "s3.log").open("w") as log:
            killed = _started(*words, log=log)
            while killed.poll() is None:
                time.sleep(0.5)
                fs.invalidate_cache()
                if len(fs.find("zoo/out/results")) >= SMALL // 3:
                    os.kill(killed.pid, signal.SIGKILL)
            row = _ran(*words, "--resume", log=log)
        fs.invalidate_cache()
        lines = fs.cat_file("zoo/out/results.jsonl").decode().splitlines()
        paths = [json.loads(line)["path"] for line in lines]
        written = b"".join(fs.cat(fs.find("zoo/out")).values()) + (work / "s3.log").read_bytes()
        hidden = key.encode() not in written and secret.encode() not in written
        assert len(paths) == len(set(paths)) == SMALL, "a result is missing, or there twice"
        assert row["known"] >= SMALL // 3, "nothing was resumed"
        assert hidden, "the results or the log hold a credential"
        return {**row, "outputs": len(fs.find("zoo/out/models")), "hidden": hidden}
    finally:
        server.stop()


def ray(work: Path) -> Row:
    """A small fleet on Ray gives what two local processes give."""
    folder = work / "raymodels"
    fleet_models.fleet(folder, SMALL, seed=4)
    rows = {
        engine: _ran(folder, work / f"ray-{engine}", engine, "--command", "fold")
        for engine in ("local", "ray")
    }
    equal = [_without_out(records(out), out) for out in (work / "ray-local", work / "ray-ray")]
    assert equal[0] == equal[1], "Ray differs"
    return {"runs": rows, "equal": True}


def large(work: Path) -> Row:
    """What one model of 100 MB takes, of each command."""
    folder = work / "largemodels"
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    (folder / "large.onnx").write_bytes(fleet_models.network(LARGE, draw).SerializeToString())
    row: Row = {"bytes": (folder / "large.onnx").stat().st_size}
    for command in ("check", "fold", "export"):
        _ran(folder, work / f"large-{command}", "local", "--command", command)
        [line] = (work / f"large-{command}" / "results.jsonl").read_text().splitlines()
        row[command] = json.loads(line)["measured"]
    return row


# --- the command


def main() -> int:
    """Run what the command line asks for."""
    if sys.argv[1:2] == ["coordinate"]:
        return _coordinate(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="+", choices=[*NEEDS, "all"])
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--rows", type=Path, help="keep the figures here, and take earlier ones from here")
    parser.add_argument("--work", type=Path, help="keep models and results in this folder")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    code = str(deciding()[1])[:12]
    rows = earlier(given.rows, code) if given.rows else {}
    with TemporaryDirectory(prefix="bnfold-fleet-") as scratch:
        work = given.work or Path(scratch)
        for part in [part for part in NEEDS if part not in rows] if "all" in given.parts else given.parts:
            if absent := [name for name in NEEDS[part] if find_spec(name) is None]:
                print(f"{part}: left out, since {', '.join(absent)} is not installed")
                continue
            begin = time.monotonic()
            rows[part] = {**_part(part, work, given.models), "code": code}
            print(json.dumps({part: rows[part], "minutes": (time.monotonic() - begin) / 60}), flush=True)
            if given.rows:
                given.rows.write_text(json.dumps(rows, indent=2))
    if given.page:
        given.page.write_text(replaced(given.page.read_text(), section(rows), MARKS))
    return 0


def earlier(path: Path, code: str) -> dict[str, Row]:
    """What was measured before, of the same state of the code."""
    rows: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    if other := [part for part, row in rows.items() if row.get("code") != code]:
        print(f"{', '.join(other)}: measured again, since bnfold's code has changed")
    return {part: row for part, row in rows.items() if part not in other}


NEEDS: Mapping[str, tuple[str, ...]] = {
    "engines": ("distributed",),
    "chaos": (),
    "chaos-dask": ("distributed",),
    "loop": (),
    "growth": (),
    "memory": (),
    "s3": ("s3fs", "moto"),
    "ray": ("ray",),
    "large": (),
}


def _part(part: str, work: Path, count: int) -> Row:
    models = work / "models"
    if part in ("engines", "chaos", "chaos-dask") and not models.exists():
        fleet_models.fleet(models, count)
    if part == "engines":
        return engines(work, models)
    if part == "chaos":
        return chaos(work, models, "local")
    if part == "chaos-dask":
        return chaos(work, models, "dask")
    if part == "loop":
        folder = work / "loopmodels"
        fleet_models.trivial(folder, 1000)
        return loop(work, folder)
    alone: Mapping[str, Callable[[Path], Row]] = {
        "growth": growth,
        "memory": memory,
        "s3": s3,
        "ray": ray,
        "large": large,
    }
    return alone[part](work)


def _coordinate(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("engine")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--unit", default=PLAIN)
    parser.add_argument("--command", default="check")
    print(json.dumps(coordinate(**vars(parser.parse_args(words)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
