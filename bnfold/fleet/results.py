"""What is known of each model: one small file a model below `--out`, and one long file of all at the end.

The name of a model's result is a hash of the model, of its content as its source states it, and of all that
was asked. So a listing alone says which models have a result, two who write one write the same, and there
are never two of one. Object stores cannot append to a file: the long one is written when all are there.

The end of a name says what a result rests on:

| end | what it says | it is asked again |
|---|---|---|
| `done` | an answer about the model | never |
| `files` | the same, from further files, which the result names with their identities | if one changes |
| `limits-…` | its process met a limit, or died | under other limits |
| `again` | nothing of the model: the network, a package or a worker was missing | by the next `--resume` |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from bnfold.fleet import side_by_side, transport
from bnfold.fleet.plan import Model, Plan
from bnfold.fleet.sources import identity

Record: TypeAlias = dict[str, Any]
"""What is known of one model; docs/fleet.md has its keys."""

SCHEMA = "bnfold.fleet/1"
ENDS = DONE, FILES, LIMITS, AGAIN = "done", "files", "limits-", "again"
"""The ends of names; of several of one name, the first counts."""

_ENDS = {
    "done": DONE,
    "needs": DONE,
    "failed": DONE,
    "slow": LIMITS,
    "memory": LIMITS,
    "killed": LIMITS,
    "unable": AGAIN,
    "unreachable": AGAIN,
    "lost": AGAIN,
}
"""The ends of names by the states of records."""

STATES = tuple(_ENDS)


class Results:
    """The results of a plan.

    Args:
        plan: Its `out` is where they are.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = transport.joined(plan.out, "results")
        self._limits = f"{LIMITS}{plan.name_of_limits()}"

    def put(self, model: Model, record: Record) -> None:
        """Store what is known of a model, in place of what was known.

        Raises:
            TransportError: It could not be stored.
        """
        end = _ENDS[record["state"]]
        if end == DONE and record["files"]:
            end = FILES
        transport.put(self._place(self._plan.name_of(model), end), dumps(record).encode())

    def listed(self) -> Iterator[tuple[str, str]]:
        """The names and ends of all that is there, but for what other limits brought about.

        Raises:
            TransportError: They could not be listed.
        """
        fs, root = transport.filesystem(self._folder)
        fs.invalidate_cache()
        for start in _names(fs, root):
            for file in _names(fs, place := f"{root}/{start}"):
                rest, _, end = file.removesuffix(".json").partition(".")
                end = LIMITS if end == self._limits else end
                if end in ENDS:
                    yield start + rest, end
            fs.invalidate_cache(place)  # it may keep all that it has listed

    def changed(self, models: Iterable[Model]) -> Iterator[str]:
        """Of models whose results rest on further files, the names of those where one is another by now."""
        for name, holds in side_by_side.mapped(self._holds, models):
            if not holds:
                yield name

    def _holds(self, model: Model) -> tuple[str, bool]:
        """The name of a model's result, and whether its further files are as they were."""
        name = self._plan.name_of(model)
        files: dict[str, str] = self._read((name, FILES))["files"]
        return name, all(identity(next_to(model.url, file)) == known for file, known in files.items())

    def read(self, names: Iterable[tuple[str, str]]) -> Iterator[Record]:
        """The results of some names with their ends, in that order; few are held at a time.

        Raises:
            TransportError: One could not be read.
        """
        return side_by_side.mapped(self._read, names)

    def _read(self, result: tuple[str, str]) -> Record:
        url = self._place(*result)
        fs, path = transport.filesystem(url)
        found: Record = json.loads(transport.retried(lambda: fs.cat_file(path), "read", url))
        return found

    def _place(self, name: str, end: str) -> str:
        end = self._limits if end == LIMITS else end
        return transport.joined(self._folder, f"{name[:2]}/{name[2:]}.{end}.json")


def _names(fs: Any, folder: str) -> list[str]:
    """The names of what is in a folder; none where it is not there."""

    def listed() -> list[str]:
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    return transport.retried(listed, "listed", folder)


def next_to(url: str, file: str) -> str:
    """The URL of a file in the folder of another."""
    first, *rest = transport.links(url)
    return "::".join([f"{first.rpartition('/')[0]}/{file}", *rest])


def dumps(record: Record) -> str:
    """A record as one line."""
    return json.dumps(record, allow_nan=False, sort_keys=True)
