"""One page for people: a whole export in one file that fetches nothing.

Style, script and plots stand in the page. A Content-Security-Policy forbids everything else, and all scripts
but the one whose hash it names. What comes from a model, such as the names of its nodes, is escaped wherever
it stands.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.errors import MissingExtraError
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.external_data import tensors
from bnfold.report.page.view import View, view
from bnfold.report.page.weight_ranges import ranges

if TYPE_CHECKING:
    from bnfold.latency.results import Row
    from bnfold.pipeline.export import Export


def page(export: Export, *, command: str, record: Mapping[str, Any]) -> str:
    """Make the page of an export.

    Args:
        export: What was done.
        command: The command line that did it, as the page is to show it.
        record: The same as a document, from [`export_document`][bnfold.report.json.export_document]; the
            figures of the page are those that stand in it.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    from bnfold.latency.results import THRESHOLD

    original, folded = export.source.model, export.fold.model
    shown = view(
        record,
        command=command,
        parameters=(_parameters(original), _parameters(folded)),
        measured=ranges(original, folded, export.fold),
        times=[[_times(row) for row in benchmark.rows] for benchmark in export.benchmarks],
        threshold=THRESHOLD,
    )
    return render(shown)


def render(shown: View) -> str:
    """Fill the template with a view, as [`view`][bnfold.report.page.view.view] makes it.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup, escape
    except ImportError:
        raise MissingExtraError("jinja2", "report", "write the page") from None
    environment = Environment(
        loader=PackageLoader("bnfold.report.page", ""), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["svg"] = Markup  # the plots, which hold no text of a model
    # a long name may be broken behind its dots and slashes
    environment.filters["breakable"] = lambda name: Markup(re.sub(r"([./])", r"\1<wbr>", str(escape(name))))
    script = _part("page.js")
    return environment.get_template("page.html.jinja").render(
        **shown,
        style=Markup(_part("page.css")),
        script=Markup(script),
        script_hash=Markup(_hash(script)),
    )


def write(text: str, path: str | os.PathLike[str]) -> None:
    """Write a page to a file, whole or not at all.

    Raises:
        SaveError: The file could not be written.
    """
    # a path with bytes that are no UTF-8 may be in the text; it is shown with a question mark there
    data = text.encode(errors="replace")
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(data)


def _parameters(model: ir.Model) -> int:
    """How many numbers a model's constants hold."""
    return sum(tensor.size for tensor in tensors(model))


def _times(row: Row) -> dict[str, Sequence[float]]:
    """The single timings of a row, which the document leaves out."""
    return {
        "original": row.original_times_ms,
        "folded": row.folded_times_ms,
        "control": row.control_times_ms,
    }


def _part(name: str) -> str:
    return resources.files("bnfold.report.page").joinpath(name).read_text(encoding="utf-8").strip()


def _hash(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
