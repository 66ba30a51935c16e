"""The whole fleet in numbers, from the records of its models one at a time, of which it keeps none."""

from __future__ import annotations

import heapq
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from bnfold.errors import listed
from bnfold.fleet import advice, options, sources
from bnfold.fleet.plan import QUIET, Plan
from bnfold.fleet.results import Record
from bnfold.report.unasked import UNREADABLE

Report: TypeAlias = dict[str, Any]

SCHEMA = "bnfold.fleet.report/1"
BAD = frozenset({"findings", "disagrees", "not faster"})
"""Verdicts that are no success."""

_MOST_LISTED = 1000  # failures, models that need an option, and those with findings; the long file has all
_MOST_SAID = 3  # findings of one model
_SEVERITIES = ("error", "warning", "note")
_MOST_OUTLIERS = 5
_MOST_NEEDED = 20
_FAR = 3  # times the median
_PAIRS = ("batchnorms", "nodes", "bytes")


def _kept(record: Record) -> int:
    return int((record.get("batchnorms") or {}).get("after") or 0)


def _is_torch(record: Record) -> bool:
    """Whether a check has read the file and could not look for BatchNorms, as in PyTorch files."""
    codes = {found["code"] for found in record.get("findings") or []}
    answered = record["command"] == "check" and record["state"] == "done"
    return answered and not record.get("batchnorms") and not codes & UNREADABLE


def _nodes(record: Record) -> int:
    return int((record.get("nodes") or {}).get("before") or 0)


def _measured(name: str) -> Callable[[Record], float]:
    return lambda record: float(record["measured"].get(name) or 0)


_OUTLIERS: Mapping[str, Callable[[Record], float]] = {
    "most BatchNorms that stay": _kept,
    "largest": lambda record: int(record["size"]),
    "most nodes": _nodes,
}
_MEASURED_OUTLIERS: Mapping[str, Callable[[Record], float]] = {
    "longest": _measured("seconds"),
    "most memory": _measured("memory"),
}


