"""Mending what can be mended: a file is replaced only after the fold of it has been proved."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import BnfoldError, MissingExtraError, reason
from bnfold.gate.pool import NotAnswered, outcomes
from bnfold.gate.run import Checked

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Mended:
    """What came of a mending.

    Attributes:
        files: The files that were replaced, as findings name them.
        failures: The others and why each is as it was, as part of a sentence.
    """

    files: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]


def fixable(checked: Checked) -> list[tuple[str, Path]]:
    """The files that have something to mend: as findings name them, and where they are."""
    places = dict(zip(checked.files, checked.paths, strict=True))
    names = dict.fromkeys(one.path for one in checked.findings if one.fixable)
    return [(name, places[name]) for name in names]


def fix(checked: Checked, *, jobs: int | None = None, time_limit: float = 600.0) -> Mended:
    """Fold in place the files that findings say can be folded.

    Args:
        checked: The findings.
        jobs: How many files are folded side by side; None takes the number of CPUs.
        time_limit: Seconds for one file, after which its process is ended.

    Returns:
        Which files were replaced. One whose fold could not be proved, or that could not be written, is as it
        was, and says nothing of the others.

    Raises:
        BnfoldError: A package is not installed without which nothing can be proved.
    """
    done = list(_each(_mend, checked, jobs, time_limit))
    files = tuple(name for name, outcome in done if not isinstance(outcome, NotAnswered))
    failures = tuple((name, outcome.why) for name, outcome in done if isinstance(outcome, NotAnswered))
    return Mended(files, failures)


def difference(checked: Checked, *, jobs: int | None = None, time_limit: float = 600.0) -> Iterator[str]:
    """What `fix` would change in the graphs, as unified diffs with a line a node; no weight is computed.

    Args:
        checked: The findings.
        jobs: How many files are looked at side by side; None takes the number of CPUs.
        time_limit: Seconds for one file, after which its process is ended.
    """
    for name, outcome in _each(_before_and_after, checked, jobs, time_limit):
        if isinstance(outcome, NotAnswered):
            yield f"{name} cannot be folded: {outcome.why}\n"
            continue
        before, after = outcome
        lines = difflib.unified_diff(before, after, name, f"{name} (folded)", lineterm="", n=1)
        yield "".join(f"{line}\n" for line in lines)


def _each(
    function: Callable[[Path], Any], checked: Checked, jobs: int | None, limit: float
) -> Iterator[tuple[str, Any]]:
    asked = {name: (function, path) for name, path in fixable(checked)}
    for name, outcome in outcomes(_guarded, asked, jobs or os.cpu_count() or 1, limit):
        if isinstance(outcome, NotAnswered) and outcome.fix:
            raise BnfoldError(outcome.why, outcome.fix)
        yield name, outcome


def _guarded(function: Callable[[Path], Any], path: Path) -> Any:
    """What a function makes of a file, whatever happens on the way."""
    try:
        return function(path)
    except MissingExtraError as error:
        return NotAnswered(error.problem, error.fix)
    except MemoryError:
        return NotAnswered("there was not enough memory")
    except (BnfoldError, OSError) as error:
        return NotAnswered(reason(error))


def _mend(path: Path) -> None:
    from bnfold.pipeline.export import export

    export(path, path, in_place=True, bench=False)


def _before_and_after(path: Path) -> tuple[list[str], list[str]]:
    """The nodes of a model, and those of the folded one."""
    from bnfold.gate.settings import Settings
    from bnfold.gate.subject import Subject

    subject = Subject(path, Settings())
    return _lines(subject.model), _lines(subject.folded.model)


def _lines(model: ir.Model) -> list[str]:
    """A line a node: its operator, its name, what it reads and computes."""
    from bnfold.graph.nodes import label, name_of
    from bnfold.graph.scopes import scopes

    lines = (
        f"{node.op_type} {label(node)}: {', '.join(map(name_of, node.inputs))}"
        f" -> {', '.join(map(name_of, node.outputs))}"
        for scope in scopes(model)
        for node in scope.graph
        if node.op_type != "Constant"
    )
    return [line.replace("\n", "\\n") for line in lines]  # a name may hold any character
