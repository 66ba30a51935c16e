"""The option `--target` of `bnfold export`, and what it means for the kind of file that is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import _complete, _groups, _lazy, _terminal

if TYPE_CHECKING:
    from bnfold.gate.run import Checked
    from bnfold.torch.write_back.save import Form

_NOT_READ = ("M300", "M301", "M302", "M304", "M305")  # rules that find models which cannot be read
_WEIGHTS = (".safetensors", ".json")  # files of weights, which are for no target
_OF_ONNX = (".onnx", ".ort")

option = _groups.together(
    "The file",
    click.option(
        "--target",
        metavar="NAME",
        shell_complete=_complete.targets,
        help="What the file is for, as `bnfold targets` lists it, or a TOML file that describes one. Opset,"
        " IR version, batch and format are set to what it reads, unless other options say; what else stands"
        " in the way is listed with the next command, and the exit code is 1.",
    ),
)


def form_for(target: str | None, model: Path, form: Form | None, output: Path | None = None) -> Form | None:
    """The form in which a PyTorch model is written, where a target reads that and no ONNX file.

    Args:
        target: What `--target` names.
        model: The model.
        form: What `--to` says.
        output: What `--output` says.

    Raises:
        InputError: The target is not known, or cannot read what becomes of the model, or the file is to be
            called what it will not be.
        UsageError: It does not read what `--to` writes.
    """
    if target is None:
        return form
    from bnfold.errors import InputError
    from bnfold.pipeline.read import is_torch
    from bnfold.targets.profile import load

    profile = load(target)
    if form is not None and form != profile.form:
        raise click.UsageError(
            f"--to {form} writes what {profile.name} does not read: leave one of the two out."
        )
    if profile.form != "pt2":
        return form
    if not is_torch(model):
        _lazy.load_onnx_ir()
        from bnfold.options import Reading
        from bnfold.pipeline.targeting import reading_for

        reading_for(profile, model, Reading())  # raises the error of a target that reads no ONNX file
        return form
    if output is not None and output.suffix.lower() in _OF_ONNX:
        raise InputError(
            f"{output} is the name of an ONNX file, and {profile.name} reads a program of torch.export.",
            f"Call it {output.with_suffix('.pt2')}. For an ONNX file, leave --target out.",
        )
    return "pt2"


@contextmanager
def from_modules(target: str | None, model: Path) -> Iterator[None]:
    """Say what to do where a target asks for a form that the file cannot be written in.

    Args:
        target: What `--target` names; without it the user asked for the form.
        model: The model.

    Raises:
        InputError: The file holds no modules.
    """
    from bnfold.errors import InputError
    from bnfold.pipeline.export_module import NoModulesError

    try:
        yield
    except NoModulesError as error:
        if target is None:
            raise
        from bnfold.targets.profile import load

        profile = load(target)
        unfolded = f" As it is, unfolded: {'; '.join(profile.commands(model))}" if error.is_program else ""
        raise InputError(
            f"{model} is {error.held}, and bnfold folds modules into what {profile.name} reads: it has none.",
            "Give the file of the module that it was made from: bnfold export MODEL.pt --input-shape …"
            f" --target {target} -o OUT.{profile.form}.{unfolded}",
        ) from error


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


def answers(checked: Checked, targets: Sequence[str]) -> list[str]:
    """Whether the models that were checked are ready for each target, a sentence each.

    Args:
        checked: The outcome of a check for these targets.
        targets: As `--target` and the settings name them.
    """
    from bnfold.gate.targeted import opening
    from bnfold.targets.profile import load

    unread = {one.path for one in checked.findings if one.code in _NOT_READ} & {*checked.files}
    models = sum(not name.endswith(_WEIGHTS) for name in {*checked.files} - unread)
    if not models:
        return []
    more = f"; {len(unread)} cannot be read" if unread else ""
    said = []
    for name in (load(one).name for one in targets):
        mine = [one for one in checked.findings if one.found.one.startswith(opening(name))]
        stuck = len({one.path for one in mine})
        of = "the model" if models == 1 else f"{stuck} of {models} models" if mine else f"the {models} models"
        if not mine:
            things = "nothing that bnfold knows stands"
        else:
            things = "1 thing stands" if len(mine) == 1 else f"{len(mine)} things stand"
        said.append(f"{name}: {things} in the way of {of}{more}.")
    return said
