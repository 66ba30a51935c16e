"""The whole fleet without processes: results, resuming, parts, reports, and what goes wrong with workers."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from bnfold.errors import BnfoldError, InputError
from bnfold.fleet import alone, sources, transport, worker
from bnfold.fleet.engines import Engine
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import QUIET, Limits, Model, Plan
from bnfold.fleet.process_server import Ended
from bnfold.fleet.results import Results
from bnfold.fleet.run import ATTEMPTS, Outcome, Shard
from bnfold.fleet.run import run as run_ledger
from bnfold.fleet.work import Job
from bnfold.gate.settings import Settings
from tests.fleet.conftest import Here
from tests.gate.models import layers, save

OUT = "memory://out"


def plan(command: str = "fold", **others: Any) -> Plan:
    return Plan(command, OUT, versions=("1",), **others)


def found(zoo: object, command: str = "fold") -> list[Model]:
    return list(sources.models([str(zoo)], command, Settings()))


def run(wanted: Plan, models: Iterable[Model], engine: Engine, **others: Any) -> Outcome:
    with Ledger(wanted, models) as ledger:
        return run_ledger(ledger, engine, **others)


def records(fs: Any) -> dict[str, dict[str, Any]]:
    """The records by the name of the model, without what differs from run to run; none is there twice."""
    lines = [json.loads(line) for line in fs.cat_file("/out/results.jsonl").decode().splitlines()]
    for line in lines:
        line.pop("measured")
    assert [line["path"] for line in lines] == sorted(line["path"] for line in lines)
    by_name = {Path(line["path"].split("::")[0]).name: line for line in lines}
    assert len(by_name) == len(lines)
    return by_name


def test_fold(here: Here, zoo: Path, memory: Any) -> None:
    done = run(plan(), found(zoo), here)
    assert not done
    assert (done.progress.done, done.left, done.bad) == (3, 0, 1)
    known = records(memory)
    assert known["folds.onnx"]["verdict"] == "folded"
    assert known["folds.onnx"]["batchnorms"] == {"before": 1, "after": 0}
    assert known["stays.onnx"]["reasons"] == {"BN201": 1}
    assert known["broken.onnx"]["state"] == "failed"
    assert known["broken.onnx"]["why"].startswith(f"{zoo}/b/broken.onnx is truncated or damaged")
    assert known["folds.onnx"]["output"] == f"{OUT}/models/a/folds.onnx"
    written = onnx.load_from_string(memory.cat_file("/out/models/a/folds.onnx"))
    assert [node.op_type for node in written.graph.node] == ["Conv"]
    report = json.loads(memory.cat_file("/out/report.json"))
    assert (report["models"], report["good"]) == (3, 2)
    assert report["batchnorms"] == {"before": 2, "after": 1}
    assert [(one["code"], one["models"]) for one in report["reasons"]] == [("BN201", 1)]
    assert report["failures"][0]["again"] == (
        f"bnfold fleet fold {zoo}/b/broken.onnx --out again --jobs 1 --time-limit 600"
    )
    assert {"report.txt", "report.json", "results.jsonl"} <= set(done.files)


def test_check(here: Here, zoo: Path, memory: Any) -> None:
    done = run(plan("check", inputs={"x": "1x3x9x9"}), found(zoo), here)
    known = records(memory)
    assert [one["code"] for one in known["folds.onnx"]["findings"]] == ["M101", "M309"]
    assert [one["code"] for one in known["broken.onnx"]["findings"]] == ["M302"]
    assert known["stays.onnx"]["batchnorms"] == {"before": 1, "after": 1}
    assert done.report is not None
    assert (done.report["good"], done.report["verdicts"]) == (0, {"findings": 3})
    assert next((one["code"], one["models"]) for one in done.report["findings"]) == ("M309", 2)
    assert "models" not in {Path(name).name for name in memory.ls("/out", detail=False)}


def test_export(here: Here, zoo: Path, memory: Any) -> None:
    models = [model for model in found(zoo, "export") if "folds" in model.url]
    assert run(plan("export", options={"samples": 1, "oracle": "off"}), models, here)
    record = records(memory)["folds.onnx"]
    assert (record["verdict"], record["options"]["samples"]) == ("proved", 1)
    assert record["latency"] == [], "nothing is timed that nobody has asked for"
    assert memory.exists("/out/models/folds.onnx") or memory.exists("/out/models/a/folds.onnx")


def test_a_time_is_taken_only_on_quiet_workers(here: Here, zoo: Path, memory: Any, monkeypatch) -> None:
    models = [model for model in found(zoo, "export") if "folds" in model.url]
    fast = plan("export", options={"bench": True, "seconds": 0.05, "no-validate": True})
    seen: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            alone, "run", lambda _, job, **__: seen.append(job) or Ended({"state": "failed"}, "well")
        )
        run(fast, models, here)
    assert "bench" not in seen[0].options
    monkeypatch.setenv(QUIET, "1")
    run(fast, models, here)
    [timed] = records(memory)["folds.onnx"]["latency"]
    assert timed["provider"] == "cpu"
    assert timed["ratio"] > 0


def test_resuming_leaves_out_what_is_known(here: Here, zoo: Path, memory: Any) -> None:
    models = found(zoo)
    run(plan(), models, here)
    before = records(memory)
    here.models.clear()
    done = run(plan(), models, here, resume=True)
    assert (here.models, done.progress.known) == ([], 3)
    assert records(memory) == before
    run(plan(options={"no-merge": True}), models, here, resume=True)
    assert len(here.models) == 3, "other options are another question"
    here.models.clear()
    changed = [replace(model, identity="other") if "folds" in model.url else model for model in models]
    run(plan(), changed, here, resume=True)
    assert [Path(url).name for url in here.models] == ["folds.onnx"]


def test_what_a_limit_brought_about_holds_for_that_limit(
    here: Here, zoo: Path, memory: Any, monkeypatch
) -> None:
    [model] = [model for model in found(zoo) if "folds" in model.url]
    real = alone.run
    monkeypatch.setattr(alone, "run", lambda *_, **__: Ended(None, "slow", "took more than 1 s"))
    run(plan(limits=Limits(1)), [model], here)
    assert records(memory)["folds.onnx"]["state"] == "slow"
    monkeypatch.setattr(alone, "run", real)
    run(plan(limits=Limits(1)), [model], here, resume=True)
    assert records(memory)["folds.onnx"]["state"] == "slow"
    run(plan(limits=Limits(9)), [model], here, resume=True)
    assert records(memory)["folds.onnx"]["state"] == "done"


def test_torch_is_loaded_beforehand_where_it_is_needed() -> None:
    """Both units are the same function."""
    from bnfold.fleet import work, work_torch

    units = [
        plan(command).unit_of(Model(url, "")) for command in ("export", "check") for url in ("a.PT", "a.onnx")
    ]
    assert units == ["bnfold.fleet.work_torch:one", "bnfold.fleet.work:one"] * 2
    assert plan("export", unit="planted:one").unit_of(Model("a.pt", "")) == "planted:one"
    assert work_torch.one is work.one


def test_only_if_faster_asks_for_a_quiet_worker(here: Here, zoo: Path, memory: Any) -> None:
    """A file is never written on the word of a worker that has not measured."""
    models = [model for model in found(zoo, "export") if "folds" in model.url]
    run(plan("export", options={"bench": True, "only-if-faster": True}), models, here)
    assert records(memory)["folds.onnx"]["state"] == "unable"
    assert not memory.exists("/out/models")


def test_a_full_disk_says_nothing_of_a_model(
    here: Here, zoo: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [model for model in found(zoo) if "folds" in model.url]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        run(plan(), models, here)
    record = records(memory)["folds.onnx"]
    assert record["state"] == "unable"
    assert "No space left" in record["why"]
    run(plan(), models, here, resume=True)
    assert records(memory)["folds.onnx"]["state"] == "done"


def test_an_archive(here: Here, zoo: Path, memory: Any, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "zoo"), "zip", zoo)
    run(plan(), found(tmp_path / "zoo.zip"), here)
    known = records(memory)
    assert [record["state"] for record in known.values()] == ["done", "failed", "done"]
    assert "folds.onnx" in {Path(name).name for name in memory.find("/out/models")}


def test_names_with_two_colons(here: Here, zoo: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "in::1").mkdir()
    (folder / "a::b.onnx").write_bytes((zoo / "a" / "folds.onnx").read_bytes())
    wanted = Plan("fold", str(tmp_path / "out::1"))
    for resume in (False, True):
        done = run(wanted, sources.models([str(folder)], "fold", Settings()), here, resume=resume)
        assert (done.bad, done.progress.known) == (0, int(resume))
    assert (tmp_path / "out::1" / "models" / "a::b.onnx").is_file()


def test_a_network_that_failed_is_asked_again(here: Here, zoo: Path, memory: Any, monkeypatch) -> None:
    memory.put(f"{zoo}/", "/zoo/", recursive=True)
    models = found("memory://zoo")

    def failing(url: str, _: Path) -> None:
        raise transport.TransportError(f"{url} could not be fetched: Timeout.")

    with monkeypatch.context() as patch:
        patch.setattr(transport, "fetch", failing)
        assert not run(plan(), models, here)
    assert {record["state"] for record in records(memory).values()} == {"unreachable"}
    done = run(plan(), models, here, resume=True)
    assert (done.progress.known, done.bad) == (0, 1)
    assert {record["state"] for record in records(memory).values()} == {"done", "failed"}


def test_external_data_is_fetched_and_its_change_is_seen(here: Here, memory: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        file = save(layers(seed=seed), tmp_path / str(seed) / "net.onnx", data="net.weights")
        memory.put_file(file.with_name("net.weights"), "/zoo/net.weights")
        if seed == 0:
            memory.put_file(file, "/zoo/net.onnx")
            models = found("memory://zoo")
            assert run(plan(), models, here)
            first = records(memory)["net.onnx"]
            assert list(first["files"]) == ["net.weights"]
            here.models.clear()
            run(plan(), models, here, resume=True)
            assert here.models == []
    run(plan(), models, here, resume=True)
    assert here.models == [model.url for model in models]
    assert records(memory)["net.onnx"]["content"] != first["content"]


def test_names_that_lead_out_are_not_fetched(here: Here, memory: Any, tmp_path: Path) -> None:
    model = layers()
    save(model, tmp_path / "net.onnx", data="net.weights")
    hostile = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for entry in hostile.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    memory.pipe_file("/zoo/a/net.onnx", hostile.SerializeToString())
    memory.pipe_file("/zoo/secret", b"secret" * 1000)
    run(plan(), found("memory://zoo/a"), here)
    record = records(memory)["net.onnx"]
    assert (record["state"], record["files"]) == ("failed", {"net.weights": ""}), (
        "one is missing, none is outside"
    )
    assert "outside the model's folder" in record["why"]


def test_parts_are_a_whole(here: Here, zoo: Path, memory: Any) -> None:
    models = found(zoo)
    done = [run(plan(), models, here, shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert sum(one.progress.total for one in done) == 3
    assert len(here.models) == len(set(here.models)) == 3
    assert done[-1].report is not None, "who ends last writes the report"
    assert all(one.report is None and one.left for one in done[:-1] if one.left)
    assert len(records(memory)) == 3


@pytest.mark.parametrize("pair", [(0, 3), (4, 3)])
def test_a_part_that_there_is_not(pair: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="not a shard"):
        Shard(*pair)


class Losing(Here):
    """Loses the worker of some calls."""

    def __init__(self, losses: int, error: Exception) -> None:
        super().__init__()
        self.losses, self.error = losses, error

    def submit(self, function: Any, *arguments: Any) -> Any:
        def lost(*_: Any) -> None:
            raise self.error

        self.losses -= 1
        return super().submit(lost if self.losses >= 0 else function, *arguments)


def _one(zoo: Path) -> Sequence[Model]:
    return [model for model in found(zoo) if "folds" in model.url]


@pytest.mark.usefixtures("here")
def test_a_lost_worker_costs_no_model(zoo: Path, memory: Any) -> None:
    assert run(plan(), _one(zoo), Losing(ATTEMPTS - 1, RuntimeError("killed")))
    assert records(memory)["folds.onnx"]["state"] == "done"


@pytest.mark.usefixtures("here")
def test_a_model_that_loses_every_worker_is_a_result(zoo: Path, memory: Any) -> None:
    done: Outcome = run(plan(), _one(zoo), Losing(ATTEMPTS, RuntimeError("killed")))
    assert not done
    assert records(memory)["folds.onnx"]["why"] == f"its worker ended {ATTEMPTS} times: killed"
    assert run(plan(), _one(zoo), Here(), resume=True), "it is asked again"


@pytest.mark.usefixtures("here", "memory")
def test_workers_without_bnfold_end_the_run(zoo: Path) -> None:
    with pytest.raises(BnfoldError, match="cannot import what they need: No module named 'bnfold'") as error:
        run(plan(), _one(zoo), Losing(9, ModuleNotFoundError("No module named 'bnfold'")))
    assert "pip install" in error.value.fix


def test_two_coordinators_do_no_harm(here: Here, zoo: Path, memory: Any) -> None:
    """The second begins when the first has one result; both go to the end."""
    models = found(zoo)
    second: list[Outcome] = []

    class Meeting(Here):
        def submit(self, function: Any, *arguments: Any) -> Any:
            if len(self.models) == 1:
                second.append(run(plan(), models, here, resume=True))
            return super().submit(function, *arguments)

    first = run(plan(), models, Meeting())
    assert first.report is not None
    assert second[0].report is not None
    assert {**first.report, "measured": 0} == {**second[0].report, "measured": 0}
    assert len(records(memory)) == len(list(Results(plan()).listed())) == 3


def test_the_cache_is_that_of_check(here: Here, zoo: Path, tmp_path: Path, memory: Any) -> None:
    import bnfold

    models = [model for model in found(zoo, "check") if "folds" in model.url]
    run(plan("check", cache=str(tmp_path)), models, here)
    checked = bnfold.check(str(zoo / "a"), cache=tmp_path)
    assert checked.remembered == 1
    [found_] = records(memory)["folds.onnx"]["findings"]
    assert [one.code for one in checked.findings] == [found_["code"]]


def test_a_hostile_answer_says_nothing_of_other_models(
    here: Here, zoo: Path, memory: Any, monkeypatch
) -> None:
    answer = {"state": "done", "verdict": "folded", "path": "s3://bank/other.onnx", "size": -1, "output": "x"}
    monkeypatch.setattr(alone, "run", lambda *_, **__: Ended(answer, "well"))
    run(plan(), _one(zoo), here)
    record = records(memory)["folds.onnx"]
    assert (record["verdict"], record["output"]) == ("folded", None)
    assert record["size"] > 0


@pytest.mark.usefixtures("here")
def test_what_the_process_gets_opens_no_store(zoo: Path, memory: Any, monkeypatch) -> None:
    """It has files, and of the address what people may see."""
    jobs: list[Job] = []
    real = alone.run

    def noted(unit: str, job: Job, **limits: Any) -> Ended:
        jobs.append(job)
        return real(unit, job, **limits)

    monkeypatch.setattr(alone, "run", noted)
    memory.put_file(str(zoo / "a" / "folds.onnx"), "/zoo/net.onnx")
    [model] = found("memory://zoo")
    hidden = replace(model, url="memory://me:word@/zoo/net.onnx")
    worker.serve(plan(), hidden)
    assert "word" not in repr(hidden)
    assert all("word" not in repr(job) for job in jobs)
    assert "word" not in b"".join(memory.cat(memory.find("/out")).values()).decode()
