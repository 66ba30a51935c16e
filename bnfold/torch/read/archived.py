"""The model in an archive by `torch.save`, and of the rest of a checkpoint nothing at all.

Only what is chosen is made. Classes that an optimizer, a configuration or a trainer's state would need
are neither imported nor asked for; what the model itself needs is asked for at once, with what else is
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from bnfold.errors import UnsafePickleError, listed
from bnfold.options import Reading
from bnfold.torch.read import checkpoint
from bnfold.torch.read.safety import outline, pickles
from bnfold.torch.read.safety.sketch import Call, Table
from bnfold.torch.read.safety.unpickle import Drawn, draw, make

_AXES = {1: "<length>", 2: "<height>x<width>", 3: "<depth>x<height>x<width>"}


def read(stream: BinaryIO, path: str, reading: Reading) -> tuple[checkpoint.Candidate, tuple[str, ...]]:
    """Find the model, and make it.

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
    drawn = draw(stream, path, reading)
    try:
        chosen = checkpoint.find(drawn.root, reading.key, path)
    except checkpoint.SeveralModelsError as error:
        _ask(drawn, error.candidates, reading)
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
    lines = []
    for one in candidates:
        words = [f"--allow {name}" for name in missing[one.key]]
        if len(candidates) > 1:
            words.append(f"--key {one.key}")
        if isinstance(one.content, dict) and not reading.arch:
            words.append("--arch package.module:factory")
        if not reading.input_shape:
            words += _shape(one.content)
        lines.append(" ".join(words))
    raise UnsafePickleError(
        f"{drawn.path} needs classes that are not torch.nn's: {', '.join(every)}.",
        "If you trust them, add: " + "; or: ".join(lines),
    )


def _shape(content: Any) -> Iterator[str]:
    """The shape of the input as far as the first layer says it, as an option to fill in."""
    for node in outline.inside(outline.to_make(content)):
        name = str(node.function) if isinstance(node, Call) else ""
        state = node.states[0] if name.startswith("torch.nn.modules.") and node.states else None
        if not isinstance(state, Table):
            continue
        channels, features = state.get("in_channels"), state.get("in_features")
        axes = next((axes for axes in _AXES if f"{axes}d" in name), 0)
        if isinstance(channels, int) and axes:
            yield f"--input-shape 1x{channels}x{_AXES[axes]}"
            return
        if isinstance(features, int):
            yield f"--input-shape 1x{features}"
            return
