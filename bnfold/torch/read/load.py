"""A PyTorch file to a model, whatever its suffix says, without running anything that the file carries."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingExtraError, ModelError, reason
from bnfold.files.file_kind import describe, head_of
from bnfold.options import LoadRequest
from bnfold.system.torch_advisories import weaknesses
from bnfold.torch.read import architecture, archive, checkpoint, torchscript, weights
from bnfold.torch.read.safety import pt2
from bnfold.torch.read.safety import torchscript as torchscript_safety
from bnfold.torch.read.safety.unpickle import _LEGACY_PICKLES, SAVE_WHOLE, _trusted, plain_pickle, unpickle

Kind: TypeAlias = Literal["module", "exported program", "torchscript", "state_dict", "safetensors"]

_TRUSTED = "Opened with --trust: the file could run any code on this machine while it was read."


@dataclass(frozen=True)
class Loaded:
    """What a PyTorch file held.

    Attributes:
        source: The module, on the CPU, each submodule in the mode that it was saved in; or the program. Of
            TorchScript it is a `torch.jit.ScriptModule`; of weights, their network, filled.
        kind: What the file is.
        was_training: Whether any part of the module was saved in train mode. Always False for a program,
            which has no mode: what it does was settled when it was exported; and for weights.
        notes: What the user should know about how it was read, as sentences.
    """

    source: nn.Module | ExportedProgram
    kind: Kind
    was_training: bool
    notes: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    key: str | None = None,
    trust: bool = False,
    allow: Sequence[str] = (),
) -> Loaded:
    """Load a pickled `nn.Module`, a program by `torch.export.save`, TorchScript, or weights.

    A pickle can only make torch.nn's own layers, tensors and plain containers. What else it names is refused
    without being imported, unless it is in `allow`.

    Args:
        path: The file. Its content decides, not its suffix.
        arch: What makes the network for a file of weights, as `package.module:factory`. It is imported, from
            the current folder too, and runs.
        arch_args: Its keyword arguments, or a JSON object that holds them.
        key: Where in a checkpoint the weights or the module are, with dots: `ema.state_dict`.
        trust: Whether the file may run any code while it is read: `torch.load(weights_only=False)`.
        allow: Full names of classes beyond torch.nn's that may be made, as `"pkg.module.Class"`: subclasses
            of `nn.Module`, dataclasses, enumerations and other plain classes, never functions. Allowing a
            class imports its module, which runs that module's code.

    Raises:
        UnsafePickleError: The file names classes or functions that are not allowed; the message lists them
            with what to type. Or its TorchScript or its program could do more than compute.
        ModelError: It cannot be read, is truncated, is no model, or does not fit `arch`.
        InputError: `arch` is missing, or fails; `key` leads nowhere, or is missing where a checkpoint holds
            several models; or an option has no meaning for what the file holds.
        MissingExtraError: A safetensors file, and the package safetensors is not installed.
    """
    head = head_of(path)
    request = LoadRequest(os.fspath(path), arch, arch_args, key, trust, allow)
    if arch_args and not arch:
        raise InputError("--arch-args goes with --arch.", "Add --arch package.module:factory")
    loaded = _load(Path(path), describe(head), request)
    notes = (_TRUSTED,) if trust else tuple(_known_weaknesses(loaded))
    return replace(loaded, notes=(*notes, *loaded.notes))


def _known_weaknesses(loaded: Loaded) -> list[str]:
    """What is known against this version of torch, for a file that torch itself has unpickled."""
    if loaded.kind == "safetensors":
        return []
    return [
        f"torch {torch.__version__} falls under {weak.cve}: {weak.what}. Type: pip install --upgrade torch"
        for weak in weaknesses(torch.__version__)
        if weak.state == "problem" or loaded.kind == "exported program"
    ]


def _load(path: Path, kind: str, request: LoadRequest) -> Loaded:
    if kind == "a safetensors file (weights without a network)":
        return _choose(_safetensors(path), request, "safetensors")
    with path.open("rb") as stream:
        if kind == "a zip archive (as PyTorch writes)":
            return _load_archive(stream, request)
        if kind == "a PyTorch file in the format before 1.6":
            return _choose(unpickle(stream, request, _LEGACY_PICKLES), request)
        if kind == "a pickle":
            return _choose(plain_pickle(stream, request), request)
    fixes = {
        "an ONNX model": "Give it the suffix .onnx, and use it as it is.",
        "a Git LFS pointer, not the file itself": "Fetch the file itself with: git lfs pull",
    }
    raise ModelError(
        f"{path} is {kind or 'some other kind of file'}, not a PyTorch model.", fixes.get(kind, SAVE_WHOLE)
    )


def _load_archive(stream: BinaryIO, request: LoadRequest) -> Loaded:
    names, path = archive.entries(stream, request.path), request.path
    if archive.is_torchscript(names):
        _refuse_options(request, "TorchScript")
        if not request.trust:
            torchscript_safety.check(stream, path)
        module = _settle(lambda: _load_script(stream), stream, request)
        torchscript.check_mode(module, path)
        training = any(getattr(part, "training", False) for part in module.modules())
        return Loaded(module, "torchscript", was_training=training)
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        _refuse_options(request, "an exported program")
        if not request.trust:
            pt2.check(stream, names, path)
        program = _settle(lambda: torch.export.load(stream), stream, request)
        return Loaded(program, "exported program", was_training=False)
    if "serialized_exported_program.json" in names:
        raise ModelError(
            f"{path} is an exported program by torch 2.7 or older.",
            "Load it with that version, export it to ONNX there, or export the model anew.",
        )
    if "data.pkl" not in names:
        raise ModelError(f"{path} is a zip archive, but not one of PyTorch's.", SAVE_WHOLE)
    return _choose(unpickle(stream, request), request)


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise MissingExtraError("safetensors", "torch", "read .safetensors files") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{path} is truncated or damaged: {reason(error)}.", "Save or download it again."
        ) from error


def _choose(found: Any, request: LoadRequest, kind: Kind = "state_dict") -> Loaded:
    """Take the module that was found, or fill the network that its weights belong to."""
    path = request.path
    chosen = checkpoint.find(found, request.key, path)
    under = (f"It was found under the key {chosen.key}.",) if chosen.key else ()
    if isinstance(chosen.content, nn.Module):
        if request.arch:
            raise InputError(f"{path} holds a whole module: --arch is for weights.", "Leave --arch out.")
        try:
            training = any(module.training for module in chosen.content.modules())
        except AttributeError as error:  # made, but never given its content
            raise ModelError(f"{path} is damaged: {reason(error)}.", "Save it again.") from error
        return Loaded(chosen.content, "module", was_training=training, notes=under)
    if not request.arch:
        names = list(chosen.content)
        raise InputError(
            f"{path} holds weights without their network: {len(names)} tensors"
            f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}).",
            "Add what makes the network, a class or a function: --arch package.module:factory",
        )
    network = architecture.build(request.arch, request.arch_args)
    notes = weights.fill(network, chosen.content, path, request.arch, chosen.key)
    made = f"Its weights were loaded into {request.arch}."
    return Loaded(network, kind, was_training=False, notes=(made, *under, *notes))


def _refuse_options(request: LoadRequest, what: str) -> None:
    given = {"--arch": request.arch, "--key": request.key, "--allow": request.allow}
    if wrong := [name for name, value in given.items() if value]:
        raise InputError(
            f"{request.path} is {what}: {', '.join(wrong)} has no meaning for it.", "Leave it out."
        )


def _load_script(stream: BinaryIO) -> torch.jit.ScriptModule:
    module: torch.jit.ScriptModule = torch.jit.load(stream, map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def _settle(read: Callable[[], Any], stream: BinaryIO, request: LoadRequest) -> Any:
    """Load a program or TorchScript that was checked before, without what torch says on the way."""
    if request.trust:
        return _trusted(read, stream, request.path)
    path = request.path
    stream.seek(0)
    log = logging.getLogger("torch.export")
    before = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback where it also raises
    try:
        with pt2.weights_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # a damaged file can lead the deserializer into any exception
        raise ModelError(
            f"{path} is damaged, or from another version of torch: {reason(error)}.",
            f"Export it again with torch {torch.__version__}.",
        ) from error
    finally:
        log.setLevel(before)
