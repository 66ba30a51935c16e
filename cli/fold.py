"""`bnfold fold`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _options, _terminal


@click.command("fold")
@click.argument("model", type=_options.FILE, metavar="IN.onnx")
@click.option(
    "-o",
    "--output",
    type=_options.FILE,
    required=True,
    metavar="OUT.onnx",
    help="The file to write; replaced if it is there.",
)
@_options.fold_options
@_options.output_options
def command(
    model: Path,
    output: Path,
    keep: tuple[str, ...],
    merge: bool,
    inline_functions: bool,
    json_path: Path | None,
    quiet: bool,
) -> None:
    """Fold an ONNX model, the pass alone.

    Nothing is run, so this needs neither ONNX Runtime nor PyTorch. To compare the outputs as well, use
    `bnfold export`, or `bnfold validate` afterwards. The same input gives the same bytes. The report of
    --json is written after the model; where that fails, the model stays.

    \b
    Examples:
        bnfold fold model.onnx -o folded.onnx
        bnfold fold model.onnx -o folded.onnx --json - | jq .fold.summary
    """
    from bnfold.pipeline import fold_file
    from bnfold.report import json, text

    _terminal.check_report(json_path, model, output)
    with _terminal.progress(quiet=quiet) as tell:
        done = fold_file(
            model, output, keep=keep, merge=merge, inline_functions=inline_functions, progress=tell
        )
    _terminal.write_json(json.export_document("fold", done), json_path)
    _terminal.show(text.export_report(done), quiet=quiet, json_path=json_path)
