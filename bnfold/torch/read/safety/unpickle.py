"""A pickle loaded with torch.nn's classes and the allowed ones, or refused before anything in it runs."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from bnfold.errors import ModelError, UnsafePickleError, listed, reason
from bnfold.options import Reading
from bnfold.torch.read.safety import before_1_6, bounds, outline, pickles, plain, plain_pickle, sketch
from bnfold.torch.read.safety.budget import ExcessiveError
from bnfold.torch.read.safety.emit import emit
from bnfold.torch.read.safety.importing import from_here
from bnfold.torch.read.safety.overlay import with_pickle

SAVE_WHOLE = (
    "Save the whole model: torch.save(model, path), or torch.export.save(torch.export.export(...), path)."
)


@dataclass(frozen=True)
class Drawn:
    """A pickle in an archive, of which nothing has been made.

    Attributes:
        path: The file.
        entry: The pickle's name in the archive.
        size: Bytes of the file.
        records: Bytes of its storages by their keys.
        names: The classes and functions that the pickle names.
        root: What is in it, as an outline.
    """

    path: str
    entry: str
    size: int
    records: Mapping[str, int]
    names: Sequence[str]
    root: Any

    def missing(self, content: Any, reading: Reading) -> list[str]:
        """The classes that need permission to make `content`, a part of the outline."""
        named = outline.names(outline.inside(outline.to_make(content)))
        return pickles.unknown(named, reading.allow)


def draw(stream: BinaryIO, path: str, reading: Reading) -> Drawn:
    """Read the pickle of an archive without making what is in it.

    Raises:
        UnsafePickleError: It asks for what no model needs, or is not as picklers write.
        ModelError: It is damaged.
    """
    size = stream.seek(0, 2)
    try:
        with zipfile.ZipFile(stream) as archive:
            folders = {name.partition("/")[0] for name in archive.namelist()}
            if len(folders) > 1:  # torch would take the first; what is checked must be what it reads
                raise zipfile.BadZipFile(f"it has {len(folders)} folders, {listed(sorted(folders))}")
            entry = f"{folders.pop()}/data.pkl"
            data = archive.read(entry)
            folder = entry.removesuffix("data.pkl") + "data/"
            records = {info.filename.removeprefix(folder): info.file_size for info in archive.infolist()}
    except (zipfile.BadZipFile, KeyError) as error:
        raise damaged(path, error) from None
    with _judging(path, reading, lambda: pickles.names_in(io.BytesIO(data))):
        return _drawn(path, entry, size, records, sketch.read(io.BytesIO(data)), reading)


def draw_old(stream: BinaryIO, path: str, reading: Reading) -> tuple[Drawn, BinaryIO]:
    """The same of a file from before PyTorch 1.6, with the archive that takes its place.

    Raises:
        UnsafePickleError: It asks for what no model needs.
        ModelError: It is damaged.
    """
    present, drawn = before_1_6.as_archive(stream, path)
    return _drawn_in_memory(stream, path, present, drawn, reading), present


def draw_plain(stream: BinaryIO, path: str, reading: Reading) -> tuple[Drawn, BinaryIO]:
    """The same of what `pickle.dump(...)` wrote, with an archive that has tensors in place of its arrays.

    Raises:
        UnsafePickleError: It asks for what no model needs.
        ModelError: It is damaged, or holds tensors, which a plain pickle keeps as calls.
    """
    with before_1_6.bounded(stream) as whole:
        names = pickles.names_in(whole)
    with _judging(path, reading, lambda: names):
        present, drawn = plain_pickle.as_archive(stream)
    if plain_pickle.TENSORS in drawn.names and not pickles.harmful(names):
        raise ModelError(
            f"{path} is a plain pickle with tensors, not written by torch.save.",
            f"{SAVE_WHOLE} If you trust the file, add --trust.",
        )
    return _drawn_in_memory(stream, path, present, drawn, reading), present


def _drawn_in_memory(
    stream: BinaryIO, path: str, present: BinaryIO, drawn: sketch.Sketch, reading: Reading
) -> Drawn:
    with zipfile.ZipFile(present) as archive:
        folder = before_1_6.ENTRY.removesuffix("data.pkl") + "data/"
        records = {info.filename.removeprefix(folder): info.file_size for info in archive.infolist()}
    with _judging(path, reading, lambda: drawn.names):
        return _drawn(path, before_1_6.ENTRY, stream.seek(0, 2), records, drawn, reading)


def _drawn(
    path: str, entry: str, size: int, records: Mapping[str, int], drawn: sketch.Sketch, reading: Reading
) -> Drawn:
    """The outline of a pickle, unless it names what nobody needs, be it beside the model."""
    wrapped = _names(sketch.reachable([drawn.root])) - _names(outline.inside(drawn.root))
    left = [name for name in drawn.names if name not in wrapped]  # what a wrapper has is never made
    if pickles.harmful(pickles.unknown(left, reading.allow)):
        raise pickle.UnpicklingError
    return Drawn(path, entry, size, records, drawn.names, outline.outline(drawn.root))


def _names(nodes: Iterator[sketch.Node]) -> set[str]:
    return set(outline.names(nodes))


def make(stream: BinaryIO, drawn: Drawn, content: Any, reading: Reading) -> Any:
    """Make a part of what was drawn, and nothing else.

    Raises:
        UnsafePickleError: It asks for more than the file holds, or for a class that is not allowed.
        ModelError: It is damaged.
    """
    node = outline.unwrapped(outline.to_make(content))
    ours = _ours(reading)
    with _judging(drawn.path, reading, lambda: outline.names(outline.inside(node))):
        bounds.check_depth(node, outline.parts)
        bounds.check(outline.inside(node), drawn.size, drawn.records, _trusted(reading))
        data = emit(node, outline.unwrapped)
        return _load(with_pickle(stream, drawn.entry, data), [*ours, plain.FILLER])


def _ours(reading: Reading) -> list[pickles.Global]:
    return pickles.torch_globals() + plain.GLOBALS + pickles.allowed_globals(reading.allow)


def _trusted(reading: Reading) -> set[str]:
    """Names that the user has allowed, here or in this process; they are called as the file says."""
    return set(reading.allow) - plain.TABLE.keys() | pickles.registered()


def _load(stream: Any, ours: list[pickles.Global]) -> Any:
    registered = torch.serialization.get_safe_globals()  # these must stay when the block ends
    extra: list[Callable[..., Any] | pickles.Global] = [one for one in ours if one not in registered]
    with torch.serialization.safe_globals(extra), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how old the file is
        return torch.load(stream, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _judging(path: str, reading: Reading, names: Callable[[], list[str]]) -> Iterator[None]:
    """Say of whatever goes wrong whether the file is damaged, or asks for something that it must not."""
    try:
        yield
    except ModelError:
        raise
    except ExcessiveError as error:
        raise UnsafePickleError(
            f"{path} was not opened: it asks for {reason(error)}.",
            "PyTorch does not write such files. Do not trust it.",
        ) from None
    except pickle.UnpicklingError as error:
        raise pickles.refusal(path, names(), reading.allow, _detail(error)) from None
    except Exception as error:  # a damaged file can lead the unpickler into any exception
        raise damaged(path, error) from error


def damaged(path: str, error: BaseException) -> ModelError:
    """The error for a file that cannot be read to its end."""
    return ModelError(f"{path} is truncated or damaged: {reason(error)}.", "Save or download it again.")


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
