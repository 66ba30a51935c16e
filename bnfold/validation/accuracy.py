"""How often two classifiers are right on labelled data, and how far the difference can be chance.

Both see the same rows, so only rows count on which one model is right and the other is wrong. With `n` rows,
of which `gained` are right in the folded model alone and `lost` in the original alone, the interval is that
of Agresti and Min for matched proportions: half a row is added to each of the four cells of the table, which
keeps its coverage where few rows differ or none. Then

    m = n + 2,   d = (gained − lost) / m,   d ± z · √((gained + lost + 1) / m − d²) / √m.

NumPy has no statistics, and neither SciPy nor statsmodels has an interval for matched proportions.

Source: A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
Statistics in Medicine 24 (2005) 729–740.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bnfold.errors import InputError
from bnfold.inputs.samples import Samples
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

Integers: TypeAlias = npt.NDArray[np.int64]

_NORMAL_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Score:
    """Top-k accuracy of two models on the same rows.

    Attributes:
        k: A row counts as right if its class is among the `k` with the largest scores.
        original: Share of right rows, 0 to 1.
        folded: Likewise.
        gained: Number of rows that only the folded model gets right.
        lost: Number of rows that only the original gets right.
        low: Lower end of the 95 % interval of the difference folded − original, −1 to 1.
        high: Its upper end.
    """

    k: int
    original: float
    folded: float
    gained: int
    lost: int
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """How often two models are right on labelled data.

    Attributes:
        output: The output whose last dimension has the scores of the classes.
        rows: Number of labelled rows.
        scores: Top-1, and another top-k unless there are no more classes than that.
        provider: Where both ran, at ONNX Runtime's default; `"float64"` where it cannot load the original.
    """

    output: str
    rows: int
    scores: tuple[Score, ...]
    provider: str = "cpu"

    @property
    def sentence(self) -> str:
        """All scores with their intervals, in percentage points."""
        rows = f"{self.rows:,} labelled row{'' if self.rows == 1 else 's'}"
        return f"Accuracy on {rows}: {'; '.join(map(_clause, self.scores))}."


def _clause(score: Score) -> str:
    difference, low, high = (
        f"{100 * share:+.2f}".replace("-", "−")
        for share in (score.folded - score.original, score.low, score.high)
    )
    return (
        f"top-{score.k} {score.folded:.2%}, original {score.original:.2%}, difference {difference} points "
        f"(95 % interval {low} to {high})"
    )


def measure(
    original: Callable[[Feeds], Sequence[Any]],
    folded: Callable[[Feeds], Sequence[Any] | None],
    samples: Samples,
    ports: Sequence[Port],
    top: int,
) -> Accuracy | None:
    """Run both models on all samples and count.

    Args:
        original: Runs the original.
        folded: Runs the folded model; None where it does not run.
        samples: Inputs with the class of every row, in order.
        ports: The outputs of the original. The first that gives every row a score per class, `[N, C]` or with
            more dimensions of size 1, is that of the classifier.
        top: The `k` of top-k.

    Returns:
        The accuracy; None where the folded model does not run.

    Raises:
        InputError: No output is that of a classifier of these classes.
    """
    assert samples.classes is not None, "there are labels"
    tables = [_Table(samples.classes) for _ in ports]
    for feeds in samples.feeds:
        outputs = folded(feeds)
        if outputs is None:
            return None
        for table, before, after in zip(tables, original(feeds), outputs, strict=True):
            table.add(before, after)
    for port, table in zip(ports, tables, strict=True):
        if table.is_whole:
            ks = (1, top) if 1 < top < table.columns else (1,)
            return Accuracy(port.name, len(samples.classes), tuple(map(table.score, ks)))
    raise InputError(
        f"No output has a score for each class and one row for each of the {len(samples.classes)} labels, "
        f"which are at most {samples.classes.max()}.",
        f"Leave --labels out. The outputs are {'; '.join(map(str, ports))}.",
    )


@dataclass
class _Table:
    """The ranks of the right classes in one output, as far as it may be that of a classifier."""

    classes: Integers
    columns: int = 0
    fits: bool = True
    seen: int = 0
    ranks: list[tuple[Integers, Integers]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return self.fits and self.seen == len(self.classes)

    def add(self, *outputs: object) -> None:
        """Add the rows of one sample, of the original and of the folded model."""
        both = [np.asarray(output) for output in outputs]
        rows, *columns = both[0].shape or (0,)
        self.columns = math.prod(columns[:1])
        classes = self.classes[self.seen : self.seen + rows]
        self.fits = (
            self.fits
            and both[0].shape == both[1].shape
            and both[0].dtype.kind == "f"
            and self.columns > max(1, classes.max(initial=0))
            and math.prod(columns[1:]) == 1
            and len(classes) == rows
        )
        if self.fits:
            before, after = (_ranks(one.reshape(rows, -1), classes) for one in both)
            self.ranks.append((before, after))
            self.seen += rows

    def score(self, k: int) -> Score:
        before, after = (np.concatenate(part) < k for part in zip(*self.ranks, strict=True))
        gained, lost = int(np.sum(after & ~before)), int(np.sum(before & ~after))
        low, high = interval(gained, lost, len(before))
        return Score(k, float(before.mean()), float(after.mean()), gained, lost, low, high)


def _ranks(scores: npt.NDArray[Any], classes: Integers) -> Integers:
    """The place of each row's class among its scores, from 0; of equal scores the first comes first."""
    right = np.take_along_axis(scores, classes[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < classes[:, None]
    ahead = (scores > right) | ((scores == right) & earlier)
    ranks: Integers = np.count_nonzero(ahead, axis=1).astype(np.int64)
    ranks[np.isnan(right[:, 0])] = scores.shape[1]  # it is never right
    return ranks


def interval(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a difference between matched proportions (Agresti and Min).

    Args:
        gained: Rows that only the second model gets right.
        lost: Rows that only the first gets right.
        rows: All rows.

    Returns:
        Its ends, within −1 and 1.
    """
    total = rows + 2
    difference = (gained - lost) / total
    margin = _NORMAL_95 * math.sqrt(((gained + lost + 1) / total - difference**2) / total)
    return max(-1.0, difference - margin), min(1.0, difference + margin)
