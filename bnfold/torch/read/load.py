"""A PyTorch file to a model, whatever its suffix says, without running anything that the file carries."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingExtraError, ModelError
from bnfold.files.file_kind import describe, head_of, reason
from bnfold.system.torch_advisories import weaknesses
from bnfold.torch.read import architecture, archive, checkpoint, torchscript, weights
from bnfold.torch.read.importing import from_here
from bnfold.torch.read.safety import pickle_protocol, pickles, pt2
from bnfold.torch.read.safety import torchscript as torchscript_safety

Kind: TypeAlias = Literal["module", "exported program", "torchscript", "state_dict", "safetensors"]

# A file from before PyTorch 1.6 is a row of pickles: a magic number, a version, the system, the object, the
# keys of its storages; then the storages themselves.
_LEGACY_PICKLES = 5
_SAVE_WHOLE = (
    "Save the whole model: torch.save(model, path), or torch.export.save(torch.export.export(...), path)."
)
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


@dataclass(frozen=True)
class _Request:
    """A file, and what was said about how to read it."""

    path: str
    arch: str | None
    arch_args: Mapping[str, Any] | str | None
    key: str | None
    trust: bool
    allow: Sequence[str]


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
    request = _Request(os.fspath(path), arch, arch_args, key, trust, allow)
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


def _load(path: Path, kind: str, request: _Request) -> Loaded:
    if kind == "a safetensors file (weights without a network)":
        return _choose(_safetensors(path), request, "safetensors")
    with path.open("rb") as stream:
        if kind == "a zip archive (as PyTorch writes)":
            return _load_archive(stream, request)
        if kind == "a PyTorch file in the format before 1.6":
            return _choose(_unpickle(stream, request, _LEGACY_PICKLES), request)
        if kind == "a pickle":
            return _choose(_plain_pickle(stream, request), request)
    fixes = {
        "an ONNX model": "Give it the suffix .onnx, and use it as it is.",
        "a Git LFS pointer, not the file itself": "Fetch the file itself with: git lfs pull",
    }
    raise ModelError(
        f"{path} is {kind or 'some other kind of file'}, not a PyTorch model.", fixes.get(kind, _SAVE_WHOLE)
    )


def _load_archive(stream: BinaryIO, request: _Request) -> Loaded:
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
        raise ModelError(f"{path} is a zip archive, but not one of PyTorch's.", _SAVE_WHOLE)
    return _choose(_unpickle(stream, request), request)


def _unpickle(stream: BinaryIO, request: _Request, rows: int = 0) -> Any:
    """Load `stream`, a zip archive or a row of `rows` pickles, with torch.nn's and the allowed classes."""
    path, allow = request.path, request.allow
    if request.trust:
        return _trusted(lambda: torch.load(stream, map_location="cpu", weights_only=False), stream, path)
    ours = pickles.torch_globals() + pickles.allowed_globals(allow)
    registered = torch.serialization.get_safe_globals()  # these must stay when the block ends
    extra: list[Callable[..., Any] | pickles.Global] = [one for one in ours if one not in registered]
    stream.seek(0)
    names = pickles.names_in(stream, rows) if rows else pickles.names_in_archive(stream)
    try:
        if pickles.dangerous(pickles.unknown(names, allow)):
            raise pickle.UnpicklingError  # torch's own guard would say the same, and is not asked
        stream.seek(0)
        with (
            contextlib.nullcontext(stream) if rows else pickle_protocol.lowered(stream) as plain,
            torch.serialization.safe_globals(extra),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # about how old the file is
            return torch.load(plain, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if rows and not pickles.dangerous(pickles.unknown(names, allow)):
            raise ModelError(
                f"{path} is in PyTorch's format before 1.6, which holds no module that can be loaded safely.",
                "If you trust it: torch.save(torch.load(path, weights_only=False), other), and give other."
                " --trust opens it as it is.",
            ) from None
        raise pickles.refusal(path, names, allow, _detail(error)) from None
    except Exception as error:  # a damaged file can lead the unpickler into any exception
        raise ModelError(
            f"{path} is truncated or damaged: {reason(error)}.", "Save or download it again."
        ) from error


def _trusted(read: Callable[[], Any], stream: BinaryIO, path: str) -> Any:
    """Whatever the file makes, with all that it runs on the way; the user has said that it may."""
    stream.seek(0)
    try:
        with from_here(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # the file's own code
        raise ModelError(
            f"{path} could not be read: {type(error).__name__}: {reason(error)}.",
            "Stand in the folder that its modules are imported from, or save it again.",
        ) from error


def _detail(error: BaseException) -> str:
    """What the unpickler found, without torch's advice on how to switch the protection off."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), "it is damaged")


def _plain_pickle(stream: BinaryIO, request: _Request) -> Any:
    """What `pickle.dump(...)` wrote: there is no safe way to load it, but its names can be told."""
    if request.trust:
        return _trusted(lambda: pickle.load(stream), stream, request.path)
    names = pickles.names_in(stream)
    if pickles.unknown(names, request.allow):
        raise pickles.refusal(request.path, names, request.allow, "")
    raise ModelError(f"{request.path} is a plain pickle, not written by torch.save.", _SAVE_WHOLE)


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


def _choose(found: Any, request: _Request, kind: Kind = "state_dict") -> Loaded:
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


def _refuse_options(request: _Request, what: str) -> None:
    given = {"--arch": request.arch, "--key": request.key, "--allow": request.allow}
    if wrong := [name for name, value in given.items() if value]:
        raise InputError(
            f"{request.path} is {what}: {', '.join(wrong)} has no meaning for it.", "Leave it out."
        )


def _load_script(stream: BinaryIO) -> torch.jit.ScriptModule:
    module: torch.jit.ScriptModule = torch.jit.load(stream, map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def _settle(read: Callable[[], Any], stream: BinaryIO, request: _Request) -> Any:
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
