"""What a worker does with one model: fetch it, have it looked at, store what comes of it.

An engine calls [`serve`][bnfold.fleet.worker.serve] in a process that reaches the network. The process that
reads the model has files alone, and none of what opens a store.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from bnfold.errors import BnfoldError, MissingExtraError
from bnfold.fleet import advice, alone, transport
from bnfold.fleet.plan import QUIET, Model, Plan
from bnfold.fleet.process_server import Ended
from bnfold.fleet.results import SCHEMA, Record, Results, next_to
from bnfold.fleet.sources import identity
from bnfold.fleet.work import Job

_MOST_FILES = 10_000  # of one model
_ANSWERS = frozenset(
    {"state", "verdict", "why", "content", "key", "findings", "batchnorms", "nodes", "bytes", "reasons"}
    | {"latency", "rolled_back"}
)
"""What the process of a model may say: a hostile file has no say in what was asked."""


@dataclass(frozen=True)
class Brief:
    """What the coordinator needs to know at once; all else is in the stored result.

    Attributes:
        name: Of the result.
        state: Of the record.
        verdict: Of the record.
    """

    name: str
    state: str
    verdict: str | None


def serve(plan: Plan, model: Model) -> Brief:
    """Do what a plan wants with one model, and store the result.

    Raises:
        WorkerLostError: What was to start the model's process has ended; nothing was stored.
        BnfoldError: The result could not be stored, or a package is missing on this worker.
    """
    record = _blank(plan, model)
    begin = time.monotonic()
    measured: Record = {"host": platform.node()}
    try:
        record |= _looked_at(plan, model, measured, record["files"])
    except MissingExtraError as error:  # which cannot be pickled
        raise BnfoldError(f"On the worker {platform.node()}, {error.problem}", error.fix) from None
    except transport.TransportError as error:
        record |= {"state": "unreachable", "why": error.problem}
    except OSError as error:  # of the folder that models are copied to
        record |= {"state": "unreachable", "why": f"This worker could not keep a copy: {error.strerror}."}
    record["why"] = transport.cleaned(record["why"], model.url)
    record["measured"] = {**measured, "worker_seconds": round(time.monotonic() - begin, 3)}
    Results(plan).put(model, record)
    return Brief(plan.name_of(model), record["state"], record["verdict"])


def lost(plan: Plan, model: Model, why: str) -> Brief:
    """Store that a model was never looked at to the end, however often it was given to a worker."""
    record = {
        **_blank(plan, model),
        "state": "lost",
        "why": transport.cleaned(why, model.url),
        "measured": {},
    }
    Results(plan).put(model, record)
    return Brief(plan.name_of(model), "lost", None)


def _blank(plan: Plan, model: Model) -> Record:
    """A record that says only what was asked."""
    return {
        "schema": SCHEMA,
        "path": model.path,
        "command": plan.command,
        "options": plan.options_of(model),
        "inputs": plan.inputs_of(model),
        "size": model.size,
        "files": {},
        **dict.fromkeys(("verdict", "content", "key", "output")),
        "why": "",
    }


def _looked_at(plan: Plan, model: Model, measured: Record, files: dict[str, str]) -> Record:
    """What is found out about a model.

    Args:
        plan: What is wanted.
        model: Of which.
        measured: Gets what it took.
        files: Gets the identities of the further files that it needed, by name.
    """
    if plan.options_of(model).get("only-if-faster") and not os.environ.get(QUIET):
        return {"state": "unable", "why": f"This worker does not say that it is quiet, by {QUIET}=1."}
    with TemporaryDirectory(prefix="bnfold-fleet-") as scratch:
        folder, here = Path(scratch, "in"), transport.local(model.url)
        folder.mkdir()
        file = here or folder / _plain(model.url)
        if here is None:
            transport.fetch(model.url, file)
            measured["fetched"] = file.stat().st_size
        elif not here.exists():
            raise transport.TransportError(f"{model.path} could not be fetched: it is not there.")
        target = Path(scratch, "out", Path(model.name).name)
        target.parent.mkdir()
        job = _job(plan, model, file, target, is_complete=here is not None)
        if job.options.get("bench"):
            measured["is_quiet"] = True
        ended = _alone(plan, model, job)
        if ended.answer and "wants" in ended.answer:
            _fetch_further(model, folder, ended.answer["wants"], measured, files)
            ended = _alone(plan, model, _job(plan, model, file, target, is_complete=True))
        measured |= {
            "seconds": round(ended.seconds, 3),
            "processor_seconds": round(ended.processor_seconds, 3),
            "memory": ended.memory,
        }
        if ended.how != "well":
            return {"state": ended.how, "why": f"Its process {ended.why}."}
        for name in ended.answer.get("needs", [])[:_MOST_FILES]:  # of a model that was read where it is
            files.setdefault(str(name), identity(next_to(model.url, str(name))))
        answer: Record = {key: value for key, value in ended.answer.items() if key in _ANSWERS}
        if answer["state"] == "needs":
            answer["next"] = _next(ended.answer.get("next"))
        if target.is_file():
            answer["output"] = _store(plan, model, target)
        return answer


def _next(said: Any) -> Record:
    """The command and the options that a model needs, of what its process has said."""
    given = advice.options(said.get("options") if isinstance(said, dict) else None)
    return {"command": "export", "options": given}


def _job(plan: Plan, model: Model, file: Path, target: Path, *, is_complete: bool) -> Job:
    given = plan.options_of(model)
    if not os.environ.get(QUIET):
        given.pop("bench", None)
    return Job(
        plan.command,
        file,
        model.path,
        target,
        given,
        plan.inputs_of(model),
        plan.settings,
        Path(plan.cache) if plan.cache else None,
        is_complete,
    )


def _alone(plan: Plan, model: Model, job: Job) -> Ended:
    limits = plan.limits
    with _only_one_on_this_host() if job.options.get("bench") else contextlib.nullcontext():
        return alone.run(plan.unit_of(model), job, seconds=limits.seconds, memory=limits.memory)


@contextlib.contextmanager
def _only_one_on_this_host() -> Iterator[None]:
    """Wait until no other worker of this host takes a time."""
    import fcntl

    with Path(gettempdir(), f"bnfold-fleet-{os.getuid()}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch_further(
    model: Model, folder: Path, names: list[Any], measured: Record, files: dict[str, str]
) -> None:
    """Copy what a model names next to it, as far as it is there; a name comes from a hostile file."""
    for name in map(str, names[:_MOST_FILES]):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            continue
        url = next_to(model.url, name)
        files[name] = identity(url)
        if not files[name]:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        transport.fetch(url, target)
        measured["fetched"] += target.stat().st_size


def _store(plan: Plan, model: Model, target: Path) -> str:
    """Store what was written, with the files of its external data; the model comes last."""
    url = transport.joined(plan.out, f"models/{model.name}")
    for further in sorted(target.parent.iterdir()):
        if further != target:
            transport.store(further, next_to(url, further.name))
    transport.store(target, url)
    return transport.shown(url)


def _plain(url: str) -> str:
    """The name of the copy: the model's own, which external data and messages may refer to."""
    name = transport.links(url)[0].partition("?")[0].rstrip("/").rpartition("/")[2]
    return name if name not in ("", ".", "..") else "model"
