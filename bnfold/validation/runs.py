"""What was measured of one output: the errors of both models in every run, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bnfold.validation.channels import WHOLE, Extent, Group, groups, luck
from bnfold.validation.deviation import Deviation


@dataclass(frozen=True)
class Run:
    """The largest error of some channels of one output in one run, relative to their scale.

    Attributes:
        original_optimizer_off: Of the original in ONNX Runtime on the CPU with the optimizer off.
        original_same_setting: Of the original at the setting of the folded model.
        original_other_optimizer: Of the original on the same provider at the other optimizer setting.
        folded: Of the folded model.
        sample: The number of the run.
        group: The channels.
        conditioning: How far one rounding of every weight moves the truth; 0 where that was not measured.
            The fewer elements there are, the more of it is left to chance, and the more is added for that.
        moved: The same without that addition.
        has_truth: Whether the oracle evaluated it; otherwise the original in ONNX Runtime is the reference.
    """

    original_optimizer_off: float
    original_same_setting: float
    original_other_optimizer: float
    folded: float
    sample: int = 0
    group: Group = WHOLE
    conditioning: float = 0.0
    moved: float = 0.0
    has_truth: bool = True

    @property
    def original_on_provider(self) -> float:
        """The original's larger error at the two optimizer settings, on the folded model's provider."""
        return max(self.original_same_setting, self.original_other_optimizer)


@dataclass(frozen=True)
class Measured:
    """How far everything is from the truth in one run.

    Attributes:
        truth: The magnitudes of the truth; None unless it is one array of floats.
        original_optimizer_off: As in `Run`, of every channel.
        original_same_setting: Likewise.
        original_other_optimizer: Likewise.
        folded: Likewise.
        conditioning: Likewise.
        has_truth: As in `Run`.
    """

    truth: Extent | None
    original_optimizer_off: Deviation
    original_same_setting: Deviation
    original_other_optimizer: Deviation
    folded: Deviation
    conditioning: Deviation = Deviation()  # noqa: RUF009 - it is frozen
    has_truth: bool = True

    @property
    def rms_ratio(self) -> float | None:
        """Root-mean-square error of the folded model by that of the original at the same setting.

        None where one of them has no error.
        """
        same, folded = self.original_same_setting.rms, self.folded.rms
        is_known = self.has_truth and same and folded and math.isfinite(same + folded)
        return folded / same if is_known else None

    def run(self, sample: int, group: Group) -> Run:
        """The errors in some channels."""
        moved = self._error(self.conditioning, group)
        chance = luck(group.size(self.truth)) if self.truth else 1.0
        return Run(
            self._error(self.original_optimizer_off, group),
            self._error(self.original_same_setting, group),
            self._error(self.original_other_optimizer, group),
            self._error(self.folded, group),
            sample,
            group,
            chance * moved,
            moved,
            self.has_truth,
        )

    def _error(self, found: Deviation, group: Group) -> float:
        return error_in(group, self.truth, found)


def error_in(group: Group, truth: Extent | None, found: Deviation) -> float:
    """The largest error in some channels, relative to their scale."""
    if truth is None or found.absolute is None:
        return found.largest
    error = group.largest(found.absolute)
    scale = group.largest(truth) or group.scale  # a channel may be zero in this run alone
    return error / scale if scale else math.inf if error else 0.0


def runs(measured: Sequence[Measured]) -> list[Run]:
    """The errors of one output in all runs, apart for channels whose scales are far apart."""
    truths = [one.truth for one in measured if one.truth is not None]
    apart = groups(truths) if len(truths) == len(measured) else (WHOLE,)
    return [one.run(sample, group) for sample, one in enumerate(measured) for group in apart]
