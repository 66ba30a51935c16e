"""What a shell offers after TAB, beyond commands, options and files: targets, and codes of reasons and rules.

click makes the scripts for bash, zsh and fish; docs/completion.md says how to install them. Each function
here is asked at every TAB, so it loads no more than the names that it offers.
"""

from __future__ import annotations

from importlib import resources

import click
from click.shell_completion import CompletionItem


def codes(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Codes of reasons and of the rules of `bnfold check`, each with its few words."""
    del ctx, parameter
    from bnfold.gate.rules import RULES
    from bnfold.reasons import RULES as REASONS

    known = {code: one.title for code, one in REASONS.items()}
    known |= {code: one.title for code, one in RULES.items()}
    return [CompletionItem(code, help=title) for code, title in known.items() if _begins(code, begun)]


def rules(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Codes of the rules of `bnfold check`, for a list that has commas."""
    del ctx, parameter
    from bnfold.gate.rules import RULES

    before, comma, last = begun.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{code}", help=rule.title)
        for code, rule in RULES.items()
        if _begins(code, last)
    ]


def targets(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Targets that come with bnfold; files where none of these begins so, since a TOML file is one too."""
    del ctx, parameter
    folder = resources.files("bnfold.targets") / "profiles"  # the module that reads them takes long to load
    names = sorted(file.name.removesuffix(".toml") for file in folder.iterdir())
    found = [CompletionItem(name) for name in names if _begins(name, begun)]
    return found or [CompletionItem(begun, type="file")]


def files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Whatever files the shell finds, for an argument that may also be a pattern or an address."""
    del ctx, parameter
    return [CompletionItem(begun, type="file")]


def _begins(name: str, begun: str) -> bool:
    return name.lower().startswith(begun.lower())
