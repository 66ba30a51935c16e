"""How far a fleet is: for people, and for Prometheus."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.fleet.results import STATES

_EACH = 1_000_000  # bytes: what the rest of a model's work costs, next to its reading


@dataclass
class Progress:
    """What is done, and what is left.

    Attributes:
        total: Models of this run.
        known: How many of them had a result before it began.
        states: How many models ended in each state, in this run.
        work: What is to be done, in bytes and what stands for bytes.
        begin: When the run began, by the monotonic clock.
    """

    total: int
    known: int = 0
    states: Counter[str] = field(default_factory=Counter)
    work: int = 0
    begin: float = field(default_factory=time.monotonic)
    _worked: int = 0

    def expect(self, size: int, count: int = 1) -> None:
        """Add models to what is to be done, of so many bytes together."""
        self.work += size + count * _EACH

    def add(self, state: str, size: int) -> None:
        """Note that a model is done."""
        self.states[state] += 1
        self._worked += size + _EACH

    @property
    def done(self) -> int:
        """Models that have a result."""
        return self.known + self.states.total()

    @property
    def rate(self) -> float:
        """Models a second, so far."""
        return self.states.total() / max(time.monotonic() - self.begin, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, if the others go on as those so far; None before there are any.

        The largest come first: by their number alone, the rest would seem to take far longer.
        """
        if not self._worked:
            return None
        return (time.monotonic() - self.begin) * (self.work - self._worked) / self._worked

    @property
    def sentence(self) -> str:
        """One line for a log."""
        failed = self.states.total() - self.states["done"] - self.states["needs"]
        left = "" if self.remaining is None else f", {duration(self.remaining)} left"
        return f"{self.done:,} of {self.total:,} models, {failed:,} failed, {self.rate:.1f} a second{left}"


def duration(seconds: float) -> str:
    """A time in two units at most."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def prometheus(progress: Progress, command: str) -> str:
    """The same in Prometheus's text format, for the textfile collector of its node exporter."""
    labels = f'command="{command}"'
    gauges: dict[str, tuple[str, dict[str, object]]] = {
        "models": ("Models of the fleet.", {labels: progress.total}),
        "models_known": ("Models that had a result before this run.", {labels: progress.known}),
        "models_ended": (
            "Models that ended in this run, by their state.",
            {f'{labels},state="{state}"': progress.states[state] for state in STATES},
        ),
        "models_per_second": ("Models a second in this run.", {labels: round(progress.rate, 6)}),
        "remaining_seconds": (
            "Seconds left, if the others go on as those so far.",
            {labels: "NaN" if progress.remaining is None else round(progress.remaining, 3)},
        ),
        "updated_timestamp_seconds": ("When this was written.", {labels: round(time.time(), 3)}),
    }
    lines = []
    for name, (text, values) in gauges.items():
        lines += [f"# HELP bnfold_fleet_{name} {text}", f"# TYPE bnfold_fleet_{name} gauge"]
        lines += [f"bnfold_fleet_{name}{{{label}}} {value}" for label, value in values.items()]
    return "\n".join(lines) + "\n"


def write_prometheus(progress: Progress, command: str, path: Path) -> None:
    """Write it to a file, which the collector reads whole at any time.

    Raises:
        SaveError: The file could not be written.
    """
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(prometheus(progress, command).encode())
