"""What ending early does to the error of a timing, on recorded timings that are drawn again and again.

    python -m benchmarks.replay MODEL.onnx … --output FILE.npz [--conditions TEXT]
    python -m benchmarks.stopwatch --recorded FILE.npz --markdown docs/stopwatch.md

A machine that does other things too never times the same thing twice, so that two ways of timing cannot be
compared on it. Therefore long series are recorded once for each model, and both ways are replayed on them:
the fixed one of a given `--seconds` (8 loads of 96 rounds), and the one that may end early (up to 32 loads of
20 rounds, with looks after 8, 16 and 24). A replay draws whole loads, and of each a stretch of rounds in a
row, since neighbours resemble each other.

For a difference that is known exactly, original, folded and control, which are the same file here, change
places at random in every load that was drawn: no difference is left between them. Then the times of the
folded one are divided by the difference.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from benchmarks.page import markdown_table, today
from bnfold.latency.bootstrap import Times, ratios
from bnfold.latency.interleave import MAX_LOADS, Budget, contest
from bnfold.latency.prepare import for_onnxruntime
from bnfold.latency.stopping import LOOKS, MOST_LOADS, may_end
from bnfold.latency.verdicts import Verdict, verdict
from bnfold.options import Timing
from bnfold.runtime import sessions
from bnfold.runtime.interface import as_ir, interface

PARTS = 8
RESAMPLES = 500  # a quarter of what a timing takes, to have time for more replays
FIXED_ROUNDS, SHORT_ROUNDS = 96, 20
DIFFERENCES = (1.0, 1.03, 1.05)
VERDICTS: tuple[Verdict, ...] = ("faster", "slower", "no measurable difference", "too noisy to say")
HEADER = ("model", "true ratio", "timing", *VERDICTS, "mean loads", "ended early", "interval holds the truth")


@dataclass
class Score:
    """What many replays of one design gave.

    Attributes:
        verdicts: How often each verdict was given.
        loads: How many loads each replay took.
        early: How many replays ended before their time.
        covered: In how many the 95 % interval held the true ratio.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    loads: list[int] = field(default_factory=list)
    early: int = 0
    covered: int = 0

    def add(self, times: Times, truth: float, rng: np.random.Generator, *, early: bool) -> None:
        """Count one replay."""
        ratio, control = ratios(times, rng, RESAMPLES)
        self.verdicts[verdict(ratio, control)] += 1
        self.loads.append(len(times))
        self.early += early
        self.covered += ratio.low <= truth <= ratio.high

    def cells(self) -> tuple[str, ...]:
        """The shares for a table."""
        count = len(self.loads)
        shares = (self.verdicts[one] for one in VERDICTS)
        return (
            *(f"{share / count:.1%}" for share in shares),
            f"{np.mean(self.loads):.1f}",
            f"{self.early / count:.0%}",
            f"{self.covered / count:.1%}",
        )

    @property
    def wrong(self) -> int:
        """How often a difference was claimed."""
        return self.verdicts["faster"] + self.verdicts["slower"]


@dataclass(frozen=True)
class Recording:
    """Series that were recorded together.

    Attributes:
        series: Times by the name of the model.
        date: When.
        conditions: On what kind of machine, in words.
    """

    series: Mapping[str, Times]
    date: str
    conditions: str

    def save(self, file: Path) -> None:
        """Write it to an .npz file."""
        notes = {"date": np.array(self.date), "conditions": np.array(self.conditions)}
        np.savez_compressed(file, allow_pickle=False, **notes, **self.series)

    @classmethod
    def load(cls, file: Path) -> Recording:
        """Read what `save` wrote."""
        with np.load(file) as stored:
            series = {name: stored[name] for name in stored.files if name not in ("date", "conditions")}
            return cls(series, str(stored["date"]), str(stored["conditions"]))


def record(model: str | os.PathLike[str] | onnx.ModelProto, parts: int = PARTS) -> Times:
    """Time a model against itself, at ONNX Runtime's default, on eight loads for each part.

    Returns:
        Milliseconds per run, of the shape `[loads, 96, 3]`.
    """
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        file = stack.enter_context(sessions.on_disk(model))
        ports = interface(as_ir(file)).inputs
        made = for_onnxruntime(file, (file, file), "cpu", ports, None, Timing())
        feeds, setting = made.feeds[None], made.settings[0]
        budget = Budget(rounds=MAX_LOADS * FIXED_ROUNDS, seconds=3.0)
        series = [contest(file, file, setting, feeds, budget, rng).times for _ in range(parts)]
    return np.concatenate(series)


