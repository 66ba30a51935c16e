"""`bnfold export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _contract, _edge, _groups, _lazy, _module, _options, _run_options, _target, _terminal

if TYPE_CHECKING:
    from bnfold.inputs.given import Given
    from bnfold.pipeline.exported import Export
    from bnfold.torch.write_back.save import Form


@click.command("export", cls=_groups.Command)
@click.argument("model", type=_options.FILE)
@_groups.together(
    "The file",
    click.option(
        "-o",
        "--output",
        type=_options.FILE,
        metavar="OUT.onnx",
        help="The file to write; an existing one is replaced. Without it, MODEL.folded.onnx next to the"
        " model.",
    ),
)
@_module.option
@_options.torch_options
@_contract.contract_options
@_target.option
@_options.fold_options
@_options.step_options
@_edge.narrow_options
@_run_options.provider_option
@_run_options.data_options
@_run_options.label_options
@_run_options.validation_options
@_run_options.timing_options
@_groups.together(
    "What decides",
    click.option(
        "--rollback",
        is_flag=True,
        help="If a fold turns out wrong, undo it and keep the others, instead of writing nothing.",
    ),
    click.option("--no-validate", is_flag=True, help="Write the file without comparing the outputs first."),
    click.option("--no-bench", is_flag=True, help="Do not measure the latency."),
    click.option(
        "--only-if-faster",
        is_flag=True,
        help="Write the file only if the folded model turns out faster at ONNX Runtime's default on every"
        " --provider; exit with 1 otherwise.",
    ),
)
@_options.html_option
@_options.verbose_option
@_options.output_options
def command(
    model: Path,
    output: Path | None,
    form: Form | None,
    target: str | None,
    inputs: Given | None,
    no_validate: bool,
    no_bench: bool,
    html_path: Path | None,
    verbose: bool,
    record_path: Path | None,
    json_path: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Turn a trained model into a checked ONNX file.

    MODEL is a .pt2 file of torch.export, a .pt or .pth file with a whole module, TorchScript or weights, a
    .safetensors file, or an .onnx file; its content counts, not its suffix. Weights need --arch. Every
    BatchNorm that can be removed exactly is folded into the weights around it. If ONNX Runtime is installed,
    the graphs that its optimizer makes of both models are compared, without running them; folds that add
    nodes, bytes read and written or multiply-adds there are taken back (reason BN310). Then the original and
    the folded model run on the same data in ONNX Runtime, and their latency is measured; if the folded model
    is slower, the first line of the report says so. The file is written only if the outputs agree, and then
    completely or not at all. Changes of the inputs, outputs and versions come before the fold; each is proved
    by running the model before and after it, and data of --inputs is then that of the new inputs. The report
    of --json is written after the model; if that fails, the model stays.

    \b
    Examples:
        bnfold export model.pt --input-shape 1x3x224x224 -o model.onnx
        bnfold export model.pt2 -o model.onnx --json report.json
        bnfold export two_inputs.pt --input-shape image=1x3x64x64 --input-shape mask=1x1x64x64
        bnfold export model.onnx -o folded.onnx --inputs real.npz --provider cpu --provider cuda
        bnfold export model.pt2 -o model.onnx --html report.html
        bnfold export model.onnx -o folded.onnx --only-if-faster
        bnfold export custom.pt --input-shape 1x8 --allow mypackage.layers.Gate
        bnfold export model.onnx -o camera.onnx --normalize imagenet --scale 1/255 --uint8-input --bgr
        bnfold export model.onnx -o small.ort --set-batch 1 --opset 13 --ir-version 8
        bnfold export model.pt2 -o model.onnx --target rknn
        bnfold export model.onnx -o half.onnx --precision float16 --inputs real.npz
        bnfold export model.onnx -o int8.onnx --equalize --int8 --calibration train.npz
        bnfold export weights.safetensors --arch mypackage.nets:resnet18 --input-shape 1x3x224x224
        bnfold export model.pt --input-shape 1x3x224x224 --to pt2 -o model.folded.pt2
    """
    typed = form
    form = _target.form_for(target, model, form, output)
    _module.check_name(output, form, target if typed is None else None)
    if form is not None:
        with _target.from_modules(target, model):
            written = _module.export(model, output, form, json_path, quiet=quiet)
        _target.show_next(target, written, quiet=quiet, json_path=json_path)
        return
    if no_validate and options["rollback"]:
        raise click.UsageError(
            "--rollback needs the comparison of the outputs, which --no-validate leaves out."
        )
    _lazy.load_onnx_ir()
    from bnfold.pipeline.export import export
    from bnfold.pipeline.exported import ExportDisagreementError, NarrowedTooFarError, NotFasterError
    from bnfold.report.terminal import headline, text

    destination = output or _next_to(model, _target.suffix_for(target))
    _terminal.check_report(json_path, model, destination)
    _terminal.check_report(record_path, model, destination, *filter(None, [json_path]))
    _terminal.check_page(html_path, model, destination, json_path, record_path)
    options["per_layer"] |= html_path is not None
    try:
        with _terminal.progress(quiet=quiet) as progress:
            done = export(
                model,
                destination,
                inputs=inputs,
                validate=not no_validate,
                bench=not no_bench,
                record=record_path is not None,
                target=target,
                progress=progress,
                **options,
            )
    except (ExportDisagreementError, NotFasterError, NarrowedTooFarError) as error:
        _write(error.export, json_path, html_path)
        shown = text.export_report(error.export, verbose=verbose)
        _terminal.show(shown, quiet=quiet, json_path=json_path)
        raise
    _write(done, json_path, html_path)
    if record_path is not None:
        from bnfold.report import json

        _terminal.write_json(json.statistics_document(done), record_path)
    _terminal.show(text.export_report(done, verbose=verbose), quiet=quiet, json_path=json_path)
    _terminal.show_record(record_path, len(done.statistics), quiet=quiet, json_path=json_path)
    _terminal.show_page(html_path, quiet=quiet, json_path=json_path)
    if done.target is not None:
        from bnfold.report.terminal import targets

        _terminal.show(targets.reached(done.target, destination), quiet=quiet, json_path=json_path)
        if not done.target:
            problem = headline.of_target(done.target).plain.replace("; see below", "")
            _terminal.say_no(problem, targets.in_the_way(done.target), quiet=quiet)


def _write(export: Export, json_path: Path | None, html_path: Path | None) -> None:
    """Write the reports that the options ask for."""
    if json_path is None and html_path is None:
        return
    from bnfold.report import json

    record = json.export_document("export", export)
    _terminal.write_json(record, json_path)
    if html_path is not None:
        from bnfold.report.page import html

        html.write(html.page(export, command=_terminal.command_line(), record=record), html_path)


def _next_to(model: Path, suffix: str) -> Path:
    """The file to write if --output is not given."""
    from bnfold.files.file_kind import kind_of
    from bnfold.files.weight_index import file_of

    if (file := file_of(model)) != model:
        return model.with_name(f"{model.resolve().name}.folded{suffix}")
    kind_of(file)  # raises the usual error if it is not a file: "." has no suffix to replace
    return model.with_suffix(f".folded{suffix}")
