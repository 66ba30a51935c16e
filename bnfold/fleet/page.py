"""The report of a fleet as one page, which loads nothing else and runs no script."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec

from bnfold.display.visible import visible
from bnfold.fleet.summary import Report
from bnfold.fleet.text import WORDS, amount, headline
from bnfold.report.terminal.tables import size


def is_there() -> bool:
    """Whether jinja2 is installed."""
    return find_spec("jinja2") is not None


def render(report: Report) -> str:
    """The page; every name on it is only text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("bnfold.fleet", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {"size": size, "number": lambda count: f"{count:,}", "amount": amount}
    style = resources.files("bnfold.report.page").joinpath("page.css").read_text(encoding="utf-8").strip()
    return environment.get_template("page.html.jinja").render(
        report=report, headline=headline(report), words=WORDS, style=Markup(style)
    )
