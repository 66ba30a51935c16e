"""What the site needs beyond the pages of this folder: pages that stand elsewhere in the repository.

MkDocs loads this file (`hooks` in mkdocs.yml). CHANGELOG.md, CONTRIBUTING.md and models/README.md become
pages of the site, and links between them and docs/ are made to fit, so that the same files can be read in
the repository.

Docstrings refer to what the site does not show, such as a helper's module. Such a name is shown without a
link; one that is not in the source at all stays a warning, and so an error with --strict.
"""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from bnfold_cli import main

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "models.md": "models/README.md",
}


def _exists(name: str) -> bool:
    """Whether the source has a module of this name, or a module that defines its last part."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    for file in (path.parent.with_suffix(".py"), path.parent / "__init__.py"):
        if file.is_file():
            tree = ast.parse(file.read_text(encoding="utf-8"))
            named = {getattr(node, "name", getattr(node, "id", None)) for node in ast.walk(tree)}
            return path.name in named
    return path.parent != ROOT and _exists(name.rpartition(".")[0])  # a method of a class


def _is_wrong(record: logging.LogRecord) -> bool:
    found = re.search(r"cross-reference target '(bnfold\.[\w.]+)'", record.getMessage())
    return found is None or not _exists(found[1])


def on_startup(**_: object) -> None:
    """Let names that the source has pass without a link."""
    logging.getLogger("mkdocs.plugins.mkdocs_autorefs._internal.plugin").addFilter(_is_wrong)


def _commands() -> str:
    """The page of all commands, each as its `--help` has it."""
    parts = ["# Commands", "What `bnfold --help` and `bnfold COMMAND --help` print."]
    pending = [click.Context(main, info_name="bnfold", terminal_width=90)]
    while pending:
        context = pending.pop(0)
        parts.append(f"## {context.command_path}\n\n```text\n{context.command.get_help(context)}\n```")
        if isinstance(context.command, click.Group):
            commands = [
                (n, context.command.get_command(context, n)) for n in context.command.list_commands(context)
            ]
            pending += [
                click.Context(one, parent=context, info_name=n, terminal_width=90)
                for n, one in commands
                if one
            ]
    return "\n\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere, and that of the commands."""
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    for page, source in ELSEWHERE.items():
        text = (
            (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](").replace("](../docs/", "](")
        )
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to files elsewhere lead to their pages."""
    for page, source in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown
