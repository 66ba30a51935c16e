"""`bnfold doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _lazy, _options, _terminal


@click.command("doctor")
@_options.output_options
def command(json_path: Path | None, quiet: bool) -> None:
    """Examine this installation and say what to mend.

    A small convolution runs on every provider that ONNX Runtime offers; packages that break each other, CUDA
    libraries that are not found, limits of a container and a torch with known weaknesses are named. Nothing
    is changed. Exit code 1 says that something is a problem.

    \b
    Examples:
        bnfold doctor
        bnfold doctor --json report.json
    """
    _lazy.load_onnx_ir()
    from bnfold.report import json
    from bnfold.report.terminal import text
    from bnfold.system.doctor import doctor

    _terminal.check_report(json_path)
    diagnosis = doctor()
    _terminal.write_json(json.doctor_document(diagnosis), json_path)
    _terminal.show(text.doctor(diagnosis), quiet=quiet, json_path=json_path)
    if not diagnosis.healthy:
        raise click.exceptions.Exit(1)