class Summary:
    """Adds up records.

    Args:
        plan: What was done with every model.
        again: Words of the command line that a line for one model needs as well.
    """

    def __init__(self, plan: Plan, again: str = "") -> None:
        self._plan, self._again = plan, again
        self._models = self._good = self._not_looked_for = 0
        self._states: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._sums: dict[str, Counter[str]] = {name: Counter() for name in _PAIRS}
        self._reasons: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._rules: Counter[str] = Counter()
        self._latency: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._outliers: dict[str, list[tuple[float, str]]] = {}
        self._amounts: dict[str, Counter[float]] = {}
        self._lists: dict[str, list[dict[str, str]]] = {"needs": [], "failures": []}
        self._found: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
        self._left_out: Counter[str] = Counter()
        self._needed: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Add one model."""
        self._models += 1
        self._states[record["state"]] += 1
        if record["verdict"]:
            self._verdicts[record["verdict"]] += 1
        is_good = record["state"] == "done" and record["verdict"] not in BAD
        self._good += is_good
        for name in _PAIRS:
            pair = record.get(name) or {}
            if pair.get("before") is not None and pair.get("after") is not None:
                self._sums[name].update(pair)
        for code, count in (record.get("reasons") or {}).items():
            self._reasons[0][code] += 1
            self._reasons[1][code] += count
        self._rules.update({found["code"] for found in record.get("findings") or []})
        self._latency.update(timed["verdict"] for timed in record.get("latency") or [])
        for name in ("worker_seconds", "seconds", "processor_seconds", "fetched"):
            self._totals[name] += record["measured"].get(name) or 0
        self._note_outliers(record)
        if record["state"] == "needs":
            self._list("needs", record)
            self._count_needed(record["next"])
        elif record["state"] != "done" or record["verdict"] == "disagrees":
            self._list("failures", record)
        if record["verdict"] == "findings":
            self._list_found(record)
        self._not_looked_for += _is_torch(record)

    def _note_outliers(self, record: Record) -> None:
        for name, value in {**_OUTLIERS, **_MEASURED_OUTLIERS}.items():
            if amount := value(record):
                self._amounts.setdefault(name, Counter())[float(f"{amount:.1e}")] += 1
                kept = self._outliers.setdefault(name, [])
                heapq.heappush(kept, (amount, record["path"]))
                if len(kept) > _MOST_OUTLIERS:
                    heapq.heappop(kept)

    def _list_found(self, record: Record) -> None:
        """Keep a model with findings, up to a number of those with errors and of the others each."""
        found = sorted(record.get("findings") or [], key=lambda one: _SEVERITIES.index(one["severity"]))
        serious = [one for one in found if one["severity"] != "note"]
        kept = self._found[not serious or serious[0]["severity"] != "error"]
        self._left_out["found"] += 1
        if len(kept) < _MOST_LISTED:
            why = listed([f"{one['code']} {one['message']}" for one in serious], _MOST_SAID)
            kept.append({"path": record["path"], "state": "done", "why": why, "again": self.line(record)})

    def _list(self, name: str, record: Record) -> None:
        if len(self._lists[name]) == _MOST_LISTED:
            self._left_out[name] += 1
            return
        known = {key: record[key] for key in ("path", "state", "why")}
        self._lists[name].append({**known, "again": self.line(record)})

    def _count_needed(self, following: Mapping[str, Any]) -> None:
        """Count what a model needs, up to a number of different things: sizes may all differ."""
        said = options.words(following["options"]) or f"fleet {following['command']}"
        if said in self._needed or len(self._needed) < _MOST_LISTED:
            self._needed[said] += 1

    def line(self, record: Record) -> str:
        """What to type to do the same with one model alone; for one that needs an option, with that."""
        limits, following = self._plan.limits, record.get("next") or {}
        name = f"bnfold fleet {following.get('command', record['command'])}"
        path = shlex.quote(record["path"])
        if record["measured"].get("is_quiet"):
            name = f"{QUIET}=1 {name}"
        first = f"echo {path} | {name} -" if sources.is_pattern(record["path"]) else f"{name} {path}"
        words = (
            f"{first} --out again --jobs 1 --time-limit {limits.seconds:g}",
            f"--memory-limit {limits.memory}" if limits.memory else "",
            options.words({"expect": ["=".join(one) for one in record["inputs"].items()]}),
            options.words(advice.added(record["options"], following.get("options", {}))),
            self._again,
        )
        return " ".join(filter(None, words))

    def report(self) -> Report:
        """All of it, as plain values; only what is under `measured` differs from run to run."""
        from bnfold.gate.rules import RULES as QUESTIONS
        from bnfold.reasons import RULES

        models, sites = self._reasons
        found = [one for kept in self._found for one in kept][:_MOST_LISTED]
        return {
            "schema": SCHEMA,
            "command": self._plan.command,
            "models": self._models,
            "good": self._good,
            "states": dict(sorted(self._states.items())),
            "verdicts": dict(sorted(self._verdicts.items())),
            **{name: {end: self._sums[name][end] for end in ("before", "after")} for name in _PAIRS},
            "reasons": [
                {"code": code, "title": RULES[code].title, "models": count, "batchnorms": sites[code]}
                for code, count in sorted(models.items(), key=_ranked)
            ],
            "findings": [
                {"code": code, "title": QUESTIONS[code].title, "models": count}
                for code, count in sorted(self._rules.items(), key=_ranked)
            ],
            "latency": dict(sorted(self._latency.items())),
            "outliers": self._listed(_OUTLIERS),
            "needed": [
                {"options": said, "models": count}
                for said, count in sorted(self._needed.items(), key=_ranked)[:_MOST_NEEDED]
            ],
            **self._lists,
            "found": found,
            **{f"{name}_left_out": self._left_out[name] for name in self._lists},
            "found_left_out": self._left_out["found"] - len(found),
            "not_looked_for": self._not_looked_for,
            "measured": {
                **{name: round(amount, 3) for name, amount in self._totals.items()},
                "outliers": self._listed(_MEASURED_OUTLIERS),
            },
        }

    def _listed(self, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """The few largest amounts, as far as they are far above what is usual."""
        found = {}
        for name in names:
            if name in self._outliers:
                least = _FAR * _median(self._amounts[name])
                largest = sorted(self._outliers[name], key=lambda pair: (-pair[0], pair[1]))
                found[name] = [{"path": path, "amount": amount} for amount, path in largest if amount > least]
        return {name: rows for name, rows in found.items() if rows}


def _median(amounts: Counter[float]) -> float:
    """The lower median of what was counted."""
    left = (amounts.total() + 1) // 2
    for amount, count in sorted(amounts.items()):
        left -= count
        if left <= 0:
            return amount
    raise AssertionError("nothing was counted")


def _ranked(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
