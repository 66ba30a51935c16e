"""What was found before, by content: a model that is the same everywhere is checked once.

An answer is a file whose name is the hash of all that decides it. So that the content of a model need not be
read to know that it is the same, its hash is kept with the size, the times and the inode of the files that it
was made from, as git's index does. A cache that cannot be read or written costs time and nothing else.

What was not used for a month is deleted, and of more than 256 MiB what was not used for the longest. Answers
appear and disappear whole, so that several checks can share a cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold.files.atomic import hidden_next_to
from bnfold.gate.finding import Finding

_FORMAT = 1
_RACY = 2_000_000_000  # nanoseconds: a file may change once more within the resolution of its times
_DAY = 86_400.0  # seconds: how exactly the last use of an answer is known, and how often old ones go
_OLDEST = 30 * _DAY
_DRAFT = 3600.0  # seconds after which a file that was being written is one of a process that was killed
_LARGEST = 1 << 28  # bytes of all answers together
_BLOCK = 1 << 12  # bytes: what the smallest file takes on a disk
_NAME = re.compile(r"[0-9a-f]{62}\.json|\.[0-9a-f]{62}\.json\.[0-9a-f]+\.\d+")  # an answer, or its draft
_FOREIGN = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
"""What reading a file raises that is not there, or that something else has written."""


@dataclass(frozen=True)
class Cache:
    """A folder of answers; None keeps nothing."""

    folder: Path | None

    def known(self, path: Path) -> str | None:
        """What `digest` says, if that can be known without a look into any file."""
        note = self._note(path)
        return None if note is None else str(note["digest"])

    def files(self, path: Path) -> list[Path] | None:
        """The files that hold a model and its data, if that can be known without a look into them."""
        note = self._note(path)
        return None if note is None else [Path(file) for file, _ in note["files"]]

    def digest(self, path: Path) -> str | None:
        """The hash of a model's content, with its external data, or with the files that an index names.

        This reads the model, which may be hostile: it is for a process that may come to harm.

        Args:
            path: The model.

        Returns:
            None where the model or its data cannot be read, so that its content does not say all of it.
        """
        if known := self.known(path):
            return known
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
                self._write(self._place_of_note(path), {"files": before, "digest": found})
        except Exception:  # a reader may raise anything; what is wrong is a finding of the process that asks
            return None
        return found

    def get(self, key: str) -> list[Finding] | None:
        """The findings of an earlier check; None where there was none."""
        from bnfold.gate.rules import RULES

        known = self._read(place := self._place("found", key))
        try:
            findings = [Finding.of_plain(one) for one in known["findings"]]
        except _FOREIGN:
            return None
        if any(one.code not in RULES for one in findings):
            return None
        _use(place)
        return findings

    def put(self, key: str, findings: Iterable[Finding]) -> None:
        """Keep the findings of a check."""
        self._write(self._place("found", key), {"findings": [finding.plain() for finding in findings]})

    def prune(self) -> None:
        """Delete what nobody uses any more; looks for it once a day."""
        if self.folder is None:
            return
        now, mark = time.time(), self.folder / "pruned"
        with contextlib.suppress(OSError):  # whatever cannot be deleted is tried again tomorrow
            if not self.folder.is_dir() or (mark.exists() and abs(now - mark.stat().st_mtime) < _DAY):
                return
            mark.write_text("", encoding="utf-8")
            room = _LARGEST
            for used, size, place in sorted(_entries(self.folder), reverse=True):
                room -= size
                is_draft = place.name.startswith(".")
                if now - used > (_DRAFT if is_draft else _OLDEST) or (room < 0 and not is_draft):
                    with contextlib.suppress(OSError):  # another check was faster
                        place.unlink()

    def _note(self, path: Path) -> dict[str, Any] | None:
        """What was noted of a model, if none of its files has been touched since."""
        name = str(path.absolute())
        known = self._read(place := self._place_of_note(path))
        with contextlib.suppress(*_FOREIGN):
            files = known["files"]
            same = files[0][0] == name and all(_state(Path(file)) == state for file, state in files)
            if same and isinstance(known["digest"], str):
                _use(place)
                return dict(known)
        return None

    def _place_of_note(self, path: Path) -> Path | None:
        return self._place("stat", hashlib.sha256(os.fsencode(str(path.absolute()))).hexdigest())

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


def _use(place: Path | None) -> None:
    """Let an answer show that it was used, to within a day."""
    with contextlib.suppress(OSError):
        if place is not None and time.time() - place.stat().st_mtime > _DAY:
            os.utime(place)


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file of a cache was used last, its size, and where it is; no other file is ever named."""
    for place in folder.glob("v[0-9]*/[fs]*/[0-9a-f][0-9a-f]/*"):
        if _NAME.fullmatch(place.name) and place.parent.parent.name in ("found", "stat"):
            with contextlib.suppress(OSError):
                found = place.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield found.st_mtime, -(-found.st_size // _BLOCK) * _BLOCK, place


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
