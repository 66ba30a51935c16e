"""`bnfold export --to`: a PyTorch file at the end and not an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import _terminal

if TYPE_CHECKING:
    from bnfold.torch.write_back.save import Form

_SUFFIXES = {"pt2": ".folded.pt2", "module": ".folded.pt", "state_dict": ".folded.state_dict.pt"}
_TAKEN = (
    *("input_shape", "dtype", "arch", "arch_args", "key", "allow", "trust", "dynamic"),
    *("merge", "keep"),
)
_ALLOWED = {*_TAKEN, "model", "output", "form", "json_path", "quiet", "no_bench"}

option = click.option(
    "--to",
    "form",
    type=click.Choice(list(_SUFFIXES)),
    help="Write PyTorch and not ONNX: a program of torch.export, the pickled module, or its weights alone."
    " The folded module is verified in eager mode and float64.",
)


def export(model: Path, output: Path | None, form: Form, json_path: Path | None, *, quiet: bool) -> None:
    """Do the whole job and print its report; the options are those of the running command."""
    from bnfold.errors import InputError
    from bnfold.files.file_kind import head_of
    from bnfold.pipeline.export_module import export_module
    from bnfold.report import module as report

    context = click.get_current_context()
    told = [
        f"--{name.removesuffix('_path').replace('_', '-')}"
        for name in context.params
        if name not in _ALLOWED and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if told:
        raise InputError(
            f"{', '.join(told)} means nothing with --to {form}.", "It is for ONNX. Leave it out."
        )
    head_of(model)  # refuses what is no file in the usual words
    destination = output or model.with_suffix(_SUFFIXES[form])
    _terminal.check_report(json_path, model, destination)
    options: dict[str, Any] = {name: context.params[name] for name in _TAKEN}
    with _terminal.progress(quiet=quiet) as tell:
        done = export_module(model, destination, form, progress=tell, **options)
    if json_path is not None:
        _terminal.write_json(report.module_document(done), json_path)
    _terminal.show(report.module_report(done), quiet=quiet, json_path=json_path)
