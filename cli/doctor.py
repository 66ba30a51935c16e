"""`bnfold doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from . import _lazy, _options, _terminal


@click.command("doctor")
@_options.output_options
def command(json_path: Path | None, quiet: bool) -> None:
    """Examine this installation and say what to fix.

    It runs a small convolution on every provider that ONNX Runtime offers, and looks for packages that break
    each other, missing CUDA libraries, limits of a container and a torch with known vulnerabilities. Nothing
    is changed. Exit code 1 means that there is a problem.

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
        if quiet:
            for one in diagnosis.findings:
                if one.state == "problem":
                    _terminal.complain(f"{one.title}: {' '.join(one.found.split())}", one.fix or "")
        raise click.exceptions.Exit(1)
