"""A folded module into a file: a program, a pickled module, or its weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import DisagreementError, InputError, ModelError, reason
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.torch.export import open_sizes
from bnfold.torch.export.signature import Inputs
from bnfold.torch.run_quietly import eval_mode, silent
from bnfold.torch.write_back.trace_run import tensors
from bnfold.torch.write_back.verify_eager import relative_error

Form = Literal["pt2", "module", "state_dict"]
_ROUNDINGS = 1e4  # units of its type by which a program may differ from the module: compilers reorder sums


def save(module: nn.Module, path: Path, form: Form, inputs: Inputs, dynamic: Sequence[str] = ()) -> None:
    """Write a module; the file appears whole or not at all.

    Args:
        module: The module; its training flags are restored.
        path: The file.
        form: `"pt2"` is a program by torch.export in eval mode, which is compared with the module before it
            is written; `"module"` the pickled module, `"state_dict"` its weights alone.
        inputs: Example inputs, for a program.
        dynamic: For a program, the sizes to leave open, as `"batch"` or `"x:2=height"`.

    Raises:
        InputError: `dynamic` is given for another form than a program.
        ModelError: The module cannot be exported, or cannot be pickled.
        DisagreementError: The program computes something else.
        SaveError: The file cannot be written.
    """
    if dynamic and form != "pt2":
        raise InputError(f"--to {form} has no sizes to leave open.", "Leave --dynamic out.")
    content = _program(module, inputs, dynamic) if form == "pt2" else module
    target = destination(path)
    with save_errors(path), replacing(target) as stream:
        if isinstance(content, ExportedProgram):
            with silent():
                torch.export.save(content, stream)
        elif form == "module":
            _pickle(content, stream, "The module", "--to pt2 and --to state_dict need none of its code.")
        else:
            _pickle(content.state_dict(), stream, "The state_dict", "--to pt2 holds tensors only.")


def _pickle(content: Any, stream: BinaryIO, what: str, fix: str) -> None:
    try:
        torch.save(content, stream)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(f"{what} cannot be pickled: {reason(error)}.", fix) from error


def _program(module: nn.Module, inputs: Inputs, dynamic: Sequence[str]) -> ExportedProgram:
    args, kwargs, shapes = _opened(module, inputs, dynamic)
    try:
        with eval_mode(module), silent():
            program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
            expected, actual = (_run(one, args, kwargs) for one in (module, program.module()))
    except Exception as error:  # the exporter runs the model, which can raise anything
        raise ModelError(
            f"The folded module could not be exported: {reason(error)}.",
            "Take --to module or --to state_dict.",
        ) from error
    if not _agree(expected, actual):
        raise DisagreementError(
            "The exported program does not compute what the folded module computes.",
            "Take --to module, and report it to PyTorch: torch.export gets this model wrong.",
        )
    return program


def _run(
    module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """What a module returns, with the same random numbers in each run, on copies of the inputs."""
    args, kwargs = copy.deepcopy((args, kwargs))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(tensors(module(*args, **kwargs)))


def _agree(expected: list[torch.Tensor], actual: list[torch.Tensor]) -> bool:
    def limit(tensor: torch.Tensor) -> float:
        return _ROUNDINGS * torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0

    return len(expected) == len(actual) and all(
        relative_error(one, other) <= limit(one) for one, other in zip(expected, actual, strict=True)
    )


def _opened(
    module: nn.Module, inputs: Inputs, dynamic: Sequence[str]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor], dict[str, Any] | None]:
    """The inputs as torch.export takes them, with the sizes that stay open."""
    if not dynamic:
        return ((), inputs, None) if isinstance(inputs, dict) else (inputs, {}, None)
    named, sizes = open_sizes.opened(module, inputs, open_sizes.parse_dynamic(dynamic))
    # torch.export finds an open size's limits, such as a kernel's, by itself; a named size would need them
    shapes = {one: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for one, axes in sizes.items()}
    return ((), named, shapes) if isinstance(inputs, dict) else (tuple(named.values()), {}, shapes)
