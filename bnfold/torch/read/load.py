"""Loading a PyTorch file by its content, whatever its suffix, without running code from the file."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingExtraError, ModelError, reason
from bnfold.files.file_kind import FileKind, ModelKind, kind_of
from bnfold.files.load import guarded
from bnfold.files.weight_index import file_of, is_index
from bnfold.options import Reading
from bnfold.system.torch_advisories import weaknesses
from bnfold.torch.read import (
    architecture,
    archived,
    asking,
    checked,
    checkpoint,
    shards,
    torchscript,
    weights,
)
from bnfold.torch.read.safety import archive, plain_pickle, pt2
from bnfold.torch.read.safety import torchscript as torchscript_safety
from bnfold.torch.read.safety.unpickle import SAVE_WHOLE, trusted

_TRUSTED = "Opened with --trust: the file could run any code on this machine while it was read."


@dataclass(frozen=True)
class Loaded:
    """What a PyTorch file held.

    Attributes:
        source: The module, on the CPU, each submodule in the mode that it was saved in; or the program. Of
            TorchScript it is a `torch.jit.ScriptModule`; of weights, their network, filled.
        kind: What the file is.
        was_training: Whether any part of the module was saved in train mode. Always False for a program,
            which has no mode: what it does was fixed when it was exported; and for weights.
        notes: What the user should know about how it was read, as sentences.
        traced_with: Shape and type of every input that TorchScript was traced with, where the file has them.
    """

    source: nn.Module | ExportedProgram
    kind: ModelKind
    was_training: bool
    notes: tuple[str, ...] = ()
    traced_with: tuple[tuple[tuple[int, ...], str], ...] = ()


@guarded
def load(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    key: str | None = None,
    trust: bool = False,
    allow: Sequence[str] = (),
    ignore_unexpected: bool = False,
) -> Loaded:
    """Load a pickled `nn.Module`, a program by `torch.export.save`, TorchScript, or weights.

    A pickle can only make torch.nn's own layers, tensors and plain data: numbers, text, containers, NumPy's
    numbers and arrays, namespaces, paths, dates. Anything else that the model needs is refused without being
    imported, unless it is in `allow`; what else is in a checkpoint is not made at all.

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
        ignore_unexpected: Whether weights that the network does not have are left out: counters, or the
            heads of another task. Missing ones are an error all the same.

    Raises:
        UnsafePickleError: The file names classes or functions that are not allowed; the message lists them
            and the options to add. Or its TorchScript or its program could do more than compute.
        ModelError: It cannot be read, is truncated, is not a model, or does not fit `arch`.
        InputError: `arch` is missing, or fails; `key` leads nowhere, or is missing where a checkpoint holds
            several models; or an option has no meaning for what the file holds.
        MissingExtraError: A safetensors file, and the package safetensors is not installed.

    Examples:
        >>> loaded = bnfold.torch.load("net.pt")
        >>> loaded.kind, type(loaded.source).__name__
        ('module', 'Sequential')
    """
    reading = Reading(
        arch=arch,
        arch_args=arch_args,
        key=key,
        trust=trust,
        allow=allow,
        ignore_unexpected=ignore_unexpected,
    )
    return load_as(path, reading)


def load_as(path: str | os.PathLike[str], reading: Reading) -> Loaded:
    """Do what [`load`][bnfold.torch.read.load.load] is asked for."""
    path = file_of(path)
    kind = kind_of(path)
    if reading.arch_args and not reading.arch:
        raise InputError("--arch-args goes with --arch.", "Add --arch package.module:factory")
    if reading.ignore_unexpected and not reading.arch:
        raise InputError("--ignore-unexpected goes with --arch.", "Add --arch package.module:factory")
    loaded = _load(os.fspath(path), kind, reading)
    notes = (_TRUSTED,) if reading.trust else tuple(_known_weaknesses(loaded))
    return replace(loaded, notes=(*notes, *loaded.notes))


def _known_weaknesses(loaded: Loaded) -> list[str]:
    """Known weaknesses of this version of torch, for a file that torch itself has unpickled."""
    if loaded.kind == "safetensors":
        return []
    return [
        f"torch {torch.__version__} falls under {weak.cve}: {weak.what}. Type: pip install --upgrade torch"
        for weak in weaknesses(torch.__version__)
        if weak.state == "problem" or loaded.kind == "exported program"
    ]


def _load(path: str, kind: FileKind, reading: Reading) -> Loaded:
    if kind is FileKind.SAFETENSORS:
        return _choose(safetensors(path), path, reading, "safetensors")
    if kind is FileKind.TEXT and is_index(path):
        return _choose(shards.read(path, lambda file: _shard(file, reading)), path, reading, "safetensors")
    with Path(path).open("rb") as stream:
        if kind is FileKind.ZIP:
            return _load_archive(stream, path, reading)
        if kind is FileKind.PICKLE and not reading.trust:
            return _filled(*archived.read_plain(stream, path, reading), path, reading)
        if kind is FileKind.PICKLE:
            found = trusted(lambda: pickle.load(stream, encoding="latin1"), stream, path)
            return _choose(plain_pickle.with_tensors(found), path, reading)
        if kind is FileKind.OLD_TORCH and not reading.trust:
            return _filled(*archived.read_old(stream, path, reading), path, reading)
        if kind is FileKind.OLD_TORCH:
            return _choose(_trusted(stream, path), path, reading)
    fixes = {
        FileKind.ONNX: "Give it the suffix .onnx, and use it as it is.",
        FileKind.GIT_LFS: "Fetch the file itself with: git lfs pull",
    }
    raise ModelError(f"{path} is {kind}, not a PyTorch model.", fixes.get(kind, SAVE_WHOLE))


def _load_archive(stream: BinaryIO, path: str, reading: Reading) -> Loaded:
    names = archive.entries(stream, path)
    if archive.is_torchscript(names):
        _refuse_options(path, reading, "TorchScript")
        if not reading.trust:
            torchscript_safety.check(stream, path)
        torchscript.check_optimised(stream, path)
        load_script: Callable[..., Any] = torch.jit.load
        module = _read_checked(lambda: load_script(stream, map_location="cpu"), stream, path, reading)
        notes = torchscript.check_inputs(module, path)
        torchscript.check_mode(module, path)
        training = any(getattr(part, "training", False) for part in module.modules())
        traced = () if reading.trust else torchscript_safety.traced_with(stream)
        return Loaded(module, "torchscript", was_training=training, notes=notes, traced_with=traced)
    if archive.is_program(names):
        _refuse_options(path, reading, "an exported program")
        if not reading.trust:
            pt2.check(stream, names, path)
        program = _read_checked(lambda: torch.export.load(stream), stream, path, reading)
        return Loaded(program, "exported program", was_training=False)
    if "serialized_exported_program.json" in names:
        raise ModelError(
            f"{path} is an exported program by torch 2.7 or older.",
            "Load it with that version, export it to ONNX there, or export the model again.",
        )
    if "data.pkl" not in names:
        raise ModelError(f"{path} is a zip archive, but not one of PyTorch's.", SAVE_WHOLE)
    if reading.trust:
        return _choose(_trusted(stream, path), path, reading)
    return _filled(*archived.read(stream, path, reading), path, reading)


def _trusted(stream: BinaryIO, path: str) -> Any:
    """Everything in a file, as it says itself."""
    return trusted(lambda: torch.load(stream, map_location="cpu", weights_only=False), stream, path)


def _shard(file: Path, reading: Reading) -> Mapping[str, Any]:
    """The weights in one of several files."""
    kind = kind_of(file)
    if kind is FileKind.SAFETENSORS:
        return safetensors(os.fspath(file))
    with file.open("rb") as stream:
        if kind is FileKind.ZIP and "data.pkl" in archive.entries(stream, os.fspath(file)):
            content = archived.read(stream, os.fspath(file), replace(reading, key=None))[0].content
            if isinstance(content, Mapping):
                return content
    raise ModelError(f"{file} is {kind} and holds no weights.", "Download it again.")


def safetensors(path: str) -> dict[str, torch.Tensor]:
    """The weights in a safetensors file."""
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


def _choose(found: Any, path: str, reading: Reading, kind: ModelKind = "state_dict") -> Loaded:
    """Take the module that was found, or fill the network that its weights belong to."""
    try:
        chosen = checkpoint.find(found, reading.key, path)
    except checkpoint.SeveralModelsError as error:
        raise error.completed(asking.line(error.candidates, reading)) from None
    return _filled(chosen, (), path, reading, kind)


def _filled(
    chosen: checkpoint.Candidate,
    about: tuple[str, ...],
    path: str,
    reading: Reading,
    kind: ModelKind = "state_dict",
) -> Loaded:
    under = (f"It was found under the key {chosen.key}.", *about) if chosen.key else about
    if isinstance(chosen.content, nn.Module):
        if reading.arch:
            raise InputError(f"{path} holds a whole module: --arch is for weights.", "Leave --arch out.")
        module = checkpoint.unwrapped(chosen.content)
        checked.check(module, path)
        training = any(part.training for part in module.modules())
        return Loaded(module, "module", was_training=training, notes=under)
    if not isinstance(chosen.content, Mapping):  # such as a namespace with a module's attributes
        raise ModelError(f"{path} holds a {type(chosen.content).__name__}, not a model.", SAVE_WHOLE)
    if not checkpoint.is_weights(chosen.content):  # such as one with a name that is no text
        raise ModelError(f"{path} is damaged: its weights are not tensors by name.", "Save it again.")
    if not reading.arch:
        named = f"{len(chosen.content)} tensors ({checkpoint.some(chosen.content)})"
        raise InputError(
            f"{path} holds weights without their network: {named}.",
            "A class or a function of yours makes it. Add: "
            + asking.line(asking.states_in(chosen), reading, ordered=kind != "safetensors"),
        )
    network = architecture.build(reading.arch, reading.arch_args)
    notes = weights.fill(
        network, chosen.content, path, reading.arch, chosen.key, ignore_unexpected=reading.ignore_unexpected
    )
    made = f"Its weights were loaded into {reading.arch}."
    return Loaded(network, kind, was_training=False, notes=(made, *under, *notes))


def _refuse_options(path: str, reading: Reading, what: str) -> None:
    given = {
        "--arch": reading.arch,
        "--key": reading.key,
        "--allow": reading.allow,
        "--ignore-unexpected": reading.ignore_unexpected,
    }
    if wrong := [name for name, value in given.items() if value]:
        raise InputError(f"{path} is {what}: {', '.join(wrong)} has no meaning for it.", "Leave it out.")


def _read_checked(read: Callable[[], Any], stream: BinaryIO, path: str, reading: Reading) -> Any:
    """Load a program or TorchScript that was checked before, without torch's warnings and logs."""
    if reading.trust:
        return trusted(read, stream, path)
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
