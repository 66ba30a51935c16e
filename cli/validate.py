"""`bnfold validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _groups, _lazy, _options, _run_options, _terminal

if TYPE_CHECKING:
    from bnfold.inputs.given import Given
    from bnfold.pipeline.read import Source
    from bnfold.validation.results import Validation


@click.command("validate", cls=_groups.Command)
@click.argument("original", type=_options.FILE, required=False)
@click.argument("folded", type=_options.FILE, required=False)
@click.option(
    "--replay",
    "replay_path",
    type=_options.FILE,
    metavar="REPORT.json",
    help="Repeat the comparison of an earlier report, with its settings, and say whether it still holds.",
)
@_run_options.runtime_option
@_run_options.provider_option
@_run_options.data_options
@_run_options.label_options
@_run_options.pairing_options
@_run_options.validation_options
@_run_options.cover_options
@click.option(
    "--trust",
    is_flag=True,
    help="With --replay: read the PyTorch file with the report's options even if they may run code. Use it"
    " only if you trust both the file and the report.",
)
@_options.html_option
@_options.verbose_option
@_options.output_options
def command(
    original: Path | None,
    folded: Path | None,
    replay_path: Path | None,
    inputs: Given | None,
    trust: bool,
    **options: Any,
) -> None:
    """Compare the outputs of two ONNX models on the same data.

    The reference is ORIGINAL evaluated in float64. FOLDED runs in ONNX Runtime with its optimizer off and at
    its default, and may be only slightly farther from the reference than ORIGINAL is. In addition, every
    value that both models compute is compared in float64; the first one that differs is named, with the fold
    that made it. If float64 takes too long, the reference is ORIGINAL in ONNX Runtime with the optimizer off.
    If ONNX Runtime cannot load ORIGINAL, what can be evaluated in float64 is compared, and the rest is named.
    What a caller of FOLDED meets otherwise, such as another type of an input, is noted. What was not seen is
    listed: branches that never ran, rows of tables that no index met, channels that were always zero, sizes
    that were not tried. With --runtime both models run in that runtime instead of ONNX Runtime, converted by
    its own tools; the reference and the verdict are the same. Exit code 1 means that the models disagree, or
    with --replay that the report no longer holds.

    \b
    Examples:
        bnfold validate model.onnx folded.onnx
        bnfold validate model.onnx folded.onnx --provider cuda --samples 20 --per-layer
        bnfold validate model.onnx folded.onnx --inputs images/ --mean imagenet --json report.json
        bnfold validate model.onnx other_exporter.onnx --match order
        bnfold validate model.onnx simplified.onnx --cover --cover-seconds 300
        bnfold validate model.onnx float16.onnx --inputs data.npz --labels classes.csv
        bnfold validate model.onnx folded.onnx --runtime openvino --runtime mnn
        bnfold validate --replay report.json
    """
    if replay_path is not None:
        if original is not None:
            raise click.UsageError(
                "--replay takes the models from the report: leave ORIGINAL and FOLDED out."
            )
        reports = {name: options[name] for name in ("json_path", "html_path", "verbose", "quiet")}
        _replay(replay_path, trust=trust, **reports)
    elif trust:
        raise click.UsageError("--trust goes with --replay, for a report on a PyTorch file.")
    elif original is None or folded is None:
        raise click.UsageError("Name two models, ORIGINAL and FOLDED, or a report with --replay.")
    else:
        _validate(original, folded, inputs, **options)


def _validate(
    original: Path,
    folded: Path,
    inputs: Given | None,
    *,
    json_path: Path | None,
    html_path: Path | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    _lazy.load_onnx_ir()
    from bnfold.errors import DisagreementError, UndecidedError
    from bnfold.pipeline.progress import Stage, within
    from bnfold.pipeline.read import read_onnx
    from bnfold.report.terminal import comparison
    from bnfold.validation.validate import validate

    _terminal.check_report(json_path, original, folded)
    _terminal.check_page(html_path, original, folded, json_path)
    options["per_layer"] |= html_path is not None
    with _terminal.progress(quiet=quiet) as progress:
        first, second = read_onnx(original), read_onnx(folded)
        result = validate(
            first.model,
            second.model,
            inputs=inputs,
            on_progress=within(Stage.VALIDATE, progress),
            **options,
        )
    _write(first, second, result, json_path, html_path)
    _terminal.show(comparison.validation(result, verbose=verbose), quiet=quiet, json_path=json_path)
    _terminal.show_page(html_path, quiet=quiet, json_path=json_path)
    if result.undecided and not result.failures:
        raise UndecidedError(result.undecided)
    if not result.passed:
        only_to_callers = f"{folded} is not the same as {original} for its callers."
        raise DisagreementError(
            only_to_callers
            if result.differs_to_callers_only
            else f"{folded} does not compute what {original} computes.",
            cause=next(iter(result.failures), ""),
        )


def _write(
    first: Source, second: Source, result: Validation, json_path: Path | None, html_path: Path | None
) -> None:
    """Write the reports that the options ask for."""
    if json_path is None and html_path is None:
        return
    from bnfold.report import json

    record = json.validate_document(first, second, result)
    _terminal.write_json(record, json_path)
    if html_path is not None:
        from bnfold.report.page import html

        html.write(html.of_validation(record, command=_terminal.command_line()), html_path)


def _replay(
    report: Path,
    *,
    json_path: Path | None,
    html_path: Path | None,
    verbose: bool,
    quiet: bool,
    trust: bool,
) -> None:
    from bnfold.errors import DisagreementError
    from bnfold.pipeline.replay import models_of, replay
    from bnfold.report import json
    from bnfold.report.terminal import text

    compared = models_of(report)
    _terminal.check_report(json_path, report, *compared)
    _terminal.check_page(html_path, report, *compared, json_path)
    with _terminal.progress(quiet=quiet) as progress:
        result = replay(report, trust=trust, progress=progress)
    record = json.replay_document(result)
    _terminal.write_json(record, json_path)
    if html_path is not None:
        from bnfold.report.page import html

        html.write(html.of_replay(record, command=_terminal.command_line()), html_path)
    _terminal.show(text.replay(result, verbose=verbose), quiet=quiet, json_path=json_path)
    _terminal.show_page(html_path, quiet=quiet, json_path=json_path)
    if not result.holds:
        # the outcome and where it comes from, or the first file that changed
        now = result.validation
        cause = " ".join((result.changes[-1], *now.failures[:1])) if now else result.changes[0]
        raise DisagreementError(f"What {report} says does not hold any more.", cause=cause)
