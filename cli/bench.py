"""`bnfold bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _groups, _lazy, _options, _run_options, _terminal

if TYPE_CHECKING:
    from bnfold.inputs.given import Given
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.read import Source


@click.command("bench", cls=_groups.Command)
@click.argument("original", type=_options.FILE)
@click.argument("folded", type=_options.FILE)
@_run_options.runtime_option
@_run_options.provider_option
@_run_options.data_options
@_run_options.timing_options
@_run_options.batch_option
@_run_options.provider_options_option
@_options.html_option
@_options.verbose_option
@_options.output_options
def command(
    original: Path,
    folded: Path,
    providers: tuple[str, ...],
    runtimes: tuple[str, ...],
    inputs: Given | None,
    json_path: Path | None,
    html_path: Path | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure the latency of two ONNX models against each other.

    Both run in turn in one process, in random order, after a warm-up, with ONNX Runtime's optimizer at its
    default, basic and off. The default already folds a BatchNorm that follows a convolution, so there the
    gain is smaller, and often zero. The original also runs a second time, as a control. The verdict rests on
    a 95 % interval of the ratio and on the control; it may be "no measurable difference" or "too noisy to
    say". Where the second model is slower at the default, the first line of the report says so. Another
    runtime has one setting, its own default in the precision that was asked for.

    \b
    Examples:
        bnfold bench model.onnx folded.onnx
        bnfold bench model.onnx folded.onnx --threads 1 --threads 4 --batch 1 --batch 8
        bnfold bench model.onnx folded.onnx --provider cuda --json report.json
        bnfold bench model.onnx folded.onnx --provider cuda --provider-options defaults
        bnfold bench model.onnx folded.onnx --provider openvino
        bnfold bench model.onnx folded.onnx --runtime openvino --runtime mnn
    """
    _lazy.load_onnx_ir()
    from bnfold.options import Timing
    from bnfold.pipeline.read import read_onnx
    from bnfold.pipeline.timing import compare_latency
    from bnfold.report.terminal import text

    _terminal.check_report(json_path, original, folded)
    _terminal.check_page(html_path, original, folded, json_path)
    timing = Timing(**options)
    with _terminal.progress(quiet=quiet) as progress:
        first, second = read_onnx(original), read_onnx(folded)
        results = compare_latency(first.model, second.model, providers, timing, inputs, progress, runtimes)
    if json_path is not None or html_path is not None:
        _write(first, second, results, json_path, html_path)
    _terminal.show(text.bench_report(results, verbose=verbose), quiet=quiet, json_path=json_path)
    _terminal.show_page(html_path, quiet=quiet, json_path=json_path)


def _write(
    first: Source,
    second: Source,
    results: Sequence[Benchmark],
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Write the reports that the options ask for."""
    from bnfold.report import json

    record = json.bench_document(first, second, results)
    _terminal.write_json(record, json_path)
    if html_path is not None:
        from bnfold.report.page import html

        page = html.of_benchmarks(results, command=_terminal.command_line(), record=record)
        html.write(page, html_path)
