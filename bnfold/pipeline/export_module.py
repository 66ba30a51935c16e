"""The whole job with a PyTorch module as its result: load, fold, verify, and save as the last step."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError
from bnfold.files.atomic import check_destination
from bnfold.files.file_kind import FileKind, ModelKind, kind_of
from bnfold.options import PLAIN, Reading
from bnfold.pipeline.progress import Progress, Stage, silent

if TYPE_CHECKING:
    from bnfold.torch.write_back.fold_module import Folded
    from bnfold.torch.write_back.save import Form


_KINDS = {"exported program": "a program of torch.export", "torchscript": "TorchScript"}


class NoModulesError(InputError):
    """A PyTorch file holds a model without modules: there is nothing to write a fold back to.

    Attributes:
        held: What the file holds, in words.
        is_program: Whether that is a program of torch.export.
    """

    def __init__(self, path: Path, kind: ModelKind) -> None:
        self.held, self.is_program = _KINDS.get(kind, kind), kind == "exported program"
        super().__init__(
            f"{path} is {self.held}: it has no modules to write back to.",
            "Leave --to out for an ONNX file, or give a file that holds the module itself.",
        )


@dataclass(frozen=True)
class ModuleExport:
    """What [`export_module`][bnfold.pipeline.export_module.export_module] did.

    Attributes:
        path: The file that was read.
        kind: What it held.
        was_training: Whether that was a module in train mode; the folded copy is in the same mode.
        destination: The file that was written.
        form: What is in it.
        folded: The folded copy and the outcome for every BatchNorm.
        options: The options that the file was read with, as the given fields of a `Reading`.
        notes: What a user should know about how it was read, as sentences.
    """

    path: Path
    kind: ModelKind
    was_training: bool
    destination: Path
    form: Form
    folded: Folded
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def export_module(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    form: Form,
    reading: Reading = PLAIN,
    *,
    merge: bool = True,
    keep: Collection[str] = (),
    progress: Progress = silent,
) -> ModuleExport:
    """Turn a trained module into a PyTorch file without its BatchNorms, verified before it is written.

    Args:
        source: A PyTorch file that holds a module, or weights for `arch`.
        destination: The file to write; it is written completely or not at all.
        form: What to write: `"pt2"`, `"module"` or `"state_dict"`, as in
            [`save`][bnfold.torch.write_back.save.save].
        reading: How to read the file.
        merge: As in [`fold`][bnfold.torch.write_back.fold_module.fold].
        keep: Names of BatchNorms that must stay.
        progress: Called with the stages `"load"`, `"fold"` and `"save"`.

    Raises:
        BnfoldError: Something went wrong; it says what to do. Nothing was written.
    """
    path, target = Path(source), Path(destination)
    check_destination(target, path)
    if kind_of(path) is FileKind.ONNX:
        raise InputError(
            f"{path} is an ONNX model, which contains no module.",
            "Leave --to out, or give the file of the PyTorch model that it was made from.",
        )
    from torch import jit, nn

    from bnfold.torch.export.example_inputs import example_inputs, parse_shapes
    from bnfold.torch.read.load import load_as
    from bnfold.torch.write_back.fold_module import fold
    from bnfold.torch.write_back.save import save

    progress(Stage.LOAD, 0, 0)
    loaded = load_as(path, reading)
    module = loaded.source
    if not isinstance(module, nn.Module) or isinstance(module, jit.ScriptModule):
        raise NoModulesError(path, loaded.kind)
    notes = list(loaded.notes)
    inputs = example_inputs(loaded, parse_shapes(reading.shapes, dtype=reading.dtype), note=notes.append)
    progress(Stage.FOLD, 0, 0)
    folded = fold(module, inputs, merge=merge, keep=keep)
    progress(Stage.SAVE, 0, 0)
    save(folded.module, target, form, inputs, reading.open_sizes)
    return ModuleExport(
        path, loaded.kind, loaded.was_training, target, form, folded, reading.given, tuple(notes)
    )
