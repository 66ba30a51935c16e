"""What ONNX Runtime makes of both models, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from bnfold import reasons
from bnfold.report.terminal.tables import change, count, large, size

if TYPE_CHECKING:
    from bnfold.pipeline.harm import RuntimeGraphs
    from bnfold.result import FoldResult, Site


def graphs(found: RuntimeGraphs, fold: FoldResult[Any]) -> Text:
    """Compare the nodes, the bytes and the multiply-adds of both graphs; say what is worse all the same."""
    before, after = found.original, found.folded
    figures = [f"{change(str(before.nodes), str(after.nodes))} nodes"]
    if before.bytes is not None and after.bytes is not None:
        figures.append(f"{change(size(before.bytes), size(after.bytes))} read and written")
    if before.multiply_adds is not None and after.multiply_adds is not None:
        figures.append(f"{change(large(before.multiply_adds), large(after.multiply_adds))} multiply-adds")
    line = Text(f"ONNX Runtime's own graph: {', '.join(figures)}")
    if found.taken_back:
        # a node that was left as it is may be of a site with several nodes
        back = sum(map(_was_taken_back, fold.kept)) or len(found.taken_back)
        verb = "was" if back == 1 else "were"
        line.append(f"; {count(back, 'fold')} that made it worse {verb} taken back")
    if found.apart:
        line.append("; it was worse with branches and layers merged, so none are")
    line.append(".")
    if found.worse:
        line.append(f"\nThe fold makes it worse, with {' and '.join(found.worse)}.", style="bold red")
    return line


def _was_taken_back(site: Site) -> bool:
    given = (site.reason, site.reason_after)
    return any(reason is not None and reason.rule == reasons.RUNTIME_WORSE for reason in given)
