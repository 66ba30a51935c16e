"""One page for people: a whole report in one file that loads nothing else.

Style, script and plots are in the page. A Content-Security-Policy forbids everything else, and every script
except the one whose hash it has. Text from a model, such as the names of its nodes, is always escaped.
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

from bnfold.display.visible import visible
from bnfold.edge.ranges import ranges
from bnfold.errors import MissingExtraError
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.files.external_data import tensors
from bnfold.report.page import view as views
from bnfold.report.page.tiles import Weights
from bnfold.report.page.view import View, view

if TYPE_CHECKING:
    from bnfold.gate.run import Checked
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.exported import Export


def page(export: Export, *, command: str, record: Mapping[str, Any]) -> str:
    """Make the page of an export.

    Args:
        export: The result.
        command: The command line that made it, as the page shows it.
        record: Its document, from [`export_document`][bnfold.report.json.export_document], which has the
            figures of the page.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    from bnfold.latency.verdicts import THRESHOLD

    original, folded = export.original, export.fold.model
    shown = view(
        record,
        command=command,
        weights=(_weights(original), _weights(folded)),
        measured=ranges(original, folded, export.fold),
        times=_times(export.benchmarks),
        threshold=THRESHOLD,
    )
    return render(shown)


def of_validation(record: Mapping[str, Any], *, command: str) -> str:
    """Make the page of a `validate`.

    Args:
        record: Its document, from [`validate_document`][bnfold.report.json.validate_document].
        command: The command line that made it.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    return render(views.of_validation(record, command=command))


def of_replay(record: Mapping[str, Any], *, command: str) -> str:
    """Make the page of a `validate --replay`.

    Args:
        record: Its document, from [`replay_document`][bnfold.report.json.replay_document].
        command: The command line that made it.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    return render(views.of_replay(record, command=command))


def of_benchmarks(results: Sequence[Benchmark], *, command: str, record: Mapping[str, Any]) -> str:
    """Make the page of a `bench`.

    Args:
        results: What was measured.
        command: The command line that made it.
        record: Its document, from [`bench_document`][bnfold.report.json.bench_document].

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    from bnfold.latency.verdicts import THRESHOLD

    times = _times(results)
    return render(views.of_benchmarks(record, command=command, times=times, threshold=THRESHOLD))


def of_check(checked: Checked, *, command: str) -> str:
    """Make the page of a check.

    Args:
        checked: What it found.
        command: The command line that made it.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    from bnfold.report.page import findings

    return render(findings.view(checked, command=command))


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
        loader=PackageLoader("bnfold.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["svg"] = Markup  # the plots, which have no text from a model in them
    # a long name may be broken after its dots and slashes
    environment.filters["breakable"] = lambda name: Markup(
        re.sub(r"([./])", r"\1<wbr>", str(escape(visible(name))))
    )
    # what is between backticks is typed
    environment.filters["coded"] = lambda text: Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text))))
    )
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
    # a path in the text may have bytes that are not UTF-8; they become question marks
    data = text.encode(errors="replace")
    with save_errors(path), replacing(destination(path)) as stream:
        stream.write(data)


def _weights(model: ir.Model) -> Weights:
    """How much a model's constants are."""
    found = list(tensors(model))
    return Weights(sum(tensor.size for tensor in found), sum(tensor.nbytes for tensor in found))


def _times(results: Sequence[Benchmark]) -> views.Times:
    """The single timings of every row, which the document leaves out."""
    return [
        [
            {
                "original": row.original_times_ms,
                "folded": row.folded_times_ms,
                "control": row.control_times_ms,
            }
            for row in benchmark.rows
        ]
        for benchmark in results
    ]


def _part(name: str) -> str:
    return resources.files("bnfold.report.page").joinpath(name).read_text(encoding="utf-8").strip()


def _hash(script: str) -> str:
    """A script's hash as a Content-Security-Policy writes it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
