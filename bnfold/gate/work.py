"""Asking the rules about one file; this runs in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import BnfoldError, MissingExtraError, reason
from bnfold.gate.finding import Finding, Found
from bnfold.gate.rule import Rule
from bnfold.gate.settings import Settings, Source
from bnfold.gate.subject import Subject


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
    """

    path: Path
    name: str
    codes: tuple[str, ...]
    settings: Settings
    source: Source | None = None
    earlier: Path | None = None


@dataclass(frozen=True)
class NotAnswered:
    """Why a file has no answer; plain texts, since not every exception can travel from process to process.

    Attributes:
        why: What went wrong: the end of a sentence, or a whole one where there is a `fix`.
        fix: What to type; empty but where a package is missing, without which no file can be asked.
    """

    why: str
    fix: str = ""


def ask(job: Job) -> list[Finding] | NotAnswered:
    """Ask every rule of a job, whatever happens on the way."""
    try:
        return answer(job)
    except MissingExtraError as error:
        return NotAnswered(error.problem, error.fix)
    except MemoryError:
        return NotAnswered("there was not enough memory")
    except BnfoldError as error:
        return NotAnswered(reason(error))
    except Exception as error:  # a fault of bnfold's in one model says nothing of the others
        return NotAnswered(f"bnfold did not foresee {type(error).__name__}: {reason(error)}")


def answer(job: Job) -> list[Finding]:
    """Ask every rule of a job that makes sense for its file.

    Args:
        job: The file and the codes.

    Returns:
        What was found, in the order of the codes.

    Raises:
        MissingExtraError: A rule needs a package that is not installed.
    """
    from bnfold.gate.rules import RULES

    subject = Subject(job.path, job.settings, job.source, job.earlier)
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
