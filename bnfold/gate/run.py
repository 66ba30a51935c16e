"""The whole check: files, rules, processes, what is remembered and what is accepted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import TimeoutError as TooLong
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache as once
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

from bnfold._version import __version__
from bnfold.errors import BnfoldError
from bnfold.files.weight_index import file_of
from bnfold.gate import against, baseline
from bnfold.gate.cache import Cache, key
from bnfold.gate.configuration import Configuration, nearest
from bnfold.gate.discover import discover
from bnfold.gate.finding import Finding, Found
from bnfold.gate.work import Job, NotAnswered, ask, finding

_NOT_KEPT = frozenset({"M300", "M301", "M304", "M305"})  # they depend on more than the content of the model
_TIMED = "M405"  # as does this one, also where it finds nothing
_CODE = frozenset({"arch", "allow", "trust"})  # a source that is read with these is what code makes of it
_DECIDING = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch")


@dataclass(frozen=True)
class Checked:
    """The outcome of [`bnfold.check`][bnfold.gate.run.check]. Its truth value is its verdict.

    Attributes:
        findings: What was found and is not accepted, in the order of paths and codes.
        files: The files that were looked at, as findings name them.
        paths: Where each of these files is.
        remembered: How many answers came from the cache.
        accepted: How many findings a baseline accepts.
        gone: What a baseline lists and nothing has any more, as (path, code, site).
        all: The findings before any were accepted.
    """

    findings: tuple[Finding, ...]
    files: tuple[str, ...]
    paths: tuple[Path, ...]
    remembered: int
    accepted: int
    gone: tuple[tuple[str, str, str], ...]
    all: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return not any(finding.severity != "note" for finding in self.findings)


def check(
    paths: str | Iterable[str] = ".",
    configuration: Configuration | None = None,
    *,
    jobs: int | None = None,
    cache: Path | None = None,
    earlier: str | None = None,
    accepted: Path | None = None,
    time_limit: float = 600.0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Checked:
    """Ask the rules about every model.

    Args:
        paths: Files, folders and patterns; one may be a text.
        configuration: The settings, and the folder that names are relative to; None looks for
            the nearest file with them, from the current folder upwards.
        jobs: How many files are looked at side by side; None takes the number of CPUs.
        cache: The folder in which answers are kept; None keeps nothing.
        earlier: What models were before: a folder, a file, or `"git:REVISION"`.
        accepted: A baseline, whose findings do not count.
        time_limit: Seconds for one file, after which its process is ended.
        progress: Called with the number of files that are done, and of all.

    Raises:
        InputError: A path, a revision or the baseline is not there or not right.
        BnfoldError: A rule that is asked needs a package that is not installed.
    """
    configuration = configuration or nearest(Path.cwd())
    paths = [paths] if isinstance(paths, str) else paths
    known = baseline.read(accepted) if accepted else {}
    files = discover(paths, configuration.settings)
    store = Cache(cache)
    with against.earlier(earlier, configuration.root) if earlier else nullcontext() as before:
        asked = [_job(path, configuration, before) for path in files]
        keys = [_key(job, store) if cache else None for job in asked]
        found = {at: kept for at, name in enumerate(keys) if name and (kept := store.get(name)) is not None}
        found = {at: [replace(one, path=asked[at].name) for one in kept] for at, kept in found.items()}
        remembered = len(found)
        progress(remembered, len(asked))
        left = sorted(set(range(len(asked))) - found.keys(), key=lambda at: -_size(asked[at].path))
        for at, findings in _answers(asked, left, jobs or os.cpu_count() or 1, time_limit):
            found[at] = findings
            # a file may have changed while it was looked at
            if (name := keys[at]) and _is_kept(findings) and name == _key(asked[at], store):
                store.put(name, findings)
            progress(len(found), len(asked))
    every = tuple(one for at in sorted(found) for one in found[at])
    names = tuple(job.name for job in asked)
    sifted = baseline.sift(every, known, names)
    places = tuple(job.path.absolute() for job in asked)
    return Checked(sifted.new, names, places, remembered, sifted.accepted, sifted.gone, every)


def _is_kept(findings: Iterable[Finding]) -> bool:
    return not any(one.code in _NOT_KEPT for one in findings)


def _job(path: Path, configuration: Configuration, before: against.Earlier | None) -> Job:
    from bnfold.gate.rules import RULES

    settings, name = configuration.settings, named(path, configuration.root)
    codes = settings.codes(name)
    wants = {RULES[code].needs for code in codes}
    source = settings.source(name) if "source" in wants else None
    earlier = before.of(path) if before is not None and "earlier" in wants else None
    return Job(path, name, codes, settings, source, earlier)


def named(path: Path, root: Path) -> str:
    """A path as findings name it: relative to a folder if it is in it, with forward slashes."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link keeps the name that the user gave it
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else path).as_posix()


def _key(job: Job, store: Cache) -> str | None:
    """The name of an answer; None where it cannot be known from contents alone."""
    reading = dict(job.source.reading) if job.source else {}
    if _CODE & reading.keys() or (job.earlier and _TIMED in job.codes):
        return None
    others = [file_of(job.source.file)] if job.source else []
    others += [job.earlier] if job.earlier else []
    others += [job.settings.validation.inputs] if others and job.settings.validation.inputs else []
    digests = [store.digest(path) for path in (job.path, *others)]
    if None in digests:
        return None
    demanded = (job.settings.limits, replace(job.settings.validation, inputs=None))
    return key((_versions(), job.codes, demanded, reading, digests, bool(job.source), bool(job.earlier)))


@once
def _versions() -> tuple[object, ...]:
    """What else decides an answer: the versions, and the code of bnfold itself, which may be a working copy.

    Its times would not do: every installation has others, and a cache is shared by machines.
    """
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    return (__version__, code.hexdigest(), *map(_version, _DECIDING))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _answers(
    asked: Sequence[Job], left: Sequence[int], jobs: int, limit: float
) -> Iterator[tuple[int, list[Finding]]]:
    """The answers by place, as they come."""
    if not left:
        return
    from pebble import ProcessExpired, ProcessPool

    jobs = min(jobs, len(left))
    with ProcessPool(jobs, context=get_context("spawn"), initializer=_quiet) as pool:
        waiting = {at: pool.schedule(ask, (asked[at],), timeout=limit) for at in left}
        try:
            for at, future in waiting.items():
                try:
                    outcome = future.result()
                except TooLong:
                    outcome = NotAnswered(f"it took more than {limit:g} s")
                except ProcessExpired as error:
                    outcome = NotAnswered(f"its process ended with {error.exitcode}")
                yield at, _failed(asked[at], outcome) if isinstance(outcome, NotAnswered) else outcome
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _failed(job: Job, outcome: NotAnswered) -> list[Finding]:
    from bnfold.gate.rules import RULES

    if outcome.fix:
        raise BnfoldError(outcome.why, outcome.fix)
    found = Found(f"the file could not be checked: {outcome.why}")
    return [finding(job.name, RULES["M300"], found)] if "M300" in job.codes else []


def _quiet() -> None:
    """Leave interrupts to the process that waits, and one thread to each process that works."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
