"""The coordinator: gives models to an engine, and knows when all of them have a result.

Every result is stored by the worker that has it, so that none is lost when the coordinator ends, and a second
one on the same models does no harm: both write the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import BnfoldError, InputError, reason
from bnfold.fleet import reports, worker
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Model, Plan
from bnfold.fleet.progress import Progress
from bnfold.fleet.results import Results
from bnfold.fleet.summary import BAD, Report
from bnfold.fleet.worker import Brief

if TYPE_CHECKING:
    from bnfold.fleet.engines import Engine

ATTEMPTS = 5
"""How often a model is given to a worker that ends before it has a result."""

_AHEAD = 2  # models a slot that are given to the engine, so that no worker waits for the next
_MOMENT = 1.0  # seconds: how often progress is shown though no model has ended, and slots are counted


@dataclass(frozen=True)
class Shard:
    """A part of a fleet: one of `count`, from 1 on; which models are in it follows from their names alone."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"{self.number}/{self.count} is not a shard.", "Write it as 1/8 for the first of eight."
            )

    def has(self, name: str) -> bool:
        """Whether a result belongs to it."""
        return int(name, 16) % self.count == self.number - 1


@dataclass(frozen=True)
class Outcome:
    """What a run came to. Its truth value is its verdict on the models that it looked at.

    Attributes:
        progress: What it did.
        left: How many models of the fleet have no result yet; those of other shards.
        report: The report on the whole fleet; None while models are left.
        files: What was written below `out`, next to the results of single models.
        bad: How many models of this run have no good result.
    """

    progress: Progress
    left: int
    report: Report | None
    files: tuple[str, ...]
    bad: int

    def __bool__(self) -> bool:
        return self.report["good"] == self.report["models"] if self.report else self.bad == 0


def run(
    ledger: Ledger,
    engine: Engine,
    *,
    resume: bool = False,
    shard: Shard | None = None,
    again: str = "",
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Do what a plan wants with every model, largest first.

    Args:
        ledger: The plan, and the models of the whole fleet.
        engine: What makes the calls.
        resume: Whether results count that are there; otherwise every model is done again.
        shard: The part of the fleet that this run does; None does all.
        again: Words of the command line that a line for one model needs as well.
        on_progress: Called whenever a model is done, and now and then.

    Raises:
        BnfoldError: Results could not be stored or read, or the workers lack a package.
    """
    plan, results = ledger.plan, Results(ledger.plan)
    mine = ledger.limit((shard or Shard()).has)
    if resume:
        ledger.note(results.listed())
        for name in results.changed(ledger.on_files()):
            ledger.forget(name)
    count, size = ledger.amount_left()
    progress = Progress(mine, mine - count)
    progress.expect(size, count)
    bad = _done(plan, ledger.left(), engine, progress, on_progress)
    ledger.note(results.listed())
    if missing := ledger.missing():
        return Outcome(progress, missing, None, (), bad)
    report, files = reports.write(plan, ledger.results(), again)
    return Outcome(progress, 0, report, files, bad)


def _done(
    plan: Plan,
    models: Iterator[Model],
    engine: Engine,
    progress: Progress,
    on_progress: Callable[[Progress], None],
) -> int:
    """Have every model done; how many have no good result."""
    left = ((model, 1) for model in models)
    lost: deque[tuple[Model, int]] = deque()  # whose worker ended, and how often they were given to one
    waiting: dict[Future[Brief], tuple[Model, int]] = {}
    bad, room, fresh = 0, 1, 0.0
    try:
        while True:
            on_progress(progress)
            if (now := time.monotonic()) >= fresh:
                room, fresh = max(1, _AHEAD * engine.slots()), now + _MOMENT
            while len(waiting) < room and (given := lost.popleft() if lost else next(left, None)):
                waiting[engine.submit(worker.serve, plan, given[0])] = given
            if not waiting:
                return bad
            for future in wait(waiting, _MOMENT, FIRST_COMPLETED).done:
                model, attempt = waiting.pop(future)
                brief = _brief(future, plan, model, attempt)
                if brief is None:
                    lost.append((model, attempt + 1))
                    continue
                progress.add(brief.state, model.size)
                bad += brief.state != "done" or brief.verdict in BAD
    finally:
        for future in waiting:
            future.cancel()


def _brief(future: Future[Brief], plan: Plan, model: Model, attempt: int) -> Brief | None:
    """What came of a model; None where its worker was lost, which says nothing of the model.

    Raises:
        BnfoldError: No worker could do any model.
    """
    try:
        return future.result()
    except BnfoldError:
        raise
    except ModuleNotFoundError as error:
        raise BnfoldError(
            f"The workers cannot import what they need: {reason(error)}.",
            'On each of them, type: pip install "bnfold[fleet,cpu]"',
        ) from error
    except Exception as error:  # each engine has its own for a worker that ended
        if attempt < ATTEMPTS:
            return None
        return worker.lost(plan, model, f"its worker ended {attempt} times: {reason(error)}")
