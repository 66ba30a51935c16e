"""From the names of a folded module's tensors to those of the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bnfold.result import FoldResult
from bnfold.torch.write_back.edits import Convolution, Replace
from bnfold.torch.write_back.graph_diff import GraphDiff


def parameter_origins(
    module: nn.Module, made: nn.Module, difference: GraphDiff, result: FoldResult[Any]
) -> dict[str, tuple[str, ...]]:
    """For every name in the copy's state_dict, those of the original whose numbers are in it.

    Args:
        module: The original.
        made: The folded copy.
        difference: What was done to it.
        result: The fold that it comes from.
    """
    old, new = module.state_dict(keep_vars=True), made.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in new.items():
        first.setdefault(id(tensor), name)
    found: dict[str, tuple[str, ...]] = {name: (name,) if name in old else () for name in new}
    taken = _taken(old, result)
    for name, nodes in difference.nodes.items():
        norms = (norm for node in nodes for norm in taken.get(node, ()))
        found[name] = (*found.get(name, ()), *norms)
    for edit in difference.edits:
        if isinstance(edit, Replace) and any(isinstance(part, Convolution) for part in edit.parts):
            within = tuple(name for name in old if name.startswith(f"{edit.path}."))
            for name in new:
                head, _, rest = name.removeprefix(f"{edit.path}.").partition(".")
                if name.startswith(f"{edit.path}.") and rest and head not in edit.parts:
                    found[name] = within
    return {name: tuple(dict.fromkeys(found[first[id(tensor)]])) for name, tensor in new.items()}


def _taken(old: Mapping[str, Any], result: FoldResult[Any]) -> dict[str, list[str]]:
    """For each node by its report name, the tensors of the BatchNorms folded into it."""
    taken: dict[str, list[str]] = {}
    for site in result.folded:
        norm = [name for name in old if name.startswith(f"{site.name}.")]
        norm = [name for name in norm if not name.endswith(".num_batches_tracked")]
        for node in site.into:
            taken.setdefault(node, []).extend(norm)
    return taken
