"""`bnfold inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import _groups, _lazy, _options, _terminal


@click.command("inspect", cls=_groups.Command)
@click.argument("models", nargs=-1, required=True, type=_options.FILE, metavar="MODEL...")
@click.option(
    "--fail-on",
    "fatal",
    type=click.Choice(["foldable", "kept"]),
    multiple=True,
    help="Exit with 1 if a BatchNorm of a model can be folded, or has to stay. Repeatable.",
)
@_options.torch_options
@_options.fold_options
@_options.verbose_option
@_options.output_options
def command(
    models: tuple[Path, ...],
    fatal: tuple[str, ...],
    keep: tuple[str, ...],
    merge: bool,
    inline_functions: bool,
    no_batchnorm: bool,
    verbose: bool,
    json_path: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what a model is, and what becomes of each of its BatchNorms.

    Nothing is written. The fold is done in memory, so this shows exactly what `bnfold fold` and `bnfold
    export` do. For a BatchNorm that stays it shows a reason code, the node that stops the fold, and what can
    be done about it. With several models the document of --json is a list.

    \b
    Examples:
        bnfold inspect model.onnx
        bnfold inspect model.pt --input-shape 1x3x224x224
        bnfold inspect models/*.onnx --fail-on foldable
        bnfold inspect model.onnx --json - | jq '.fold.sites[] | select(.status == "kept")'
    """
    _lazy.load_onnx_ir()
    from bnfold.errors import listed
    from bnfold.files.load import blaming
    from bnfold.folding.fold import fold
    from bnfold.options import Reading
    from bnfold.pipeline.progress import Stage, within
    from bnfold.pipeline.read import read_model
    from bnfold.report import json
    from bnfold.report.summary import summarise
    from bnfold.report.terminal import text

    _terminal.check_report(json_path, *models)
    documents, failed = [], list[Path]()
    for place, model in enumerate(models):
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
        documents += [json.inspect_document(source, result)] if json_path else []
        if place:
            _terminal.show("", quiet=quiet, json_path=json_path)
        report = text.inspect_report(source, result, summarise(source), verbose=verbose)
        _terminal.show(report, quiet=quiet, json_path=json_path)
        gone, stay = (
            any(site.op_type == "BatchNormalization" for site in sites)
            for sites in (result.folded, result.kept)
        )
        failed += [model] if ("foldable" in fatal and gone) or ("kept" in fatal and stay) else []
    _terminal.write_json(documents[0] if len(models) == 1 and documents else documents, json_path)
    if failed:
        _terminal.say_no(
            f"{listed(map(str, failed))}: there are BatchNorms that --fail-on names.",
            "Leave --quiet out to see them, and what can be done about each.",
            quiet=quiet,
        )
