"""The whole job with a PyTorch module at the end: load, fold, verify, and only then save."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError
from bnfold.files.atomic import check_destination
from bnfold.files.file_kind import describe, head_of
from bnfold.pipeline.progress import Progress, silent

if TYPE_CHECKING:
    from bnfold.torch.read.load import Kind
    from bnfold.torch.write_back.fold_module import Folded
    from bnfold.torch.write_back.save import Form


@dataclass(frozen=True)
class ModuleExport:
    """What [`export_module`][bnfold.pipeline.export_module.export_module] did.

    Attributes:
        path: The file that was read.
        kind: What it held.
        was_training: Whether that was a module in train mode; the copy is in the same.
        destination: The file that was written.
        form: What is in it.
        folded: The copy and the fate of every BatchNorm.
        options: What was said about how to read the file.
        notes: What should be known about how it was read.
    """

    path: Path
    kind: Kind
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
    *,
    input_shape: Sequence[str] = (),
    dtype: str | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    key: str | None = None,
    allow: Sequence[str] = (),
    trust: bool = False,
    dynamic: Sequence[str] = (),
    merge: bool = True,
    keep: Collection[str] = (),
    progress: Progress = silent,
) -> ModuleExport:
    """Turn a trained module into a PyTorch file without its BatchNorms, verified before it is written.

    Args:
        source: A PyTorch file that holds a module, or weights for `arch`.
        destination: The file to write; it appears whole or not at all.
        form: What to write: `"pt2"`, `"module"` or `"state_dict"`, as in
            [`save`][bnfold.torch.write_back.save.save].
        input_shape: One text an input, as `"1x3x224x224"` or `"mask=1x8"`.
        dtype: As in [`read_model`][bnfold.pipeline.read.read_model], like the six that follow.
        arch: What makes the network for weights.
        arch_args: Its keyword arguments.
        key: Where in a checkpoint the model is.
        allow: Classes that a pickle may use.
        trust: Whether a pickle may run any code while it is read.
        dynamic: Sizes of a program to leave open.
        merge: As in [`fold`][bnfold.torch.write_back.fold_module.fold], like the next.
        keep: Names of BatchNorms that shall stay.
        progress: Told the stages `"load"`, `"fold"` and `"save"`.

    Raises:
        BnfoldError: It could not be done; says how to mend it. Nothing was written.
    """
    path, target = Path(source), Path(destination)
    check_destination(target, path)
    if describe(head_of(path)) == "an ONNX model":
        raise InputError(
            f"{path} is an ONNX model: there is no module in it.",
            "Leave --to out, or give the file of the PyTorch model that it was made from.",
        )
    from torch import jit, nn

    from bnfold.torch.export.example_inputs import example_inputs, parse_shapes
    from bnfold.torch.read.load import load
    from bnfold.torch.write_back.fold_module import fold
    from bnfold.torch.write_back.save import save

    progress("load", 0, 0)
    loaded = load(path, arch=arch, arch_args=arch_args, key=key, trust=trust, allow=allow)
    module = loaded.source
    if not isinstance(module, nn.Module) or isinstance(module, jit.ScriptModule):
        raise InputError(
            f"{path} is {loaded.kind}: it has no modules to write back to.",
            "Leave --to out for an ONNX file, or give a file that holds the module itself.",
        )
    notes = list(loaded.notes)
    inputs = example_inputs(loaded, parse_shapes(input_shape, dtype=dtype), note=notes.append)
    progress("fold", 0, 0)
    folded = fold(module, inputs, merge=merge, keep=keep)
    progress("save", 0, 0)
    save(folded.module, target, form, inputs, list(dynamic))
    options = {
        "input_shape": list(input_shape),
        "dtype": dtype,
        "arch": arch,
        "arch_args": arch_args,
        "key": key,
        "allow": list(allow),
        "trust": trust,
        "dynamic": list(dynamic),
    }
    given = {name: value for name, value in options.items() if value}
    return ModuleExport(path, loaded.kind, loaded.was_training, target, form, folded, given, tuple(notes))
