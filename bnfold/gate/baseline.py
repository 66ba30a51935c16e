"""Findings that are accepted: a file that lists them by model, code and site."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import InputError, reason
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.gate.finding import Finding

_VERSION = 1
Known = dict[str, dict[str, list[str]]]  # the sites, by path and code


@dataclass(frozen=True)
class Sifted:
    """Findings with the accepted ones taken out.

    Attributes:
        new: The findings that fail, each about its new sites only.
        accepted: How many sites were accepted.
        gone: What a baseline lists and nothing has any more, as (path, code, site).
    """

    new: tuple[Finding, ...]
    accepted: int
    gone: tuple[tuple[str, str, str], ...]


def write(findings: Iterable[Finding], path: Path, others: Known | None = None) -> None:
    """Accept these findings.

    Args:
        findings: All of them.
        path: The file to write.
        others: What is accepted in files that were not looked at, and stays so.

    Raises:
        SaveError: The file could not be written.
    """
    known: Known = dict(others or {})
    for finding in sorted(findings):
        sites = known.setdefault(finding.path, {}).setdefault(finding.code, [])
        sites.extend(site for site in finding.sites if site not in sites)
    text = json.dumps({"version": _VERSION, "accepted": known}, indent=2, sort_keys=True) + "\n"
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(text.encode())


def read(path: Path) -> Known:
    """The accepted findings of a file.

    Raises:
        InputError: It is not there, or not a baseline.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise InputError(
                f"{path} is a baseline of version {content['version']}, and {_VERSION} is known here.",
                "Write it again with --write-baseline.",
            )
        known: Known = content["accepted"]
        for sites in (sites for codes in known.values() for sites in codes.values()):
            if not isinstance(sites, list) or not all(isinstance(site, str) for site in sites):
                raise TypeError
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {reason(error)}.", f"Write it first: --write-baseline {path}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a baseline.", "Write it again with --write-baseline.") from error
    return known


def sift(findings: Iterable[Finding], known: Known, checked: Iterable[str]) -> Sifted:
    """Take the accepted findings out.

    Args:
        findings: All of them.
        known: The accepted ones.
        checked: The paths that were looked at or are not there any more: what is accepted in other files is
            not gone.
    """
    new, left = [], {path: {code: set(s) for code, s in codes.items()} for path, codes in known.items()}
    accepted = 0
    for finding in findings:
        have = known.get(finding.path, {}).get(finding.code, [])
        fresh = [site for site in finding.sites if site not in have]
        accepted += len(finding.sites) - len(fresh)
        left.get(finding.path, {}).get(finding.code, set()).difference_update(finding.sites)
        if fresh:
            new.append(finding.of(fresh))
    looked_at = set(checked)
    gone = [
        (path, code, site)
        for path, codes in left.items()
        if path in looked_at
        for code, sites in codes.items()
        for site in sites
    ]
    return Sifted(tuple(new), accepted, tuple(sorted(gone)))
