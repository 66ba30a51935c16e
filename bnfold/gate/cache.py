"""What was found before, by content: a model that is the same everywhere is checked once.

An answer is a file whose name is the hash of all that decides it. So that the content of a model need not be
read to know that it is the same, its hash is kept with the size, the times and the inode of the files that it
was made from, as git's index does. A cache that cannot be read or written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold.files.atomic import hidden_next_to
from bnfold.gate.finding import Finding

_FORMAT = 1
_RACY = 2_000_000_000  # nanoseconds: a file may change once more within the resolution of its times
_FOREIGN = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
"""What reading a file raises that is not there, or that something else has written."""


@dataclass(frozen=True)
class Cache:
    """A folder of answers; None keeps nothing."""

    folder: Path | None

    def digest(self, path: Path) -> str | None:
        """The hash of a model's content, with its external data, or with the files that an index names.

        Args:
            path: The model.

        Returns:
            None where the model or its data cannot be read, so that its content does not say all of it.
        """
        name = str(path.absolute())
        place = self._place("stat", hashlib.sha256(os.fsencode(name)).hexdigest())
        known = self._read(place)
        with contextlib.suppress(*_FOREIGN):
            files = known["files"]
            if files[0][0] == name and all(_state(Path(file)) == state for file, state in files):
                return str(known["digest"])
        try:
            _state(path)  # before anything opens what is not a file
            files = [path, *sorted(_beside(path))]
            before = _states(files)
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            found = digest.hexdigest()
            if before == _states(files) and _settled(max(max(state[2:]) for _, state in before)):
                self._write(place, {"files": before, "digest": found})
        except Exception:  # a reader may raise anything; what is wrong is a finding of the process that asks
            return None
        return found

    def get(self, key: str) -> list[Finding] | None:
        """The findings of an earlier check; None where there was none."""
        from bnfold.gate.rules import RULES

        known = self._read(self._place("found", key))
        try:
            findings = [Finding.of_plain(one) for one in known["findings"]]
        except _FOREIGN:
            return None
        return findings if all(one.code in RULES for one in findings) else None

    def put(self, key: str, findings: Iterable[Finding]) -> None:
        """Keep the findings of a check."""
        self._write(self._place("found", key), {"findings": [finding.plain() for finding in findings]})

    def _place(self, kind: str, key: str) -> Path | None:
        return self.folder and self.folder / f"v{_FORMAT}" / kind / key[:2] / f"{key[2:]}.json"

    def _read(self, place: Path | None) -> Any:
        if place is None:
            return None
        try:
            return json.loads(place.read_bytes())
        except _FOREIGN:
            return None

    def _write(self, place: Path | None, content: Any) -> None:
        if place is None:
            return
        # a full disk or a read-only folder: it is found out again next time
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            if self.folder is not None and not (ignore := self.folder / ".gitignore").exists():
                ignore.write_text("*\n", encoding="utf-8")
            draft = hidden_next_to(place, f".{os.getpid()}")
            try:
                draft.write_text(json.dumps(content), encoding="utf-8")
                draft.replace(place)
            finally:
                draft.unlink(missing_ok=True)


def key(parts: Iterable[object]) -> str:
    """The name under which an answer is kept, of everything that decides it."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()


def _beside(path: Path) -> set[Path]:
    """The files without which a model is not whole.

    Raises:
        ExternalDataError: One is not there, or not to be read; what comes later changes the answer.
        ModelError: One that an index names is not there.
    """
    from bnfold.errors import ExternalDataError, ModelError
    from bnfold.files.external_data import data_files
    from bnfold.files.file_kind import FileKind, kind_of
    from bnfold.files.load import load_onnx
    from bnfold.files.weight_index import is_index, shards

    if is_index(path):
        return set(shards(path))
    try:
        return data_files(load_onnx(path)) if kind_of(path) is FileKind.ONNX else set()
    except ExternalDataError:
        raise
    except ModelError:  # what is not a valid model is so by its own content
        return set()


def _states(files: Iterable[Path]) -> list[tuple[str, list[int]]]:
    """Files by name, and what shows whether each is the same as before."""
    return [(str(file.absolute()), _state(file)) for file in files]


def _state(path: Path) -> list[int]:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("a pipe would never end")
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _settled(newest: int) -> bool:
    return time.time_ns() - newest > _RACY
