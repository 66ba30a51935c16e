"""Progress of a long job, reported to the caller stage by stage."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping


class Stage(enum.StrEnum):
    """A stage of a job, in the order of the whole one; each is also its string, as `"load"`."""

    LOAD = "load"
    EXPORT = "export"
    FOLD = "fold"
    VALIDATE = "validate"
    TIME = "time"
    SAVE = "save"
    CHECK = "check"
    EQUALIZE = "equalize"

    __str__ = str.__str__


WORDS: Mapping[str, str] = {
    Stage.LOAD: "Loading",
    Stage.EXPORT: "Exporting to ONNX",
    Stage.FOLD: "Folding",
    Stage.VALIDATE: "Comparing outputs",
    Stage.TIME: "Timing",
    Stage.SAVE: "Saving",
    Stage.CHECK: "Checking",
    Stage.EQUALIZE: "Balancing channels",
}
"""What each stage is called where it is shown."""

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a stage of unknown length has the total 0."""


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""
    del stage, done, total


def within(stage: Stage, progress: Progress) -> Callable[[int, int], None]:
    """The progress callback for one stage."""
    return lambda done, total: progress(stage, done, total)
