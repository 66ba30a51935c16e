"""`bnfold bench`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _options, _terminal


@click.command("bench")
@click.argument("original", type=_options.FILE)
@click.argument("folded", type=_options.FILE)
@_options.provider_option
@_options.data_options
@_options.timing_options
@_options.output_options
def command(
    original: Path,
    folded: Path,
    providers: tuple[str, ...],
    inputs_path: Path | None,
    seed: int,
    threads: int,
    seconds: float,
    json_path: Path | None,
    quiet: bool,
) -> None:
    """Measure the latency of two ONNX models against each other.

    Both run in turn in one process, after a warm-up, with ONNX Runtime's optimizer at its default and off.
    The default already folds a BatchNorm that follows a convolution, so the gain there is smaller, and often
    none. The verdict rests on a 95 % interval of the ratio; "no measurable difference" is a verdict too.

    \b
    Examples:
        bnfold bench model.onnx folded.onnx
        bnfold bench model.onnx folded.onnx --threads 4
        bnfold bench model.onnx folded.onnx --provider cuda --json report.json
    """
    from bnfold.pipeline import compare_latency
    from bnfold.report import json, text
    from bnfold.sources import read_onnx

    _terminal.check_json(json_path, original, folded)
    inputs = _terminal.read_inputs(inputs_path)
    with _terminal.progress(quiet=quiet) as tell:
        first, second = read_onnx(original), read_onnx(folded)
        results = compare_latency(
            first.model,
            second.model,
            providers=providers,
            inputs=inputs,
            threads=threads,
            seconds=seconds,
            seed=seed,
            progress=tell,
        )
    _terminal.write_json(json.bench_document(first, second, results), json_path)
    _terminal.show(text.benchmarks(results), quiet=quiet, json_path=json_path)
