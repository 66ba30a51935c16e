"""`bnfold validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import _options, _terminal


@click.command("validate")
@click.argument("original", type=_options.FILE)
@click.argument("folded", type=_options.FILE)
@_options.provider_option
@_options.data_options
@_options.validation_options
@_options.output_options
def command(
    original: Path,
    folded: Path,
    inputs_path: Path | None,
    json_path: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare the outputs of two ONNX models on the same data.

    The reference is ORIGINAL in ONNX Runtime with its optimizer off, since the optimizer folds some
    BatchNorms by itself. FOLDED runs with the optimizer off and at its default. Exit code 1 says that they
    disagree.

    \b
    Examples:
        bnfold validate model.onnx folded.onnx
        bnfold validate model.onnx folded.onnx --provider cuda --samples 10
        bnfold validate model.onnx folded.onnx --inputs real.npz --json report.json
    """
    from bnfold.errors import DisagreementError
    from bnfold.report import json, text
    from bnfold.sources import read_onnx
    from bnfold.validate import validate

    _terminal.check_json(json_path, original, folded)
    inputs = _terminal.read_inputs(inputs_path)
    with _terminal.progress(quiet=quiet) as tell:
        first, second = read_onnx(original), read_onnx(folded)
        result = validate(
            first.model,
            second.model,
            inputs=inputs,
            on_progress=lambda done, total: tell("validate", done, total),
            **options,
        )
    _terminal.write_json(json.validate_document(first, second, result), json_path)
    _terminal.show(text.validation(result), quiet=quiet, json_path=json_path)
    if not result.passed:
        raise DisagreementError(f"{folded} does not agree with {original}.")
