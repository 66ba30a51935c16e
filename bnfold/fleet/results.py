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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from bnfold.fleet import transport
from bnfold.fleet.plan import Model, Plan
from bnfold.fleet.sources import identity

Record: TypeAlias = dict[str, Any]
"""What is known of one model; docs/fleet.md has its keys."""

SCHEMA = "bnfold.fleet/1"
DONE, FILES, LIMITS, AGAIN = "done", "files", "limits-", "again"
_ENDS = {
    "done": DONE,
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
_AT_ONCE = 32  # results that are read side by side


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
        if end == LIMITS:
            end = self._limits
        elif end == DONE and record["files"]:
            end = FILES
        transport.put(self._place(self._plan.name_of(model), end), dumps(record).encode())

    def known(self, models: Sequence[Model], *, verify: bool = False) -> dict[str, str]:
        """Which models have a result.

        Args:
            models: Those of the plan.
            verify: Whether it is asked of those that rest on further files if these are as they were.

        Returns:
            For each of those models, by the name of its result, the end of that name.
        """
        listed = self._listed()
        best: dict[str, str] = {}
        doubtful = []
        for model in models:
            name = self._plan.name_of(model)
            ends = listed.get(name, ())
            if end := next((end for end in (DONE, FILES, self._limits, AGAIN) if end in ends), None):
                best[name] = end
                if end == FILES:
                    doubtful.append((name, model))
        if verify:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                holds = list(pool.map(lambda pair: self._holds(*pair), doubtful))
            for (name, _), is_same in zip(doubtful, holds, strict=True):
                if not is_same:
                    del best[name]
        return best

    def _holds(self, name: str, model: Model) -> bool:
        """Whether the further files of a model are as they were."""
        files: dict[str, str] = self._read(name, FILES)["files"]
        return all(identity(next_to(model.url, file)) == known for file, known in files.items())

    def read(self, names: Sequence[tuple[str, str]]) -> Iterator[Record]:
        """The results of some names with their ends, in that order; few are held at a time.

        Raises:
            TransportError: One could not be read.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for begin in range(0, len(names), _AT_ONCE):
                yield from pool.map(lambda one: self._read(*one), names[begin : begin + _AT_ONCE])

    def _read(self, name: str, end: str) -> Record:
        url = self._place(name, end)
        fs, path = transport.filesystem(url)
        found: Record = json.loads(transport.retried(lambda: fs.cat_file(path), "read", url))
        return found

    def _place(self, name: str, end: str) -> str:
        return transport.joined(self._folder, f"{name[:2]}/{name[2:]}.{end}.json")

    def _listed(self) -> dict[str, tuple[str, ...]]:
        """The ends of all that is there, by name."""
        fs, path = transport.filesystem(self._folder)
        fs.invalidate_cache()
        found: dict[str, tuple[str, ...]] = {}

        def list_all() -> None:
            for place, _, files in fs.walk(path):
                start = place.rstrip("/").rpartition("/")[2]
                for file in files:
                    rest, _, end = file.removesuffix(".json").partition(".")
                    found[start + rest] = (*found.get(start + rest, ()), end)

        transport.retried(list_all, "listed", self._folder)
        return found


def next_to(url: str, file: str) -> str:
    """The URL of a file in the folder of another."""
    first, *rest = url.split("::")
    return "::".join([f"{first.rpartition('/')[0]}/{file}", *rest])


def dumps(record: Record) -> str:
    """A record as one line."""
    return json.dumps(record, allow_nan=False, sort_keys=True)
