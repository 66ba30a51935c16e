"""Mending what can be mended: a file is replaced only after the fold of it has been proved."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.gate.run import Checked

if TYPE_CHECKING:
    import onnx_ir as ir


def fixable(checked: Checked) -> list[tuple[str, Path]]:
    """The files that have something to mend: as findings name them, and where they are."""
    places = dict(zip(checked.files, checked.paths, strict=True))
    names = dict.fromkeys(one.path for one in checked.findings if one.fixable)
    return [(name, places[name]) for name in names]


def fix(checked: Checked) -> list[str]:
    """Fold in place the files that findings say can be folded.

    Args:
        checked: The findings.

    Returns:
        The files that were replaced, as findings name them.

    Raises:
        BnfoldError: A fold could not be proved, or a file not be written. Files before it are mended, it and
            those after it are as they were.
    """
    from bnfold.pipeline.export import export

    mended = []
    for name, path in fixable(checked):
        export(path, path, in_place=True, bench=False)
        mended.append(name)
    return mended


def difference(checked: Checked) -> Iterator[str]:
    """What `fix` would change in the graphs, as unified diffs with a line a node; no weight is computed."""
    from bnfold.gate.settings import Settings
    from bnfold.gate.subject import Subject

    for name, path in fixable(checked):
        subject = Subject(path, Settings())
        before, after = _lines(subject.model), _lines(subject.folded.model)
        lines = difflib.unified_diff(before, after, name, f"{name} (folded)", lineterm="", n=1)
        yield "".join(f"{line}\n" for line in lines)


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
