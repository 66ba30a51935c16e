"""What was judged of each network's files, as rows; the tables, the counts and the list of what matters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.page import markdown_table

AGREES, DIFFERS, UNDECIDED, ABSENT = "agrees", "differs", "not judged", "no file"


@dataclass
class Cell:
    """One file that was held against its original.

    Attributes:
        verdict: One of the four words above.
        why: What the judge says where it does not agree, or why there is no verdict or no file.
        seconds: That the judge's process took.
        megabytes: That it held in memory at most.
        error: Of the channel that is farthest off by the independent check, relative to its size.
        noise: What roundings do to that channel.
        excess: The error by what the check allows; a file is right up to 1.
        where: Which channel it is.
        problem: Why the check has no figures; empty where it has.
        checked: Whether the check could be made; not where ONNX Runtime does not run the original.
    """

    verdict: str
    why: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    error: float = 0.0
    noise: float = 0.0
    excess: float = 0.0
    where: str = ""
    problem: str = ""
    checked: bool = True

    @property
    def is_right(self) -> bool:
        """Whether the file is right by the independent check."""
        return self.checked and not self.problem and self.excess <= 1

    @property
    def is_mistaken(self) -> bool:
        """Whether the verdict and the check say opposite things."""
        decided = self.checked and self.verdict in (AGREES, DIFFERS)
        return decided and (self.verdict == AGREES) != self.is_right

    def __str__(self) -> str:
        if self.verdict == ABSENT:
            return ABSENT
        figures = f"{_short(self.error)} / {_short(self.noise)}" if self.error else "0"
        figures = "no figures" if self.problem else figures
        verdict = self.verdict if self.verdict == AGREES else f"**{self.verdict}**"
        found = " (unchecked)" if not self.checked else "" if self.is_right else " (wrong)"
        return f"{verdict} {figures}{found}"


@dataclass
class Row:
    """One network.

    Attributes:
        name: In the tables.
        problem: Why nothing was judged; empty otherwise.
        cells: By the name of what wrote the file.
        same: Names of what wrote the same graph as another, with that one's name.
    """

    name: str
    problem: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, text: str) -> Row:
        """What `json.dumps(asdict(row))` was made of."""
        values = json.loads(text)
        values["cells"] = {name: Cell(**cell) for name, cell in values["cells"].items()}
        return cls(**values)

    def cell(self, name: str) -> Cell:
        """The file of one tool."""
        return self.cells.get(self.same.get(name, name), Cell(ABSENT, "not made"))


def _short(figure: float) -> str:
    return "0" if figure == 0 else "∞" if figure >= 1e9 else f"{figure:.0e}"


def mistakes(rows: Sequence[Row]) -> list[str]:
    """One line for every verdict that the independent check does not bear out."""
    return [
        f"{row.name}, {name}: {cell.verdict}, and the check finds {_found(cell)}"
        for row, name, cell in _cells(rows)
        if cell.is_mistaken
    ]


def _cells(rows: Sequence[Row]) -> Iterator[tuple[Row, str, Cell]]:
    for row in rows:
        for name, cell in row.cells.items():
            yield row, name, cell


def _found(cell: Cell) -> str:
    if cell.problem:
        return cell.problem
    return (
        f"{_short(cell.error)} in {cell.where or 'every channel'} where roundings make {_short(cell.noise)}"
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What is to be read beside the table: every verdict but `agrees`, and every wrong file."""
    lines = [f"{row.name}: {row.problem}" for row in rows if row.problem]
    groups: dict[tuple[str, str], list[str]] = {}
    for row, name, cell in _cells(rows):
        if cell.verdict != AGREES or not cell.is_right:
            found = "" if cell.verdict == ABSENT else f" The check: {_found(cell)}."
            names = groups.setdefault((row.name, f"{cell.verdict}. {cell.why}{found}"), [])
            names += [name, *(other for other, first in row.same.items() if first == name)]
    return lines + [f"{row}, {', '.join(names)}: {said}" for (row, said), names in groups.items()]


def counts(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """A table of how the verdicts on each tool's files stand to what the files are."""
    header = ("file of", "files", "right and agrees", "wrong and differs", "right and differs")
    lines = []
    for name in names:
        cells = [row.cell(name) for row in rows if not row.problem]
        files = [cell for cell in cells if cell.verdict != ABSENT]
        of = Counter((cell.is_right, cell.verdict) for cell in files if cell.checked)
        figures = (of[True, AGREES], of[False, DIFFERS], of[True, DIFFERS], of[False, AGREES])
        judged = [cell for cell in files if cell.verdict != UNDECIDED]
        unchecked = sum(not cell.checked for cell in judged)
        left = [unchecked, len(files) - len(judged), len(cells) - len(files)]
        lines.append((name, *map(str, (len(files), *figures, *left))))
    return markdown_table((*header, "wrong and agrees", "unchecked", "not judged", "no file"), lines)


def costs(rows: Sequence[Row]) -> str:
    """What the longest and the largest judgement took."""
    cells = [(cell.seconds, cell.megabytes, row.name) for row, _, cell in _cells(rows) if cell.seconds]
    if not cells:
        return "Nothing was judged."
    seconds, _, slow = max(cells)
    megabytes, large = max((one[1], one[2]) for one in cells)
    return (
        f"{len(cells)} comparisons, each in a process of its own; the longest took {seconds:.0f} s ({slow}), "
        f"the largest {megabytes:,.0f} MB ({large})."
    )


def table(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Every network and every file."""
    judged = [row for row in rows if not row.problem]
    return markdown_table(
        ("network", *names), [(row.name, *(f"{row.cell(name)}" for name in names)) for row in judged]
    )
