"""The option `--target` of `bnfold export`, and what it means for the kind of file that is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import _groups, _terminal

if TYPE_CHECKING:
    from bnfold.torch.write_back.save import Form

option = _groups.together(
    "The file",
    click.option(
        "--target",
        metavar="NAME",
        help="What the file is for, as `bnfold targets` lists it, or a TOML file that describes one. Opset,"
        " IR version, batch and format are set to what it reads, unless other options say; what else stands"
        " in the way is listed with the next command, and the exit code is 1.",
    ),
)


def form_for(target: str | None, model: Path, form: Form | None) -> Form | None:
    """The form in which a PyTorch model is written, where a target reads that and no ONNX file.

    Args:
        target: What `--target` names.
        model: The model.
        form: What `--to` says.

    Raises:
        InputError: The target is not known.
        UsageError: It does not read what `--to` writes.
    """
    if target is None:
        return form
    from bnfold.pipeline.read import is_torch
    from bnfold.targets.profile import load

    profile = load(target)
    if form is not None and form != profile.form:
        raise click.UsageError(
            f"--to {form} writes what {profile.name} does not read: leave one of the two out."
        )
    return "pt2" if profile.form == "pt2" and is_torch(model) else form


def show_next(target: str | None, written: Path, *, quiet: bool, json_path: Path | None) -> None:
    """Show what to type next for a file that was written."""
    if target is None:
        return
    from bnfold.pipeline.targeting import Reached
    from bnfold.report.terminal import headline, targets
    from bnfold.targets.profile import load

    reached = Reached(load(target), ())
    _terminal.show(headline.of_target(reached), quiet=quiet, json_path=json_path)
    _terminal.show(targets.reached(reached, written), quiet=quiet, json_path=json_path)


def suffix_for(target: str | None) -> str:
    """How the name of the file ends if none was given."""
    if target is None:
        return ".onnx"
    from bnfold.targets.profile import load

    return ".ort" if load(target).form == "ort" else ".onnx"
