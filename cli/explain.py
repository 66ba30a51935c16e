"""`bnfold explain`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _lazy, _options, _terminal


@click.command("explain")
@click.argument("code", required=False)
@click.option("--markdown", is_flag=True, help="Print a page of Markdown; docs/reasons.md is made with this.")
@_options.output_options
def command(code: str | None, markdown: bool, json_path: Path | None, quiet: bool) -> None:
    """Explain why a BatchNorm stays.

    CODE is a reason code that `bnfold inspect` shows, such as BN301. Without CODE, all reasons are listed.

    \b
    Examples:
        bnfold explain
        bnfold explain BN301
        bnfold explain --markdown > docs/reasons.md
    """
    _lazy.load_onnx_ir()
    from bnfold.report import json
    from bnfold.report.rules import all_rules, find_rule, page
    from bnfold.report.terminal import text

    if markdown and _terminal.is_stdout(json_path):
        raise click.UsageError("--markdown and --json - both use standard output: give --json a file.")
    _terminal.check_report(json_path)
    rules = [find_rule(code)] if code else all_rules()
    _terminal.write_json(json.rules_document(rules), json_path)
    if not markdown:
        _terminal.show(text.rule(rules[0]) if code else text.rules(rules), quiet=quiet, json_path=json_path)
    elif not quiet:
        click.echo(page(rules), nl=False)
