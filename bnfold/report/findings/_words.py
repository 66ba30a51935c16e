"""Findings in words, and what identifies them, for several formats."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bnfold.display.visible import visible
from bnfold.errors import ModelError, listed
from bnfold.gate.finding import Finding
from bnfold.gate.run import Checked
from bnfold.report.unasked import UNREADABLE, not_looked_for

_SITES = 3
_BREAKS = str.maketrans("\n\t", "\N{SYMBOL FOR NEWLINE}\N{SYMBOL FOR HORIZONTAL TABULATION}")


def line(text: str) -> str:
    """A text of a model, or the name of a file, as part of one line: it may hold any character."""
    return visible(text).translate(_BREAKS)


def sentence(finding: Finding, most: int = _SITES) -> str:
    """What was found and where, on one line."""
    sites = finding.found.sites
    where = f": {listed(sites, most)}" if sites else ""
    return line(f"{finding.found.headline}{where}")


def fingerprint(finding: Finding) -> str:
    """The same for the same finding in every run: of the file, the code and the sites."""
    parts = "\0".join((finding.path, finding.code, *finding.sites))
    return hashlib.sha256(parts.encode(errors="surrogatepass")).hexdigest()


def summary(checked: Checked) -> str:
    """The outcome in one line."""
    files = f"{len(checked.files)} model{'s' * (len(checked.files) != 1)}"
    count = len(checked.findings)
    fixable = sum(finding.fixable for finding in checked.findings)
    parts = [f"{count or 'No'} finding{'s' * (count != 1)} in {files}"]
    parts += [f"{fixable} fixable with --fix"] if fixable else []
    parts += [f"{checked.accepted} accepted by the baseline"] if checked.accepted else []
    ignored = f"{checked.ignored} model{'s' * (checked.ignored != 1)}"
    more = f" {ignored} that git ignores passed over." if checked.ignored else ""
    return f"{', '.join(parts)}.{more}{not_looked_for(_torch_files(checked))}"


def _torch_files(checked: Checked) -> int:
    unread = {one.path for one in checked.all if one.code in UNREADABLE}
    named = zip(checked.files, checked.paths, strict=True)
    return sum(_is_torch(path) for name, path in named if name not in unread)


def _is_torch(path: Path) -> bool:
    """Whether a file that was checked is of PyTorch; one that cannot be read has a finding that says so."""
    from bnfold.pipeline.read import is_torch

    try:
        return is_torch(path)
    except ModelError:
        return False


def gone(checked: Checked) -> list[str]:
    """What the baseline lists for nothing, a line each."""
    return [
        line(f"{path}: {code} is in the baseline and not in the model any more{f': {site}' if site else ''}")
        for path, code, site in checked.gone
    ]
