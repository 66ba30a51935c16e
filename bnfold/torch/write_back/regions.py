"""What is left of a module after a fold, and whether something simpler can replace it.

A module's region is all nodes whose path is that module or a part of it. Two cases are proved:

- Everything removed from the region is an affine map, folded elsewhere: what is left replaces the module.
- Its branches became one convolution. A value name that the original and the folded graph share stands for
  the same numbers in both; so if the region reads the same name and makes the same name in both graphs, it
  still computes the same.

In both, what is left has to be a sequence of steps, each of which reads only the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from bnfold.graph.nodes import integer, integers, path_of
from bnfold.torch.write_back.edits import Convolution, Part, Relu
from bnfold.torch.write_back.tensor_lookup import array_of

Plain = Callable[[str], bool]
_AFFINE = frozenset({"BatchNormalization", "Mul", "Add", "Sub", "Div"})


def is_within(node: ir.Node, path: str) -> bool:
    """Whether a node stands in a module or in one of its parts."""
    own = path_of(node)
    return own is not None and (own == path or own.startswith(f"{path}."))


@dataclass(frozen=True)
class Region:
    """Nodes of one graph, in its order, and the values that enter and leave them."""

    nodes: tuple[ir.Node, ...]

    @classmethod
    def of(cls, graph: Iterable[ir.Node], path: str) -> Region:
        """The region of the module at `path`."""
        return cls(tuple(node for node in graph if is_within(node, path)))

    @property
    def inputs(self) -> dict[ir.Value, None]:
        """What it reads from outside, without constants."""
        own = {value for node in self.nodes for value in node.outputs}
        read = (value for node in self.nodes for value in node.inputs if value is not None)
        return dict.fromkeys(value for value in read if value not in own and value.const_value is None)

    @property
    def outputs(self) -> dict[ir.Value, None]:
        """What others read of it."""
        made = (value for node in self.nodes for value in node.outputs)
        return dict.fromkeys(
            value
            for value in made
            if value.is_graph_output() or any(user not in self.nodes for user, _ in value.uses())
        )

    @property
    def ends(self) -> tuple[str, str] | None:
        """The names of its only input and its only output; None if there are more."""
        (first, *others), (last, *more) = self.inputs or [None], self.outputs or [None]
        if others or more or first is None or last is None:
            return None
        return first.name or "", last.name or ""


def without_affines(
    path: str, before: Region, after: Region, gone: frozenset[str], plain: Plain
) -> tuple[Part, ...] | None:
    """What stays of a module without affine maps; None if that is unknown.

    Args:
        path: Of the module.
        before: Its region in the original graph.
        after: The same in the folded graph.
        gone: Names of the nodes that the fold removed.
        plain: Whether the module at a path takes one tensor and returns one.
    """
    removed = [node for node in before.nodes if node.name in gone]
    stayed = [node.name for node in before.nodes if node.name not in gone]
    if not plain(path) or stayed != [node.name for node in after.nodes]:
        return None
    if not all(_is_affine(node) for node in removed):
        return None
    return _parts(path, after, plain) if after.nodes else ()


def merged(path: str, before: Region, after: Region, conv: ir.Node, plain: Plain) -> tuple[Part, ...] | None:
    """What stays of a module whose branches became `conv`; the other arguments are as above."""
    if not plain(path) or before.ends is None or before.ends != after.ends:
        return None
    return _parts(path, after, plain, conv)


def ancestors(path: str) -> Iterator[str]:
    """The paths of the modules around one, the nearest first, without the root."""
    while path := path.rpartition(".")[0]:
        yield path


def _is_affine(node: ir.Node) -> bool:
    constant = any(value is not None and value.const_value is not None for value in node.inputs)
    return node.op_type in _AFFINE and constant


def _parts(path: str, region: Region, plain: Plain, conv: ir.Node | None = None) -> tuple[Part, ...] | None:
    """The steps of a region, if it is a sequence of them."""
    groups: dict[object, list[ir.Node]] = {}
    for node in region.nodes:
        child = (path_of(node) or "").removeprefix(path).strip(".").partition(".")[0]
        key = node if node is conv or not child else child
        groups.setdefault(key, []).append(node)
    steps = [(key, Region(tuple(nodes))) for key, nodes in groups.items()]
    parts = [_part(path, key, plain, conv) for key, _ in steps]
    known = tuple(part for part in parts if part is not None)
    return known if len(known) == len(parts) and _is_sequence([step for _, step in steps]) else None


def _part(path: str, key: object, plain: Plain, conv: ir.Node | None) -> Part | None:
    if isinstance(key, str):
        return key if plain(f"{path}.{key}") else None
    assert isinstance(key, ir.Node), "steps are children or nodes"
    if key is conv:
        return _convolution(key)
    return Relu() if key.op_type == "Relu" else None


def _is_sequence(steps: Sequence[Region]) -> bool:
    ends = [step.ends for step in steps]
    known = [end for end in ends if end is not None]
    return len(known) == len(ends) and all(one[1] == other[0] for one, other in pairwise(known))


def _convolution(node: ir.Node) -> Convolution | None:
    """A Conv node as PyTorch's layer, which pads both ends alike and in one to three dimensions."""
    arrays = [array_of(value) for value in node.inputs[1:]]
    weight, bias = [*arrays, None][:2]
    if weight is None or (len(arrays) > 1 and bias is None) or not 3 <= weight.ndim <= 5:
        return None
    spatial = weight.ndim - 2
    pads = integers(node, "pads") or (0,) * (2 * spatial)
    if pads[:spatial] != pads[spatial:] or min(pads) < 0:
        return None
    return Convolution(
        np.asarray(weight, np.float64),
        None if bias is None else np.asarray(bias, np.float64),
        stride=integers(node, "strides") or (1,) * spatial,
        padding=pads[:spatial],
        dilation=integers(node, "dilations") or (1,) * spatial,
        groups=integer(node, "group", 1),
    )
