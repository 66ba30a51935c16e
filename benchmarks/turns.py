"""Programs that take turns at making a file of a file, each in its own process."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Middle, ProcessFailedError, Usage, forget, remember, run


@dataclass(frozen=True)
class Contestant:
    """One program.

    Attributes:
        name: In the tables.
        source: The model that it reads.
        command: The words to start it with, for the file to write.
        cold: Whether the system's page cache holds nothing of the source when it starts; else it holds all.
    """

    name: str
    source: Path
    command: Callable[[Path], list[str]]
    cold: bool = False


@dataclass
class Score:
    """What became of one contestant.

    Attributes:
        contestant: Which one.
        usages: One per round.
        left: BatchNormalization nodes in what it wrote.
        problem: Why it has no further rounds: it failed, or its file is wrong.
    """

    contestant: Contestant
    usages: list[Usage] = field(default_factory=list)
    left: int | None = None
    problem: str = ""

    @property
    def seconds(self) -> Middle:
        """The time it took."""
        return Middle.of(usage.seconds for usage in self.usages)

    @property
    def megabytes(self) -> Middle:
        """The peak of its memory."""
        return Middle.of(usage.bytes / 1e6 for usage in self.usages)

    def of(self, other: Score, figure: Callable[[Usage], float]) -> Middle | None:
        """A figure as a multiple of another contestant's in the same round; None where one has none."""
        pairs = list(zip(self.usages, other.usages, strict=False))
        return Middle.of(figure(one) / figure(two) for one, two in pairs) if pairs else None


Check = Callable[[Contestant, Path], "tuple[int | None, str]"]


def contest(contestants: Sequence[Contestant], rounds: int, folder: Path, check: Check) -> list[Score]:
    """Let all contestants run in every round, in a new random order.

    Args:
        contestants: Who runs.
        rounds: How many; one that fails has no further ones.
        folder: For what they write, which is removed after each.
        check: Counts the BatchNorms that a contestant left in the first round, and says what is wrong.

    Returns:
        A score for every contestant, in their order.
    """
    draw = random.Random(0)
    scores = [Score(contestant) for contestant in contestants]
    for number in range(rounds):
        for score in draw.sample(scores, len(scores)):
            if not score.problem:
                _take_turn(score, folder / "written", check if number == 0 else None)
                _report(score, number + 1, rounds)
    return scores


def files(model: Path) -> list[Path]:
    """A model and, if it has one, the file of its external data."""
    data = model.with_name(f"{model.name}.data")
    return [model, *([data] if data.exists() else [])]


def _take_turn(score: Score, folder: Path, check: Check | None) -> None:
    contestant = score.contestant
    prepare = forget if contestant.cold else remember
    with _empty(folder):
        target = folder / contestant.source.name
        prepare(*files(contestant.source))
        try:
            score.usages.append(run(contestant.command(target)))
        except ProcessFailedError as error:
            score.problem = f"It {error}."
        else:
            if check:
                score.left, score.problem = check(contestant, target)


@contextlib.contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """A folder for a while, on a disk that has nothing left to write."""
    folder.mkdir()
    os.sync()
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _report(score: Score, number: int, rounds: int) -> None:
    last = score.usages[-1] if score.usages else None
    figures = f"{last.seconds:.2f} s, {last.bytes / 1e6:.0f} MB. " if last else ""
    state = ", cold" if score.contestant.cold else ""
    who = f"{score.contestant.source.stem} {number}/{rounds}, {score.contestant.name}{state}"
    print(f"{who}: {figures}{score.problem}", file=sys.stderr, flush=True)
