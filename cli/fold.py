"""`bnfold fold`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from . import _collector, _lazy, _options, _terminal


@click.command("fold")
@click.argument("model", type=_options.FILE, metavar="IN.onnx")
@click.option(
    "-o",
    "--output",
    type=_options.FILE,
    metavar="OUT.onnx",
    help="The file to write; an existing one is replaced.",
)
@click.option("--in-place", is_flag=True, help="Replace IN.onnx itself.")
@_options.fold_options
@_options.step_options
@_options.output_options
@_collector.resting()
def command(
    model: Path,
    output: Path | None,
    in_place: bool,
    keep: tuple[str, ...],
    merge: bool,
    inline_functions: bool,
    no_batchnorm: bool,
    equalize: bool,
    record_path: Path | None,
    record_in_model: bool,
    json_path: Path | None,
    quiet: bool,
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
    """
    if in_place == (output is not None):
        raise click.UsageError("Name the file to write with -o OUT.onnx, or use --in-place.")
    # numpy's linear algebra would start a thread per core, but a fold multiplies element by element
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _lazy.load_onnx_ir()
    from bnfold.pipeline.export import fold_file
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
            keep=keep,
            merge=merge,
            inline_functions=inline_functions,
            no_batchnorm=no_batchnorm,
            equalize=equalize,
            record=record_path is not None,
            record_in_model=record_in_model,
            progress=progress,
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
