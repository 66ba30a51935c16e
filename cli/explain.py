"""`bnfold explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from . import _complete, _lazy, _options, _terminal


@click.command("explain")
@click.argument("code", required=False, shell_complete=_complete.codes)
@click.option("--rules", "for_check", is_flag=True, help="List the rules of `bnfold check`.")
@click.option(
    "--markdown", is_flag=True, help="Print a page of Markdown: docs/reasons.md and docs/rules.md are such."
)
@_options.output_options
def command(code: str | None, for_check: bool, markdown: bool, json_path: Path | None, quiet: bool) -> None:
    """Explain why a BatchNorm stays, or a finding of `bnfold check`.

    CODE is a reason that `bnfold inspect` shows, such as BN301, or a rule of `bnfold check`, such as M101;
    the beginning of a code lists all that begin so. Without CODE, all reasons are listed, and with --rules
    all rules.

    \b
    Examples:
        bnfold explain
        bnfold explain BN301
        bnfold explain M101
        bnfold explain BN3
        bnfold explain --markdown > docs/reasons.md
    """
    _lazy.load_onnx_ir()
    from bnfold.report import json
    from bnfold.report.reason_examples import explained
    from bnfold.report.rules import all_rules, check_page, check_rules, find_rules, page
    from bnfold.report.terminal import text

    if markdown and _terminal.is_stdout(json_path):
        raise click.UsageError("--markdown and --json - both use standard output: give --json a file.")
    _terminal.check_report(json_path)
    rules = find_rules(code) if code else check_rules() if for_check else all_rules()
    _terminal.write_json(json.rules_document(rules), json_path)
    if code and len(rules) > 1:
        for_check = rules[0].code.startswith("M")
    if not markdown and code and len(rules) == 1:
        [rule] = rules
        shown = text.rule(replace(rule, sentence=explained(rule)))
        _terminal.show(shown, quiet=quiet, json_path=json_path)
    elif not markdown:
        _terminal.show(text.rules(rules, for_check=for_check), quiet=quiet, json_path=json_path)
    elif not quiet:
        click.echo(check_page(rules) if for_check else page(rules), nl=False)
