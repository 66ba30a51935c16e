"""The model in an archive by `torch.save`, and of the rest of a checkpoint nothing at all.

Only what is chosen is made. Classes that an optimizer, a configuration or a trainer's state would need
are neither imported nor asked for; what the model itself needs is asked for at once, with what else is
missing.
"""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

from bnfold.errors import ModelError, UnsafePickleError, listed
from bnfold.options import Reading
from bnfold.torch.read import asking, checkpoint
from bnfold.torch.read.safety import outline, pickles
from bnfold.torch.read.safety.unpickle import Drawn, draw, draw_old, draw_plain, make

Read: TypeAlias = tuple[checkpoint.Candidate, tuple[str, ...]]


def read(stream: BinaryIO, path: str, reading: Reading) -> Read:
    """Find the model in an archive, and make it.

    Args:
        stream: The archive, which [`entries`][bnfold.torch.read.safety.archive.entries] has passed.
        path: The file, for the messages.
        reading: With `key` and `allow`.

    Returns:
        The model, and sentences about what was left out.

    Raises:
        UnsafePickleError: It needs classes that are not allowed, or asks for what no model needs.
        SeveralModelsError: There are several and no key.
        InputError: The key leads nowhere.
        ModelError: There is no model, or the file is damaged.
    """
    return _read(stream, draw(stream, path, reading), reading)


def read_old(stream: BinaryIO, path: str, reading: Reading) -> Read:
    """The same of a file from before PyTorch 1.6."""
    drawn, present = draw_old(stream, path, reading)
    return _read(present, drawn, reading)


def read_plain(stream: BinaryIO, path: str, reading: Reading) -> Read:
    """The same of a plain pickle, whose arrays are taken for tensors."""
    drawn, present = draw_plain(stream, path, reading)
    return _read(present, drawn, reading)


def _read(stream: BinaryIO, drawn: Drawn, reading: Reading) -> Read:
    path = drawn.path
    try:
        chosen = checkpoint.find(drawn.root, reading.key, path)
    except checkpoint.SeveralModelsError as error:
        _ask(drawn, error.candidates, reading)
        raise error.completed(asking.line(error.candidates, reading)) from None
    except ModelError:
        if pickles.dangerous(asked := pickles.unknown(drawn.names, reading.allow)):
            raise pickles.refusal(path, asked, reading.allow, "") from None
        raise
    _ask(drawn, [chosen], reading)
    content = make(stream, drawn, chosen.content, reading)
    named = set(outline.names(outline.inside(outline.to_make(chosen.content))))
    left = [name for name in pickles.unknown(drawn.names, reading.allow) if name not in named]
    left = [name for name in left if name not in outline.WRAPPERS]
    notes = (f"Left out, since the model does not need it: {listed(left)}.",) if left else ()
    return checkpoint.Candidate(chosen.key, content), notes


def _ask(drawn: Drawn, candidates: list[checkpoint.Candidate], reading: Reading) -> None:
    """Ask for permission for what the model needs, and in the same line for what else is missing."""
    missing = {one.key: drawn.missing(one.content, reading) for one in candidates}
    every = list(dict.fromkeys(name for names in missing.values() for name in names))
    if not every:
        return
    if pickles.dangerous(every):
        raise pickles.refusal(drawn.path, every, reading.allow, "")
    raise UnsafePickleError(
        f"{drawn.path} needs classes that are not torch.nn's: {', '.join(every)}.",
        "If you trust them, add: " + asking.line(candidates, reading, missing),
    )
