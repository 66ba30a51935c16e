"""The whole check: files, rules, processes, what is remembered and what is accepted."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache as once
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from bnfold._version import __version__
from bnfold.display.shown import Shown, counted
from bnfold.errors import BnfoldError
from bnfold.gate import against, baseline
from bnfold.gate.cache import Cache
from bnfold.gate.configuration import Configuration, nearest
from bnfold.gate.discover import discover
from bnfold.gate.finding import Finding, Found
from bnfold.gate.pool import NotAnswered, outcomes
from bnfold.gate.work import Answer, Job, ask, finding, name_of

if TYPE_CHECKING:
    from bnfold.display.plots import Bar

_DECIDING = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch")


@dataclass(frozen=True, repr=False)
class Checked(Shown):
    """The outcome of [`bnfold.check`][bnfold.api.check.check]. It is true if nothing was found but notes.

    Attributes:
        findings: What was found and is not accepted, in the order of paths and codes.
        files: The files that were looked at, as findings name them.
        paths: Where each of these files is; where it was, for a model in memory.
        remembered: How many answers came from the cache.
        accepted: How many findings a baseline accepts.
        gone: What a baseline lists and nothing has any more, as (path, code, site).
        all: The findings before any were accepted.
        ignored: How many models of folders were passed over since git ignores them.
    """

    findings: tuple[Finding, ...]
    files: tuple[str, ...]
    paths: tuple[Path, ...]
    remembered: int
    accepted: int
    gone: tuple[tuple[str, str, str], ...]
    all: tuple[Finding, ...]
    ignored: int = 0

    axis: ClassVar[str] = "findings"

    @property
    def headline(self) -> str:
        """How much was found in how many models."""
        serious = sum(finding.severity != "note" for finding in self.findings)
        notes = len(self.findings) - serious
        more = counted({"accepted": self.accepted, "notes": notes})
        models = f"{len(self.files)} model{'' if len(self.files) == 1 else 's'}"
        found = f"{serious} finding{'' if serious == 1 else 's'}" if serious else "Nothing found"
        return f"{found} in {models}{f' ({more})' if more else ''}."

    def records(self) -> list[dict[str, Any]]:
        """A row for each finding."""
        return [
            {
                "path": one.path,
                "code": one.code,
                "severity": one.severity,
                "found": one.found.headline,
                "sites": ", ".join(one.found.sites),
                "fixable": one.fixable,
            }
            for one in self.findings
        ]

    def bars(self) -> Sequence[Bar]:
        """How often each rule found something."""
        from bnfold.display.plots import Bar

        codes = Counter(one.code for one in self.findings)
        return [Bar(code, number) for code, number in codes.most_common()]

    @property
    def looked_at(self) -> frozenset[str]:
        """The files of which everything is known: they were looked at, or a baseline names them in vain."""
        return frozenset((*self.files, *(path for path, _, _ in self.gone)))

    def __bool__(self) -> bool:
        return not any(finding.severity != "note" for finding in self.findings)


def check(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ".",
    configuration: Configuration | None = None,
    *,
    jobs: int | None = None,
    cache: Path | None = None,
    earlier: str | None = None,
    accepted: Path | None = None,
    time_limit: float = 600.0,
    progress: Callable[[int, int], None] = lambda *_: None,
    called: Mapping[Path, str] = MappingProxyType({}),
) -> Checked:
    """Ask the rules about every model that is in a file.

    Args:
        paths: Files, folders and patterns, or one of them.
        configuration: The settings, and the folder that names are relative to; None looks for
            the nearest file with them, from the current folder upwards.
        jobs: How many files are looked at side by side; None takes the number of CPUs.
        cache: The folder in which answers are kept; None keeps nothing.
        earlier: What models were before: a folder, a file, or `"git:REVISION"`.
        accepted: A baseline, whose findings do not count.
        time_limit: Seconds for one file, after which its process is ended.
        progress: Called with the number of files that are done, and of all.
        called: What findings call files that they would not name by their path.

    Raises:
        InputError: A path, a revision or the baseline is not there or not right.
        BnfoldError: A rule that is asked needs a package that is not installed.
    """
    configuration = configuration or nearest(Path.cwd())
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    known = baseline.read(accepted) if accepted else {}
    discovered = discover(paths, configuration.settings, configuration.root)
    files = discovered.files
    store, versions = Cache(cache), _versions() if cache else ()
    with against.earlier(earlier, configuration.root) if earlier else nullcontext() as before:
        asked = [
            _job(path, called.get(path) or named(path, configuration.root), configuration, before, store)
            for path in files
        ]
        found = dict(_remembered(asked, store, versions))
        remembered = len(found)
        progress(remembered, len(asked))
        left = sorted(set(range(len(asked))) - found.keys(), key=lambda at: -_size(asked[at].path))
        for at, answer in _answers(asked, left, store, versions, jobs or os.cpu_count() or 1, time_limit):
            found[at] = answer.findings
            remembered += answer.remembered
            progress(len(found), len(asked))
    store.prune()
    every = tuple(one for at in sorted(found) for one in found[at])
    names = tuple(job.name for job in asked)
    places_of = {name: (configuration.root / name, Path(name)) for name in known}
    deleted = [name for name, where in places_of.items() if not any(map(os.path.lexists, where))]
    sifted = baseline.sift(every, known, (*names, *deleted))
    places = tuple(job.path.absolute() for job in asked)
    judged = (sifted.accepted, sifted.gone, every, discovered.ignored)
    return Checked(sifted.new, names, places, remembered, *judged)


def _remembered(
    asked: Sequence[Job], store: Cache, versions: tuple[object, ...]
) -> Iterator[tuple[int, list[Finding]]]:
    """The answers that are there without a look into any model: nothing has touched its files."""
    for at, job in enumerate(asked):
        name = name_of(job, versions, store.known) if store.folder else None
        if name and (kept := store.get(name)) is not None:
            yield at, [replace(one, path=job.name) for one in kept]


def _job(
    path: Path, name: str, configuration: Configuration, before: against.Earlier | None, store: Cache
) -> Job:
    from bnfold.gate.rules import RULES

    settings = configuration.settings
    codes = settings.codes(name)
    wants = {RULES[code].needs for code in codes}
    source = settings.source(name) if "source" in wants else None
    if before is None or "earlier" not in wants:
        return Job(path, name, codes, settings, source)
    if not before.revision:
        return Job(path, name, codes, settings, source, before.of(path))
    same = before.is_same(path, store.files(path))
    return Job(path, name, codes, settings, source, before=None if same else before.alone())


def named(path: Path, root: Path) -> str:
    """A path as findings name it: relative to a folder if it is in it, with forward slashes."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link keeps the name that the user gave it
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else path).as_posix()


def deciding() -> tuple[object, ...]:
    """The versions that decide an answer, next to what is asked and the content of the model."""
    return _versions()


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
    asked: Sequence[Job],
    left: Sequence[int],
    store: Cache,
    versions: tuple[object, ...],
    jobs: int,
    limit: float,
) -> Iterator[tuple[int, Answer]]:
    """The answers by place, as they come."""
    for at, outcome in outcomes(ask, {at: (asked[at], store, versions) for at in left}, jobs, limit):
        yield at, Answer(_failed(asked[at], outcome)) if isinstance(outcome, NotAnswered) else outcome


def _failed(job: Job, outcome: NotAnswered) -> list[Finding]:
    from bnfold.gate.rules import RULES

    if outcome.fix:
        raise BnfoldError(outcome.why, outcome.fix)
    found = Found(f"the file could not be checked: {outcome.why}")
    return [finding(job.name, RULES["M300"], found)] if "M300" in job.codes else []
