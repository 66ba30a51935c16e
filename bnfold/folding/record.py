"""The record of a fold in the file that it made: what was folded into what, and which values are new.

A fold gives a new name to every value that it changes. So where a file carries the record of a fold of this
very original, and nobody has renamed or rewired anything since, equal names mean equal values; of any two
other files that is not known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import onnx_ir as ir

from bnfold.graph.scopes import nodes
from bnfold.result import Site

KEY = "bnfold.fold"
"""Under which key the record stands in a model's metadata."""

VERSION = 1


def write(folded: ir.Model, original: str, before: frozenset[str], sites: Sequence[Site]) -> None:
    """Put the record into a folded model, in place of any older one.

    Args:
        folded: The model.
        original: The [`digest`][bnfold.folding.record.digest] of the model that it was folded from.
        before: The names of that model's values.
        sites: What became of every affine.
    """
    into = {site.name: list(site.into) for site in sites if site.into}
    new = sorted(names(folded) - before)
    entries = {
        "version": VERSION,
        "original": original,
        "folded": digest(folded),
        "into": into,
        "new_values": new,
    }
    folded.metadata_props[KEY] = json.dumps(entries, separators=(",", ":"))


def is_fold_of(folded: ir.Model, original: ir.Model) -> bool:
    """Whether a model carries the record of its fold from another one, and both still have the same names."""
    try:
        entries = json.loads(folded.metadata_props.get(KEY, "null"))
    except ValueError:
        return False
    if not isinstance(entries, dict) or entries.get("version") != VERSION:
        return False
    return entries.get("original") == digest(original) and entries.get("folded") == digest(folded)


def names(model: ir.Model) -> frozenset[str]:
    """The names of all values that nodes of a model compute."""
    return frozenset(value.name for node in nodes(model) for value in node.outputs if value.name)


def digest(model: ir.Model) -> str:
    """A hash of a model's operators and the names of what they read and compute; weights do not count."""
    found = hashlib.sha256()
    for node in nodes(model):
        if node.op_type != "Constant":
            read = [value.name for value in node.inputs if value is not None and not _is_weight(value)]
            entry = (node.domain, node.op_type, read, [value.name for value in node.outputs])
            found.update(json.dumps(entry).encode())
    return found.hexdigest()


def _is_weight(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")
