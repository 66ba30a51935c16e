"""Asking the rules about one file; this runs in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.errors import BnfoldError, InputError, MissingExtraError, reason
from bnfold.files.weight_index import file_of
from bnfold.gate.against import Earlier
from bnfold.gate.cache import Cache, key
from bnfold.gate.finding import Finding, Found
from bnfold.gate.pool import NotAnswered
from bnfold.gate.rule import Rule
from bnfold.gate.settings import Settings, Source
from bnfold.gate.subject import Subject

_NOT_KEPT = frozenset({"M300", "M301", "M304", "M305"})  # they depend on more than the content of the model
_TIMED = "M405"  # as does this one, also where it finds nothing
_CODE = frozenset({"arch", "allow", "trust"})  # a source that is read with these is what code makes of it
_NO_CACHE = Cache(None)


@dataclass(frozen=True)
class Job:
    """One file to be asked about.

    Attributes:
        path: The file.
        name: What findings call it.
        codes: The rules to ask.
        settings: What is demanded of it.
        source: What it was made from, if that is known.
        earlier: What it was before, if that is asked.
        before: Where that has yet to be looked up.
    """

    path: Path
    name: str
    codes: tuple[str, ...]
    settings: Settings
    source: Source | None = None
    earlier: Path | None = None
    before: Earlier | None = None


@dataclass(frozen=True)
class Answer:
    """What is found in one file.

    Attributes:
        findings: In the order of their codes.
        remembered: Whether an earlier check found it.
    """

    findings: list[Finding]
    remembered: bool = False


def ask(job: Job, store: Cache = _NO_CACHE, versions: tuple[object, ...] = ()) -> Answer | NotAnswered:
    """Ask every rule of a job, whatever happens on the way.

    Args:
        job: The file and the codes.
        store: What earlier checks found.
        versions: What else decides an answer.
    """
    try:
        if job.before is not None:
            try:
                job = replace(job, earlier=job.before.of(job.path), before=None)
            except InputError as error:  # what it was is not here, and what to type says so
                return NotAnswered(error.problem, error.fix)
        return recall(job, store, versions)
    except MissingExtraError as error:
        return NotAnswered(error.problem, error.fix)
    except MemoryError:
        return NotAnswered("there was not enough memory")
    except BnfoldError as error:
        return NotAnswered(reason(error))
    except Exception as error:  # a fault of bnfold's in one model says nothing of the others
        return NotAnswered(f"bnfold did not foresee {type(error).__name__}: {reason(error)}")


def recall(job: Job, store: Cache, versions: tuple[object, ...], subject: Subject | None = None) -> Answer:
    """What was found in the same content before, or else what is found now, which is kept.

    Args:
        job: The file and the codes.
        store: What earlier checks found.
        versions: What else decides an answer.
        subject: The file of the job, for callers who want to know more of it.
    """
    if store.folder is None:
        return Answer(answer(job, subject))
    name = name_of(job, versions, store.digest)
    if name is not None and (kept := store.get(name)) is not None:
        return Answer([replace(one, path=job.name) for one in kept], remembered=True)
    findings = answer(job, subject)
    if name is not None and not _NOT_KEPT & {one.code for one in findings}:
        again = name_of(job, versions, store.digest)  # a file may have changed while it was looked at
        if name == again:
            store.put(name, findings)
    return Answer(findings)


def name_of(job: Job, versions: tuple[object, ...], digest: Callable[[Path], str | None]) -> str | None:
    """The name under which an answer is kept.

    Args:
        job: The question.
        versions: What else decides an answer.
        digest: Gives the hash of a file's content.

    Returns:
        None where contents alone do not decide the answer, or are not known.
    """
    reading = dict(job.source.reading) if job.source else {}
    if job.before is not None or _CODE & reading.keys() or (job.earlier and _TIMED in job.codes):
        return None
    others = [file_of(job.source.file)] if job.source else []
    others += [job.earlier] if job.earlier else []
    others += [job.settings.validation.inputs] if others and job.settings.validation.inputs else []
    digests = [digest(path) for path in (job.path, *others)]
    if None in digests:
        return None
    validation = replace(job.settings.validation, inputs=None)
    demanded = (job.settings.limits, validation, *_profiles(job.settings.targets))
    return key((versions, job.codes, demanded, reading, digests, bool(job.source), bool(job.earlier)))


def _profiles(targets: tuple[str, ...]) -> Iterator[object]:
    """What targets demand, which decides an answer; nothing is loaded where there are none."""
    if targets:
        from bnfold.targets.profile import load

        yield from map(load, targets)


def answer(job: Job, subject: Subject | None = None) -> list[Finding]:
    """Ask every rule of a job that makes sense for its file.

    Args:
        job: The file and the codes.
        subject: The file of the job, if the caller has one.

    Returns:
        What was found, in the order of the codes.

    Raises:
        MissingExtraError: A rule needs a package that is not installed.
    """
    from bnfold.gate.rules import RULES

    subject = subject or Subject(job.path, job.settings, job.source, job.earlier)
    findings = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of readers, about files that rules speak of themselves
        for code in job.codes:
            rule = RULES[code]
            if _makes_sense(rule, subject):
                findings += [finding(job.name, rule, found) for found in _asked(rule, subject)]
    return findings


def finding(name: str, rule: Rule, found: Found) -> Finding:
    """What a rule found, as a finding in the file of a name."""
    return Finding(name, rule.code, found, rule.severity, rule.fixable)


def _makes_sense(rule: Rule, subject: Subject) -> bool:
    if rule.needs == "file":
        return True
    if subject.problem is not None:
        return False
    return {
        "weights": True,
        "graph": subject.is_onnx,
        "source": subject.is_onnx and subject.source is not None,
        "earlier": subject.is_onnx and subject.earlier is not None,
    }[rule.needs]


def _asked(rule: Rule, subject: Subject) -> Iterator[Found]:
    try:
        yield from rule.look(subject)
    except (MissingExtraError, MemoryError):  # they say nothing of the model
        raise
    except BnfoldError as error:  # of a comparison, most often: the source cannot be read
        yield Found(
            f"{rule.title}, or that could not be found out: {' '.join(error.problem.split()).rstrip('.')}"
        )
