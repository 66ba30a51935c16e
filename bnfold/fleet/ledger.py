"""The models of a fleet, and which of them have a result: in a temporary file, so that memory does not grow.

SQLite sorts and compares them there with a few megabytes of its own, however many there are. The file is this
coordinator's alone, has no name that others could open it by, and goes when it ends: what lasts are the
results themselves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import TracebackType
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.fleet.plan import Model, Plan
from bnfold.fleet.results import AGAIN, ENDS, FILES

_TABLES = """
PRAGMA journal_mode = OFF;  -- nobody reads it after a crash
PRAGMA synchronous = OFF;
CREATE TABLE models (
    url BLOB, options TEXT, inputs TEXT, name BLOB, size INTEGER, identity TEXT,
    path BLOB, result TEXT, is_mine INTEGER DEFAULT 1,
    PRIMARY KEY (url, options, inputs)
) WITHOUT ROWID;
CREATE TABLE folders (name BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE known (result TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID;
"""
_COLUMNS = "url, options, inputs, name, size, identity"
_INSERT = f"INSERT OR IGNORE INTO models ({_COLUMNS}, path, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FOLDER = b".onnx/"  # what the name of a folder ends with that a file to write may have as well
_PLACES = {end: place for place, end in enumerate(ENDS)}
_NOTE = "INSERT INTO known VALUES (?, ?) ON CONFLICT DO UPDATE SET place = min(place, excluded.place)"
_JOINED = "models LEFT JOIN known USING (result)"
_LEFT = f"is_mine AND coalesce(place, {_PLACES[AGAIN]}) = {_PLACES[AGAIN]}"


class Ledger:
    """The models of a plan, each once for every set of options that it is given.

    Args:
        plan: What is to be done with every model.
        models: As sources list them; of those that are the same, the first counts.

    Raises:
        BnfoldError: There is no space for them, or what a source raises.
    """

    def __init__(self, plan: Plan, models: Iterable[Model]) -> None:
        self.plan = plan
        with _saying():
            self._database = sqlite3.connect("", isolation_level=None)  # a file without a name
            self._database.executescript(_TABLES)
            self._database.execute("BEGIN")
            self._database.executemany(_INSERT, map(self._row, models))
            if plan.command != "check":
                self._tell_apart()
            self._database.execute("COMMIT")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __len__(self) -> int:
        return int(self._numbers("SELECT count(*) FROM models")[0])

    def __iter__(self) -> Iterator[Model]:
        """Every model, largest first."""
        return self._models("models")

    def limit(self, is_mine: Callable[[str], bool]) -> int:
        """Say which models this run does, by the names of their results; returns how many these are."""
        self._database.create_function("is_mine", 1, is_mine, deterministic=True)
        with _saying():
            self._database.execute("UPDATE models SET is_mine = is_mine(result)")
        return int(self._numbers("SELECT count(*) FROM models WHERE is_mine")[0])

    def note(self, results: Iterable[tuple[str, str]]) -> None:
        """Note which results there are, in place of what was noted before.

        Args:
            results: Names and ends; of several ends of a name, the one that says most counts.
        """
        with _saying():
            self._database.execute("DELETE FROM known")
            self._database.execute("BEGIN")
            self._database.executemany(_NOTE, ((name, _PLACES[end]) for name, end in results))
            self._database.execute("COMMIT")

    def forget(self, name: str) -> None:
        """Take back that there is a result."""
        with _saying():
            self._database.execute("DELETE FROM known WHERE result = ?", (name,))

    def on_files(self) -> Iterator[Model]:
        """The models of this run whose result rests on further files."""
        return self._models(_JOINED, f"is_mine AND place = {_PLACES[FILES]}")

    def left(self) -> Iterator[Model]:
        """The models of this run that have no result yet, or one that is asked for again; largest first."""
        return self._models(_JOINED, _LEFT)

    def amount_left(self) -> tuple[int, int]:
        """How many these are, and their bytes."""
        count, size = self._numbers(f"SELECT count(*), total(size) FROM {_JOINED} WHERE {_LEFT}")
        return int(count), int(size)

    def missing(self) -> int:
        """How many models have no result of any kind, also those that other runs do."""
        return int(self._numbers(f"SELECT count(*) FROM {_JOINED} WHERE place IS NULL")[0])

    def results(self) -> Iterator[tuple[str, str]]:
        """The names and ends of all results, in the order of the models' paths."""
        rows = f"SELECT result, place FROM {_JOINED} WHERE place IS NOT NULL ORDER BY path, result"
        return ((name, ENDS[place]) for name, place in self._rows(rows))

    def _row(self, model: Model) -> tuple[Any, ...]:
        name = model.name if self.plan.command == "check" else _onnx(model.name)
        given = (json.dumps(dict(one), sort_keys=True) for one in (model.options, model.inputs))
        texts = (_packed(model.path), self.plan.name_of(model))
        return _packed(model.url), *given, _packed(name), model.size, model.identity, *texts

    def _tell_apart(self) -> None:
        """Put a hash into the names of files to write that are the same, or that of a folder to make."""

        def apart(name: bytes, *own: object) -> bytes:
            return (
                name.removesuffix(b".onnx") + f"-{sha256(repr(own).encode()).hexdigest()[:8]}.onnx".encode()
            )

        def folders() -> Iterator[tuple[bytes]]:
            for (name,) in self._database.execute("SELECT name FROM models WHERE instr(name, ?)", [_FOLDER]):
                ends = (at + len(_FOLDER) - 1 for at in range(len(name)) if name.startswith(_FOLDER, at))
                yield from ((name[:end],) for end in ends)

        self._database.executemany("INSERT OR IGNORE INTO folders VALUES (?)", folders())
        self._database.create_function("apart", 4, apart, deterministic=True)
        while self._database.execute(  # again where a new name is that of another model
            "UPDATE models SET name = apart(name, url, options, inputs)"
            " WHERE name IN (SELECT name FROM models GROUP BY name HAVING count(*) > 1)"
            " OR name IN (SELECT name FROM folders)"
        ).rowcount:
            pass

    def _models(self, table: str, condition: str = "TRUE") -> Iterator[Model]:
        order = f"SELECT {_COLUMNS} FROM {table} WHERE {condition} ORDER BY size DESC, url, options, inputs"
        for url, options, inputs, name, size, identity in self._rows(order):
            given = json.loads(options), json.loads(inputs)
            yield Model(_unpacked(url), _unpacked(name), size, identity, *given)

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        with _saying():
            yield from self._database.execute(query)

    def _numbers(self, query: str) -> tuple[float, ...]:
        return next(self._rows(query))


@contextmanager
def _saying() -> Iterator[None]:
    """Turn an error of SQLite into a message."""
    try:
        yield
    except sqlite3.Error as error:
        raise BnfoldError(
            f"The list of models could not be kept in a temporary file: {error}.",
            "Free some space, or set TMPDIR to a folder that has some.",
        ) from error


def _packed(text: str) -> bytes:
    """A text for the file; names of files need not be Unicode."""
    return text.encode(errors="surrogateescape")


def _unpacked(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _onnx(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return name if name.endswith(".onnx") else f"{folder}{slash}{last.rpartition('.')[0] or last}.onnx"
