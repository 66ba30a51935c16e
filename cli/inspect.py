"""`bnfold inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import _lazy, _options, _terminal


@click.command("inspect")
@click.argument("model", type=_options.FILE)
@_options.torch_options
@_options.fold_options
@_options.output_options
def command(
    model: Path,
    keep: tuple[str, ...],
    merge: bool,
    inline_functions: bool,
    no_batchnorm: bool,
    json_path: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Show where each BatchNorm would be folded, or why it stays.

    Nothing is written. The fold is done in memory, so this shows exactly what `bnfold fold` and `bnfold
    export` do. For a BatchNorm that stays it shows a reason code, the node that stops the fold, and what can
    be done about it.

    \b
    Examples:
        bnfold inspect model.onnx
        bnfold inspect model.pt --input-shape 1x3x224x224
        bnfold inspect model.onnx --json - | jq '.fold.sites[] | select(.status == "kept")'
    """
    _lazy.load_onnx_ir()
    from bnfold.files.load import blaming
    from bnfold.folding.fold import fold
    from bnfold.options import Reading
    from bnfold.pipeline.progress import Stage, within
    from bnfold.pipeline.read import read_model
    from bnfold.report import json
    from bnfold.report.terminal import text

    _terminal.check_report(json_path, model)
    with _terminal.progress(quiet=quiet) as progress:
        source = read_model(model, Reading(**options), progress=progress)
        progress(Stage.FOLD, 0, 0)
        with blaming(model):
            result = fold(
                source.model,
                keep=keep,
                merge=merge,
                inline_functions=inline_functions,
                no_batchnorm=no_batchnorm,
                on_progress=within(Stage.FOLD, progress),
            )
    _terminal.write_json(json.inspect_document(source, result), json_path)
    _terminal.show(text.inspect_report(source, result), quiet=quiet, json_path=json_path)
