"""`bnfold fold`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from . import _collector, _contract, _groups, _lazy, _options, _terminal


@click.command("fold", cls=_groups.Command)
@click.argument("model", type=_options.FILE, metavar="IN.onnx")
@click.option(
    "-o",
    "--output",
    type=_options.FILE,
    metavar="OUT.onnx",
    help="The file to write; an existing one is replaced.",
)
@click.option("--in-place", is_flag=True, help="Replace IN.onnx itself.")
@_contract.contract_options_of_fold
@_options.fold_options
@_options.step_options
@_options.output_options
@_collector.resting()
def command(
    model: Path,
    output: Path | None,
    in_place: bool,
    record_path: Path | None,
    json_path: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Fold an ONNX model without running it.

    This needs neither ONNX Runtime nor PyTorch. To compare the outputs as well, use `bnfold export`, or
    `bnfold validate` afterwards. The same input always gives the same bytes. The report of --json is written
    after the model; if that fails, the model stays. With --in-place the original is not touched until the
    folded model is completely written, and then replaced. Its files of external data are removed if bnfold
    wrote them and no other model in their folder refers to them; others stay.

    \b
    Examples:
        bnfold fold model.onnx -o folded.onnx
        bnfold fold model.onnx -o folded.onnx --json - | jq .fold.summary
        bnfold fold model.onnx --in-place
        bnfold fold model.onnx -o edge.onnx --set-shape 1x3x224x224 --outputs logits
    """
    if in_place == (output is not None):
        raise click.UsageError("Name the file to write with -o OUT.onnx, or use --in-place.")
    if output is not None and output.exists() and model.exists() and output.samefile(model):
        raise click.UsageError(f"{output} is the model itself: use --in-place to replace it, without -o.")
    # numpy's linear algebra would start a thread per core, but a fold multiplies element by element
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _lazy.load_onnx_ir()
    from bnfold.pipeline.fold_file import fold_file
    from bnfold.pipeline.read import Source, read_onnx

    target = output or model
    record = None  # of a source that is about to be replaced
    _terminal.check_report(json_path, model, target)
    _terminal.check_report(record_path, model, target, *filter(None, [json_path]))
    with _terminal.progress(quiet=quiet) as progress:
        source = read_onnx(model) if in_place else model
        if isinstance(source, Source) and (json_path is not None or record_path is not None):
            from bnfold.report import json

            record = json.source_record(source)
        done = fold_file(
            source,
            target,
            in_place=in_place,
            record=record_path is not None,
            progress=progress,
            **options,
        )
    if json_path is not None or record_path is not None:
        from bnfold.report import json

        if record_path is not None:
            _terminal.write_json(json.statistics_document(done, record), record_path)
        if json_path is not None:
            _terminal.write_json(json.export_document("fold", done, record), json_path)
    if not quiet:
        from bnfold.report.terminal import text

        _terminal.show(text.export_report(done), quiet=quiet, json_path=json_path)