def replayed(series: Times, truth: float, count: int, rng: np.random.Generator) -> Mapping[str, Score]:
    """Both designs on `count` draws of the same series.

    Args:
        series: What `record` gave.
        truth: The ratio to put between original and folded model.
        count: How many draws of each design.
        rng: Draws.
    """
    fixed, sequential = Score(), Score()
    for _ in range(count):
        fixed.add(drawn(series, MAX_LOADS, FIXED_ROUNDS, truth, rng), truth, rng, early=False)
        times = drawn(series, MOST_LOADS, SHORT_ROUNDS, truth, rng)
        end = next((look for look in LOOKS if may_end(times[:look], rng, RESAMPLES)), MOST_LOADS)
        sequential.add(times[:end], truth, rng, early=end < MOST_LOADS)
    return {"a given time": fixed, "may end early": sequential}


def drawn(series: Times, loads: int, rounds: int, truth: float, rng: np.random.Generator) -> Times:
    """Loads of a series in a new order, the contestants of each having changed places."""
    which = rng.integers(len(series), size=loads)
    starts = rng.integers(series.shape[1] - rounds + 1, size=loads)
    taken = np.stack(
        [series[load, start : start + rounds] for load, start in zip(which, starts, strict=True)]
    )
    places = rng.permuted(np.tile(np.arange(3), (loads, 1)), axis=1)
    times = np.take_along_axis(taken, places[:, None, :], axis=2)
    return times / np.array([1.0, truth, 1.0])


def lines(recorded: Mapping[str, Times], count: int) -> Iterator[tuple[tuple[str, ...], float, Score]]:
    """The lines of every model, true ratio and way of timing, each with that ratio and its score.

    Args:
        recorded: Series by the name of their model.
        count: Replays of each line without a difference; of those with one a third.
    """
    for name, series in recorded.items():
        for truth in DIFFERENCES:
            rng = np.random.default_rng(1)
            scores = replayed(series, truth, count if truth == 1 else max(1, count // 3), rng)
            for design, score in scores.items():
                print(name, truth, design, *score.cells(), file=sys.stderr, flush=True)
                yield (name, f"{truth:.2f}", design, *score.cells()), truth, score


def section(recordings: Sequence[Recording], count: int) -> tuple[list[str], bool]:
    """The part of the page on ending early, and whether a difference was claimed too often."""
    if not recordings:
        return [], False
    tables: list[str] = []
    absent: list[Score] = []
    for recording in recordings:
        found = list(lines(recording.series, count))
        absent += [score for _, truth, score in found if truth == 1]
        loads = " and ".join(sorted({str(len(series)) for series in recording.series.values()}))
        tables += [
            f"Recorded on {recording.date}, {loads} loads of each model, {recording.conditions}:",
            "",
            *markdown_table(HEADER, [line for line, *_ in found]),
            "",
        ]
    page = [
        "## What ending early costs",
        "",
        "Without `--seconds`, a timing [ends early](latency.md) where its answer is clear. To compare that",
        "with a given time, long series of models against themselves were recorded once, at ONNX Runtime's",
        "default, as `python -m benchmarks.replay` does it. Both ways of timing were replayed on them:",
        f"{count:,} times without a difference (true ratio 1.00), and {max(1, count // 3):,} times with each",
        "of two others. A replay draws whole loads, and of each a stretch of rounds:",
        f"{MAX_LOADS} loads of {FIXED_ROUNDS} rounds for the given time, and up to {MOST_LOADS} loads of",
        f"{SHORT_ROUNDS} rounds where it may end early. Original, folded and control change places at random",
        "in every load, so that no difference is left; then the folded model's times are divided by the",
        f"true ratio. Intervals are from {RESAMPLES} resamples.",
        "",
        f"Where there is no difference, one was claimed in {sum(score.wrong for score in absent):,} of",
        f"{sum(len(score.loads) for score in absent):,} replays of both ways together.",
        "",
    ]
    return page + tables, any(score.wrong > 0.05 * len(score.loads) for score in absent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description="Record long timings.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx", help="timed against themselves")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npz", help="where to write them")
    parser.add_argument("--parts", type=int, default=PARTS, metavar="N", help="of eight loads each")
    parser.add_argument("--conditions", default="", metavar="TEXT", help="what else the machine did")
    options = parser.parse_args(arguments)
    series = {model.stem: record(model, options.parts) for model in options.models}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    conditions = ", ".join(filter(None, [options.conditions, f"load average {load:.0f}"]))
    Recording(series, today(), conditions).save(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
