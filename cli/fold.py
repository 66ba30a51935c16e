"""`bnfold fold`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _collector, _contract, _groups, _lazy, _module, _options, _terminal

if TYPE_CHECKING:
    from bnfold.pipeline.exported import Export


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
@_options.html_option
@_options.verbose_option
@_options.output_options
@_collector.resting()
def command(
    model: Path,
    output: Path | None,
    in_place: bool,
    record_path: Path | None,
    json_path: Path | None,
    html_path: Path | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fold an ONNX model without running it.

    This needs neither ONNX Runtime nor PyTorch. To compare the outputs as well, use `bnfold export`, or
    `bnfold validate` afterwards. The same input always gives the same bytes. Reports are written after the
    model; if that fails, the model stays. With --in-place the original is not touched until the
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
    _module.check_name(output, None)
    # numpy's linear algebra would start a thread per core, but a fold multiplies element by element
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _lazy.load_onnx_ir()
    from bnfold.pipeline.fold_file import fold_file
    from bnfold.pipeline.read import Source, is_torch, read_onnx

    if is_torch(model):
        raise _export_instead(model, output)
    target = output or model
    source_record = None  # of a source that is about to be replaced
    reports = [path for path in (json_path, record_path, html_path) if path is not None]
    _terminal.check_report(json_path, model, target)
    _terminal.check_report(record_path, model, target, *filter(None, [json_path]))
    _terminal.check_page(html_path, model, target, json_path, record_path)
    with _terminal.progress(quiet=quiet) as progress:
        source = read_onnx(model) if in_place else model
        if isinstance(source, Source) and reports:
            from bnfold.report import json

            source_record = json.source_record(source)
        done = fold_file(
            source,
            target,
            in_place=in_place,
            record=record_path is not None,
            progress=progress,
            **options,
        )
    if record_path is not None:
        from bnfold.report import json

        _terminal.write_json(json.statistics_document(done, source_record), record_path)
    if json_path is not None or html_path is not None:
        _write(done, source_record, json_path, html_path)
    if not quiet:
        from bnfold.report.terminal import text

        _terminal.show(text.export_report(done, verbose=verbose), quiet=quiet, json_path=json_path)
    _terminal.show_record(record_path, len(done.statistics), quiet=quiet, json_path=json_path)
    _terminal.show_page(html_path, quiet=quiet, json_path=json_path)


def _write(
    done: Export, source_record: dict[str, Any] | None, json_path: Path | None, html_path: Path | None
) -> None:
    """Write the reports that the options ask for."""
    from bnfold.report import json

    record = json.export_document("fold", done, source_record)
    _terminal.write_json(record, json_path)
    if html_path is not None:
        from bnfold.report.page import html

        html.write(html.page(done, command=_terminal.command_line(), record=record), html_path)


def _export_instead(model: Path, output: Path | None) -> Exception:
    """The answer to a PyTorch file: the command that takes it."""
    from bnfold.errors import ModelError

    words = ["bnfold", "export", str(model), *(["-o", str(output)] if output is not None else [])]
    problem = f"{model} is a PyTorch file; an ONNX model is needed here."
    return ModelError(problem, f"Type: {shlex.join(words)}")
