"""What a file does not say by itself, asked for in one line: options to add, with blanks to fill in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bnfold.options import Reading
from bnfold.torch.read.checkpoint import Candidate, below
from bnfold.torch.read.safety import outline
from bnfold.torch.read.safety.sketch import Call, Table
from bnfold.torch.read.safety.tensor_sizes import sizes_of

_AXES = {1: "<length>", 2: "<height>x<width>", 3: "<depth>x<height>x<width>"}
_BOOKKEEPING = (
    *("total_ops", "total_params"),  # of thop, a counter of operations
    *(".fake_quant_enabled", ".observer_enabled", ".min_val", ".max_val", ".eps"),  # of torch.ao's observers
)
_LENGTHS = (".original0", ".weight_g")  # of the vectors that a weight is normalised to
_TWINS = 2  # weights that two parts have in common, at least, to be two states of one network


def line(
    candidates: Sequence[Candidate],
    reading: Reading,
    missing: Mapping[str, Sequence[str]] | None = None,
    *,
    ordered: bool = True,
) -> str:
    """The options that a file needs, for each model in it that could be meant.

    Args:
        candidates: The models; their content may be an outline.
        reading: The options that were given; they are not asked for again.
        missing: By the key of a model: the classes that it needs permission for.
        ordered: Whether weights are in the order of their layers; those in safetensors are sorted.

    Returns:
        The options of the first model, then after `; or: ` those of the next.
    """
    several = len(candidates) > 1
    asked = [
        [
            *(f"--allow {name}" for name in (missing or {}).get(one.key, ())),
            *([f"--key {one.key}"] if several and one.key else []),
            *_options(one.content, reading, ordered=ordered),
        ]
        for one in candidates
    ]
    return "; or: ".join(map(" ".join, asked))


def states_in(candidate: Candidate) -> list[Candidate]:
    """The weights as a whole, and the parts of them that are the same network at different times.

    An average of weights over the training is kept beside them, as `online_model.` and `ema_model.`; so is a
    teacher beside its student.
    """
    content = candidate.content
    if not isinstance(content, Mapping):
        return [candidate]
    kinds: dict[object, list[str]] = {}
    for part in dict.fromkeys(name.partition(".")[0] for name in content):
        inner = below(content, f"{part}.")
        if len(inner) >= _TWINS:
            kinds.setdefault(frozenset((name, _sizes(value)) for name, value in inner.items()), []).append(
                part
            )
    twins = [part for parts in kinds.values() if len(parts) > 1 for part in parts]
    prefix = f"{candidate.key}." if candidate.key else ""
    return [candidate, *(Candidate(prefix + part, below(content, f"{part}.")) for part in twins)]


def _options(content: Any, reading: Reading, *, ordered: bool) -> Iterator[str]:
    if isinstance(content, Mapping):
        if not reading.arch:
            yield "--arch package.module:factory"
        if not reading.ignore_unexpected and any(name.endswith(_BOOKKEEPING) for name in content):
            yield "--ignore-unexpected"
    if reading.input_shape:
        return
    if isinstance(content, Mapping):
        yield from _of_weights(content, ordered=ordered)
    elif not isinstance(content, nn.Module):  # of one that is made already, its own signature says more
        yield from _of_layers(content)


def _of_weights(weights: Mapping[str, Any], *, ordered: bool) -> Iterator[str]:
    """The shape of the input as far as the first weight says it, as an option to fill in."""
    for name, value in weights.items():
        sizes = _sizes(value)
        axes = len(sizes) - 2
        if axes < 0 or name.endswith(_LENGTHS):
            continue
        count = sizes[1] if ordered else "<channels>"
        if axes in _AXES:
            yield f"--input-shape 1x{count}x{_AXES[axes]}"
            return
        if not axes and ordered:
            embeds = "embed" in name.lower()
            yield "--input-shape 1x<length> --dtype int64" if embeds else f"--input-shape 1x{count}"
            return


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    return sizes_of(value.node) if isinstance(value, outline.Part) else ()


def _of_layers(content: Any) -> Iterator[str]:
    """The same of a module that has not been made."""
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
