"""A PyTorch file to a model, whatever its suffix says, without running anything that the file carries."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import ModelError
from bnfold.files.contents import describe, head_of, reason
from bnfold.torch import archive, pickle_safety, pt2_safety

# A file from before PyTorch 1.6 is a row of pickles: a magic number, a version, the system, the object, the
# keys of its storages; then the storages themselves.
_LEGACY_PICKLES = 5
_SAVE_WHOLE = (
    "Save the whole model: torch.save(model, path), or torch.export.save(torch.export.export(...), path)."
)


@dataclass(frozen=True)
class Loaded:
    """What a PyTorch file held.

    Attributes:
        source: The module, on the CPU, each submodule in the mode that it was saved in; or the program.
        kind: Which of the two it is.
        was_training: Whether any part of the module was saved in train mode. Always False for a program,
            which has no mode: what it does was settled when it was exported.
    """

    source: nn.Module | ExportedProgram
    kind: Literal["module", "exported program"]
    was_training: bool


def load(path: str | os.PathLike[str], *, allow: Sequence[str] = ()) -> Loaded:
    """Load a pickled `nn.Module`, or a program by `torch.export.save`.

    A pickle can only make torch.nn's own layers, tensors and plain containers. What else it names is refused
    without being imported, unless it is in `allow`.

    Args:
        path: The file. Its content decides, not its suffix.
        allow: Full names of classes beyond torch.nn's that may be made, as `"pkg.module.Class"`: subclasses
            of `nn.Module`, dataclasses, enumerations and other plain classes, never functions. Allowing a
            class imports its module, which runs that module's code.

    Raises:
        UnsafePickleError: The file names classes or functions that are not allowed; the message lists them
            with what to type.
        ModelError: It cannot be read, is truncated, or is not a whole model: a state_dict, a checkpoint,
            TorchScript, a text file.
    """
    head = head_of(path)
    name = os.fspath(path)
    kind = describe(head)
    with Path(path).open("rb") as stream:
        if kind == "a zip archive (as PyTorch writes)":
            return _load_archive(stream, name, allow)
        if kind == "a PyTorch file in the format before 1.6":
            return _module(_unpickle(stream, name, allow, _LEGACY_PICKLES), name)
        if kind == "a pickle":
            raise _plain_pickle(stream, name, allow)
    fixes = {
        "an ONNX model": "Give it the suffix .onnx, and use it as it is.",
        "a Git LFS pointer, not the file itself": "Fetch the file itself with: git lfs pull",
        "a safetensors file (weights without a network)": _SAVE_WHOLE,
    }
    raise ModelError(
        f"{name} is {kind or 'some other kind of file'}, not a PyTorch model.", fixes.get(kind, _SAVE_WHOLE)
    )


def _load_archive(stream: BinaryIO, path: str, allow: Sequence[str]) -> Loaded:
    names = archive.entries(stream, path)
    if archive.is_torchscript(names):
        raise ModelError(
            f"{path} is TorchScript, which bnfold does not read yet.",
            "Save the original module with torch.save or torch.export.save, or export it to ONNX.",
        )
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        pt2_safety.check(stream, names, path)
        return Loaded(_program(stream, path), "exported program", was_training=False)
    if "serialized_exported_program.json" in names:
        raise ModelError(
            f"{path} is an exported program by torch 2.7 or older.",
            "Load it with that version, export it to ONNX there, or export the model anew.",
        )
    if "data.pkl" not in names:
        raise ModelError(f"{path} is a zip archive, but not one of PyTorch's.", _SAVE_WHOLE)
    return _module(_unpickle(stream, path, allow), path)


def _unpickle(stream: BinaryIO, path: str, allow: Sequence[str], pickles: int = 0) -> Any:
    """Load `stream`, a zip archive or a row of `pickles`, with torch.nn's classes and the allowed ones."""
    ours = pickle_safety.torch_globals() + pickle_safety.allowed_globals(allow)
    registered = torch.serialization.get_safe_globals()  # these must stay when the block ends
    extra: list[Callable[..., Any] | pickle_safety.Global] = [one for one in ours if one not in registered]
    stream.seek(0)
    try:
        with torch.serialization.safe_globals(extra), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how old the file is
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        stream.seek(0)
        archived = pickle_safety.names_in_archive
        names = pickle_safety.names_in(stream, pickles) if pickles else archived(stream)
        if pickles and not pickle_safety.dangerous(pickle_safety.unknown(names, allow)):
            raise ModelError(
                f"{path} is in PyTorch's format before 1.6, which holds no module that can be loaded safely.",
                "If you trust it: torch.save(torch.load(path, weights_only=False), other), and give other.",
            ) from None
        raise pickle_safety.refusal(path, names, allow, _detail(error)) from None
    except Exception as error:  # a damaged file can lead the unpickler into any exception
        raise ModelError(
            f"{path} is truncated or damaged: {reason(error)}.", "Save or download it again."
        ) from error


def _detail(error: BaseException) -> str:
    """What the unpickler found, without torch's advice on how to switch the protection off."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), "it is damaged")


def _plain_pickle(stream: BinaryIO, path: str, allow: Sequence[str]) -> ModelError:
    """The error for `pickle.dump(...)`: there is no safe way to load one, but its names can be told."""
    names = pickle_safety.names_in(stream)
    if pickle_safety.unknown(names, allow):
        return pickle_safety.refusal(path, names, allow, "")
    return ModelError(f"{path} is a plain pickle, not written by torch.save.", _SAVE_WHOLE)


def _module(found: Any, path: str) -> Loaded:
    if isinstance(found, nn.Module):
        try:
            training = any(module.training for module in found.modules())
        except AttributeError as error:  # made, but never given its content
            raise ModelError(f"{path} is damaged: {reason(error)}.", "Save it again.") from error
        return Loaded(found, "module", was_training=training)
    if isinstance(found, Mapping):
        raise _mapping(found, path)
    raise ModelError(f"{path} holds a {type(found).__name__}, not a model.", _SAVE_WHOLE)


def _mapping(found: Mapping[Any, Any], path: str) -> ModelError:
    """The error for weights without a network, or for a checkpoint around them."""
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if found and len(tensors) == len(found):
        return ModelError(
            f"{path} is a state_dict: {len(found)} tensors ({_some(found)}), without their network.",
            "Load it into the module, model.load_state_dict(torch.load(path)), and torch.save(model, other).",
        )
    modules = [str(key) for key, value in found.items() if isinstance(value, nn.Module)]
    what = (
        f"a checkpoint that holds a module under {modules[0]!r}" if modules else "a checkpoint or dictionary"
    )
    take = f"torch.load(path)[{modules[0]!r}]" if modules else "its state_dict, loaded into the module"
    return ModelError(
        f"{path} is {what} ({_some(found)}), not a model.", f"Save {take}, alone with torch.save."
    )


def _some(found: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in list(found)[:3]]
    return ", ".join(keys) + (", ..." if len(found) > 3 else "")


def _program(stream: BinaryIO, path: str) -> ExportedProgram:
    stream.seek(0)
    log = logging.getLogger("torch.export")
    before = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback where it also raises
    try:
        with pt2_safety.weights_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(stream)
    except Exception as error:  # a damaged file can lead the deserializer into any exception
        raise ModelError(
            f"{path} is damaged, or from another version of torch: {reason(error)}.",
            f"Export it again with torch {torch.__version__}.",
        ) from error
    finally:
        log.setLevel(before)
