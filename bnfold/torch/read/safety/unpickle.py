"""A pickle loaded with torch.nn's classes and the allowed ones, or refused before anything in it runs."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from bnfold.errors import ModelError, reason
from bnfold.options import Reading
from bnfold.torch.read.safety import pickle_protocol, pickles
from bnfold.torch.read.safety.importing import from_here

# A file from before PyTorch 1.6 is a sequence of pickles: a magic number, a version, the system, the object,
# the keys of its storages; then the storages themselves.
OLD_FORMAT_PICKLES = 5

SAVE_WHOLE = (
    "Save the whole model: torch.save(model, path), or torch.export.save(torch.export.export(...), path)."
)


def unpickle(stream: BinaryIO, path: str, reading: Reading, count: int = 0) -> Any:
    """Load `stream`, a zip archive or a sequence of `count` pickles, with torch.nn's and allowed classes."""
    allow = reading.allow
    if reading.trust:
        return trusted(lambda: torch.load(stream, map_location="cpu", weights_only=False), stream, path)
    ours = pickles.torch_globals() + pickles.allowed_globals(allow)
    registered = torch.serialization.get_safe_globals()  # these must stay when the block ends
    extra: list[Callable[..., Any] | pickles.Global] = [one for one in ours if one not in registered]
    stream.seek(0)
    names = pickles.names_in(stream, count) if count else pickles.names_in_archive(stream)
    try:
        if pickles.dangerous(pickles.unknown(names, allow)):
            raise pickle.UnpicklingError  # torch's own guard would refuse it too
        stream.seek(0)
        with (
            contextlib.nullcontext(stream) if count else pickle_protocol.lowered(stream) as plain,
            torch.serialization.safe_globals(extra),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # about how old the file is
            return torch.load(plain, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if count and not pickles.dangerous(pickles.unknown(names, allow)):
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


def trusted(read: Callable[[], Any], stream: BinaryIO, path: str) -> Any:
    """Read a file that may run any code, as the user has allowed."""
    stream.seek(0)
    try:
        with from_here(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # the file's own code
        raise ModelError(
            f"{path} could not be read: {type(error).__name__}: {reason(error)}.",
            "Run this in the folder that its modules are imported from, or save it again.",
        ) from error


def _detail(error: BaseException) -> str:
    """What the unpickler found, without torch's advice on how to switch the protection off."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), "it is damaged")


def plain_pickle(stream: BinaryIO, path: str, reading: Reading) -> Any:
    """What `pickle.dump(...)` wrote: it cannot be loaded safely, but its names can be listed."""
    if reading.trust:
        return trusted(lambda: pickle.load(stream), stream, path)
    names = pickles.names_in(stream)
    if pickles.unknown(names, reading.allow):
        raise pickles.refusal(path, names, reading.allow, "")
    raise ModelError(f"{path} is a plain pickle, not written by torch.save.", SAVE_WHOLE)
