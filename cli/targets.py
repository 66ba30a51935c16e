"""`bnfold targets`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _complete, _lazy, _options, _terminal


@click.command("targets")
@click.argument("name", required=False, shell_complete=_complete.targets)
@click.option(
    "--markdown",
    is_flag=True,
    help="Print the table of NAME as Markdown: the pages in docs/targets hold such.",
)
@_options.output_options
def command(name: str | None, markdown: bool, json_path: Path | None, quiet: bool) -> None:
    """List the targets that `--target` takes, or what one demands of a model.

    NAME is a target, or a TOML file that describes one. Each rule has a source and a date: toolchains change,
    and so may what is listed here. What their documentation does not say is listed as not known.

    \b
    Examples:
        bnfold targets
        bnfold targets tensorrt
        bnfold check net.onnx --target tensorrt
        bnfold export net.pt2 -o net.onnx --target tensorrt
    """
    _lazy.load_onnx_ir()
    from bnfold.report import json
    from bnfold.report.targets import facts, target_record
    from bnfold.report.terminal import targets as text
    from bnfold.targets.profile import load, names

    if markdown and name is None:
        raise click.UsageError("--markdown needs the NAME of a target.")
    if markdown and _terminal.is_stdout(json_path):
        raise click.UsageError("--markdown and --json - both use standard output: give --json a file.")
    _terminal.check_report(json_path)
    known = [load(one) for one in ((name,) if name else names())]
    _terminal.write_json(json.document("targets", targets=[target_record(one) for one in known]), json_path)
    if not markdown:
        shown = text.target(known[0]) if name else text.targets(known)
        _terminal.show(shown, quiet=quiet, json_path=json_path)
    elif not quiet:
        click.echo(facts(known[0]), nl=False)
