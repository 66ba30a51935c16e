"""Matplotlib figures as SVG inside a page, with the fonts and colours of the page and nothing from elsewhere.

A figure is drawn in placeholder colours, which become CSS variables, so that one drawing suits light and
dark. Text stays text, in the page's font. The ids of parts are made unique among all figures of a page, and
the same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bnfold.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Placeholders: colours that nobody would choose, each for a variable of the page's style sheet.
INK, MUTED, LINE, SURFACE = "#010203", "#010204", "#010205", "#010206"
ORIGINAL, FOLDED, CONTROL, BAD = "#010207", "#010208", "#010209", "#01020a"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    SURFACE: "--surface",
    ORIGINAL: "--original",
    FOLDED: "--folded",
    CONTROL: "--control",
    BAD: "--bad",
}
_STYLE: Mapping[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bnfold",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; the page uses its own instead
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "figure.facecolor": "none",
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def figure(width: float, height: float) -> Figure:
    """Make an empty figure; sizes are inches, of 72 units each in the drawing.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "draw the page's plots") from None
    return Figure(figsize=(width, height), layout="constrained")


def style() -> dict[Any, Any]:
    """Settings for `matplotlib.rc_context`, in which a figure is made and converted to text."""
    return dict(_STYLE)


def text(drawing: Figure, prefix: str) -> str:
    """Convert a figure to an `<svg>` element for a page.

    Args:
        drawing: The figure.
        prefix: How the ids of its parts begin; different for every figure of a page.
    """
    stream = io.BytesIO()
    drawing.savefig(stream, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, prefix)
        _share_attributes(element)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("aria-hidden", "true")  # the figure's caption and table describe it
    root.set("focusable", "false")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return _coloured(ElementTree.tostring(root, encoding="unicode"))


def _adapt(element: ElementTree.Element, prefix: str) -> None:
    """Make ids unique, and cut coordinates to hundredths of a unit."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{prefix}-{value}")
        elif key == f"{{{_XLINK}}}href":
            element.set(key, f"#{prefix}-{value[1:]}")
        else:
            moved = re.sub(r"url\(#", f"url(#{prefix}-", value)
            element.set(key, re.sub(r"(\.\d\d)\d+", r"\1", moved))


def _share_attributes(parent: ElementTree.Element) -> None:
    """Move attributes to a group that all its members share, such as those of hundreds of markers."""
    for name in ("style", "clip-path"):
        found = {child.get(name) for child in parent}
        value = found.pop() if len(found) == 1 and len(parent) > 1 else None
        if value is not None and name not in parent.attrib:
            parent.set(name, value)
            for child in parent:
                del child.attrib[name]


def _coloured(drawing: str) -> str:
    for placeholder, variable in _VARIABLES.items():
        drawing = drawing.replace(placeholder, f"var({variable})")
    return drawing
