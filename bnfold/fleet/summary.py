"""The whole fleet in numbers, from the records of its models one at a time; of each it keeps some numbers."""

from __future__ import annotations

import heapq
import shlex
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from bnfold.fleet import options
from bnfold.fleet.plan import Plan
from bnfold.fleet.results import Record

Report: TypeAlias = dict[str, Any]

SCHEMA = "bnfold.fleet.report/1"
BAD = frozenset({"findings", "disagrees", "not faster"})
"""Verdicts that are no success."""

_MOST_FAILURES = 1000  # that the report lists; the long file has all
_MOST_OUTLIERS = 5
_FAR = 3  # times the median
_PAIRS = ("batchnorms", "nodes", "bytes")


def _kept(record: Record) -> int:
    return int((record.get("batchnorms") or {}).get("after") or 0)


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
        self._models = self._good = 0
        self._states: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._sums: dict[str, Counter[str]] = {name: Counter() for name in _PAIRS}
        self._reasons: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._rules: Counter[str] = Counter()
        self._latency: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._outliers: dict[str, list[tuple[float, str]]] = {}
        self._amounts: dict[str, array[float]] = {}
        self._failures: list[dict[str, str]] = []
        self._failed = 0

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
        if record["state"] != "done" or record["verdict"] == "disagrees":
            self._note_failure(record)

    def _note_outliers(self, record: Record) -> None:
        for name, value in {**_OUTLIERS, **_MEASURED_OUTLIERS}.items():
            if amount := value(record):
                self._amounts.setdefault(name, array("d")).append(amount)
                kept = self._outliers.setdefault(name, [])
                heapq.heappush(kept, (amount, record["path"]))
                if len(kept) > _MOST_OUTLIERS:
                    heapq.heappop(kept)

    def _note_failure(self, record: Record) -> None:
        self._failed += 1
        if len(self._failures) < _MOST_FAILURES:
            self._failures.append(
                {
                    "path": record["path"],
                    "state": record["state"],
                    "why": record["why"],
                    "again": self.line(record),
                }
            )

    def line(self, record: Record) -> str:
        """What to type to do the same with one model alone."""
        limits = self._plan.limits
        memory = f"--memory-limit {limits.memory}" if limits.memory else ""
        expected = shlex.join(
            word for one in record["inputs"].items() for word in ("--expect", "=".join(one))
        )
        words = (
            f"bnfold fleet {record['command']} {shlex.quote(record['path'])} --out again --jobs 1",
            f"--time-limit {limits.seconds:g}",
            *(memory, expected, options.words(record["options"]), self._again),
        )
        return " ".join(filter(None, words))

    def report(self) -> Report:
        """All of it, as plain values; only what is under `measured` differs from run to run."""
        from bnfold.gate.rules import RULES as QUESTIONS
        from bnfold.reasons import RULES

        models, sites = self._reasons
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
            "failures": self._failures,
            "failures_left_out": self._failed - len(self._failures),
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
                least = _FAR * statistics.median(self._amounts[name])
                largest = sorted(self._outliers[name], key=lambda pair: (-pair[0], pair[1]))
                found[name] = [{"path": path, "amount": amount} for amount, path in largest if amount > least]
        return {name: rows for name, rows in found.items() if rows}


def _ranked(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
