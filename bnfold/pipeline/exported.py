"""What an export did, and why nothing was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir as ir

from bnfold.contract.contract import AS_IT_IS, Contract
from bnfold.display.shown import Shown
from bnfold.errors import BnfoldError, DisagreementError
from bnfold.pipeline.harm import RuntimeGraphs
from bnfold.pipeline.narrow import narrowed, renamed
from bnfold.pipeline.read import Source
from bnfold.pipeline.statistics import Statistics
from bnfold.pipeline.steps import Done
from bnfold.result import FoldResult

if TYPE_CHECKING:
    from bnfold.display.plots import Bar
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.targeting import Reached
    from bnfold.validation.validate import Validation


@dataclass(frozen=True, repr=False)
class Export(Shown):
    """What [`export`][bnfold.export] did. It is true if a file was written.

    Attributes:
        source: The model as it was read.
        destination: The file that was written; None if nothing was.
        fold: The folded model and the outcome for every site.
        validation: How well the folded model agrees with the original; None if it was not validated.
        benchmarks: Latency, one entry per provider; empty if it was not measured.
        rolled_back: Names of the nodes that were left as they are because folding them gave wrong results.
        graphs: What ONNX Runtime makes of both models; None if it is not installed or cannot load them, or
            they are too large.
        not_timed: Why the latency was not measured although it was asked for, as a sentence.
        steps: What was done after the fold, in that order; `fold` has the model that came out of it.
        statistics: The numbers of every BatchNorm that was folded, if they were asked for.
        asked: The contract that the model was brought to before the fold.
        contract: What was done for it, in that order.
        base: The model that came out of it.
        target: What still stands in the way of the target, if one was named.
        no_graphs: Why there are no `graphs`, as a clause; empty where there are.
    """

    source: Source
    destination: Path | None
    fold: FoldResult[ir.Model]
    validation: Validation | None = None
    benchmarks: tuple[Benchmark, ...] = ()
    rolled_back: tuple[str, ...] = ()
    graphs: RuntimeGraphs | None = None
    not_timed: str | None = None
    steps: tuple[Done, ...] = ()
    statistics: tuple[Statistics, ...] = ()
    asked: Contract = AS_IT_IS
    contract: tuple[Done, ...] = ()
    base: ir.Model | None = None
    target: Reached | None = None
    no_graphs: str = ""

    axis: ClassVar[str] = "sites"

    @property
    def headline(self) -> str:
        """What was folded, whether the models agree, whether it is faster, and what was written."""
        parts, less = [self.fold.headline], narrowed(self.steps)
        if self.validation is not None:
            said = self.validation.headline
            parts.append(f"{less.before}{said[0].lower()}{said[1:]} {less.sentence}" if less else said)
        parts += [renamed(one.headline, less) for one in self.benchmarks]
        parts.append(f"Written: {self.destination}." if self.destination else "Nothing was written.")
        return " ".join(parts)

    def __bool__(self) -> bool:
        return self.destination is not None

    def records(self) -> list[dict[str, Any]]:
        """A row for each site; `validation` and `benchmarks` have their own."""
        return self.fold.records()

    def bars(self) -> Sequence[Bar]:
        """How many sites of each operator had each fate."""
        return self.fold.bars()

    @property
    def original(self) -> ir.Model:
        """The model that the fold, the validation and the latency begin with."""
        return self.source.model if self.base is None else self.base


class ExportDisagreementError(DisagreementError):
    """The folded model disagrees with the original; nothing was written.

    Args:
        export: The results so far, with the validation that did not pass.
        destination: The file that was to be written.
        rollback: Whether undoing only the wrong folds was tried.
    """

    def __init__(self, export: Export, destination: Path, *, rollback: bool = False) -> None:
        undo = " --rollback undoes only the folds that are wrong and keeps the rest."
        super().__init__(
            f"The folded model does not agree with {export.source.path}; {destination} was not written.",
            f"A fold is meant to be exact: please report this, with the model.{'' if rollback else undo}"
            " If you accept the difference, give a larger --tolerance.",
            cause=next(iter(export.validation.failures), "") if export.validation is not None else "",
        )
        self.export = export


class NotFasterError(BnfoldError):
    """The folded model was to be written only if it is faster, and it is not; nothing was written.

    Args:
        export: The results, with the latency.
        destination: The file that was to be written.
    """

    exit_code = 1

    def __init__(self, export: Export, destination: Path) -> None:
        verdicts = "; ".join(
            f"on {benchmark.place(row)}, {row.sentence}"
            for benchmark in export.benchmarks
            for row in benchmark.defaults
            if row.verdict != "faster"
        )
        super().__init__(
            f"{destination} was not written, since it would not be faster: {verdicts}.",
            "To write it all the same, leave --only-if-faster out.",
        )
        self.export = export


class NarrowedTooFarError(BnfoldError):
    """The model in fewer bits is not good enough; nothing was written.

    Args:
        export: The results, with what the last step found.
        destination: The file that was to be written.
    """

    exit_code = 1

    def __init__(self, export: Export, destination: Path) -> None:
        super().__init__(
            f"{destination} was not written. {export.steps[-1].sentence}",
            "The report says which layers cost most; --leave keeps one in float32. For --int8 try --equalize "
            "or --per-channel, or more data for --calibration.",
        )
        self.export = export
