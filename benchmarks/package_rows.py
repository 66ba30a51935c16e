"""What was measured of networks, as rows; the tables, the notes and the verdict that are made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.page import markdown_table, today
from benchmarks.tools import TOOLS
from bnfold.system.environment import environment

ORIGINAL, CONTROL, EXPORT, FOLD = "original", "original again", "bnfold", "bnfold fold"
OFFLINE = "ONNX Runtime's file"
PEERS = ("onnxslim", "onnxsim", OFFLINE)
SLOWER = 1.03  # times the original's time


@dataclass
class Made:
    """One file: the original, or what a tool made of it.

    Attributes:
        problem: Why there is no file that can be measured; empty otherwise.
        wrong: How it disagrees with the original; empty where it agrees.
        left: BatchNorms left, with scales per channel.
        nodes: Of the runtime's own graph, at the default and at the extended level.
        megabytes: That the nodes of the latter read and write; NaN where not every size is known.
        grown: What there is more of than in the original's graph.
        ratios: Time as a multiple of the original's, one for each load.
    """

    problem: str = ""
    wrong: str = ""
    left: str = ""
    nodes: tuple[int, int] = (0, 0)
    megabytes: float = 0.0
    grown: Sequence[str] = ()
    ratios: Sequence[float] = ()

    @property
    def ratio(self) -> float:
        """The middle of its ratios; NaN where it was not timed."""
        return float(np.median(self.ratios)) if self.ratios else math.nan

    def __str__(self) -> str:
        if self.problem:
            return "error"
        figures = f"{self.left}; {self.nodes[0]} / {self.nodes[1]}; {_shown(self.megabytes, 2)}"
        return f"{figures} (wrong)" if self.wrong else figures


ABSENT = Made(problem="not made")


@dataclass
class Row:
    """One network.

    Attributes:
        name: In the tables.
        problem: Why nothing was measured; empty otherwise.
        milliseconds: The processor's time for one run of the original.
        files: The original and what was made of it, by the name of what made it.
        control: Ratios of the original that took part again.
    """

    name: str
    problem: str = ""
    milliseconds: float = 0.0
    files: dict[str, Made] = field(default_factory=dict)
    control: Sequence[float] = ()

    @property
    def bnfold(self) -> Made:
        """The file of `export`, or of `fold` where `export` wrote none."""
        exported = self.files.get(EXPORT, ABSENT)
        return self.files.get(FOLD, exported) if exported.problem else exported

    def file(self, name: str) -> Made:
        """What one tool made."""
        return self.bnfold if name == EXPORT else self.files.get(name, ABSENT)

    @classmethod
    def of_json(cls, text: str) -> Row:
        """What `json.dumps(asdict(row))` was made of."""
        values = json.loads(text)
        values["files"] = {name: Made(**made) for name, made in values["files"].items()}
        return cls(**values)


def of_peer(rows: Sequence[Row], name: str) -> tuple[float, int]:
    """The geometric mean of bnfold's time as a multiple of another file's, and over how many networks."""
    ratios = [row.bnfold.ratio / (1.0 if name == ORIGINAL else row.file(name).ratio) for row in rows]
    logs = [math.log(ratio) for ratio in ratios if math.isfinite(ratio)]
    return (math.exp(sum(logs) / len(logs)) if logs else math.nan), len(logs)


def failures(rows: Sequence[Row]) -> list[str]:
    """One line for every wrong file of `export` or `fold`, and for bnfold's file where it grows."""
    lines = []
    for row in rows:
        for name in (EXPORT, FOLD):
            made = row.files.get(name, ABSENT)
            bad = [made.wrong, *(made.grown if made is row.bnfold else ())]
            lines += [f"{row.name}, {name}: {line}" for line in bad if line]
    return lines


def verdict(rows: Sequence[Row]) -> str:
    """The last line."""
    measured = [row for row in rows if row.files]
    grown = sum(bool(row.bnfold.grown) for row in measured)
    wrong = sum(any(row.files.get(name, ABSENT).wrong for name in (EXPORT, FOLD)) for row in measured)
    slower = sum(row.bnfold.ratio > SLOWER for row in measured)
    means = ((name, *of_peer(rows, name)) for name in (ORIGINAL, *PEERS))
    return (
        f"Of {len(measured)} networks, bnfold's file has more nodes, bytes or multiply-adds in {grown}, is "
        f"wrong in {wrong} and is more than {SLOWER - 1:.0%} slower in {slower}. Geometric mean of its time "
        f"as a multiple of: "
        f"{', '.join(f'{name} {mean:.3f} (over {number})' for name, mean, number in means)}."
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What the tables do not show: whatever went wrong, and where `fold` alone writes something else."""
    lines = [f"{row.name}: {row.problem}" for row in rows if row.problem] + failures(rows)
    for row in rows:
        for name, made in row.files.items():
            said = made.problem or (made.wrong if name in PEERS else "")
            lines += [f"{row.name}, {name}: {said}"] if said else []
        alone, whole = (row.files.get(name, ABSENT) for name in (FOLD, EXPORT))
        if not alone.problem and not whole.problem and (str(alone) != str(whole) or alone.grown):
            lines.append(f"{row.name}: `fold` alone leaves {'; '.join([str(alone), *alone.grown])}")
    return lines


def tables(rows: Sequence[Row]) -> list[str]:
    """Both tables."""
    measured = [row for row in rows if row.files]
    names = (ORIGINAL, EXPORT, *PEERS)
    graphs = [(row.name, *(f"{row.file(name)}" for name in names)) for row in measured]
    times = [
        (
            row.name,
            f"{row.milliseconds:.2f} ms",
            f"{np.median(row.control):.3f}",
            *(_shown(row.file(name).ratio, 3) for name in names[1:]),
        )
        for row in measured
    ]
    return [
        *markdown_table(("network", *names), graphs),
        "",
        *markdown_table(("network", ORIGINAL, CONTROL, *names[1:]), times),
    ]


def _shown(figure: float, digits: int) -> str:
    return "–" if math.isnan(figure) else f"{figure:.{digits}f}"


def section(rows: Sequence[Row], command: str) -> str:
    """What the page has between its marks."""
    tools = (TOOLS[name] for name in ("ONNX Runtime", *PEERS) if name in TOOLS)
    versions = [f"{tool.package} {tool.version or 'not installed'}" for tool in tools]
    lines = [
        f"Measured on {today()} on {environment().cpu} with {', '.join(versions)}:",
        "",
        f"```console\n$ {command}\n```",
        "",
        verdict(rows),
        "",
        *tables(rows),
    ]
    found = notes(rows)
    return "\n".join([*lines, *([""] if found else []), *(f"- {line}" for line in found)])
