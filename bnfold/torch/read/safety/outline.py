"""What a checkpoint holds, from its sketch: dictionaries, modules and tensors, none of them made yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bnfold.torch.read.safety.sketch import Call, Name, Node, Sequence, Table, children, reachable
from bnfold.torch.read.safety.tensor_sizes import TENSORS

_DEPTH = 5  # of dictionaries; weights are looked for in fewer
_NUMBER = 1 << 60  # greater ones can be chosen to have all the same hash
_ATTRIBUTES = 1000  # of a wrapper, which is looked at as often as it is named
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}


class Outline(dict[Any, Any]):
    """A dictionary as it would be.

    Args:
        node: What it is in the sketch.
        entries: Its keys, and what is under them: a `Part`, another one of these, or a number or text.
    """

    def __init__(self, node: Node, entries: dict[Any, Any]) -> None:
        super().__init__(entries)
        self.node = node


class Part:
    """Something that is not a dictionary.

    Args:
        node: What it is in the sketch.
    """

    def __init__(self, node: Node) -> None:
        self.node = unwrapped(node)

    @property
    def is_module(self) -> bool:
        """Whether it is a module, of any class."""
        return _is_module(self.node)

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor or a parameter."""
        return isinstance(self.node, Call) and str(self.node.function) in TENSORS

    @property
    def kind(self) -> str:
        """What its type is called."""
        if self.is_tensor:
            return "Tensor"
        if isinstance(self.node, Call):
            return self.node.function.name
        if isinstance(self.node, Sequence):
            return self.node.kind
        return type(self.node).__name__


def outline(root: Node) -> Any:
    """The dictionaries in a sketch, some levels deep, and what they hold."""
    return _outline(root, 0, {})


def _outline(node: Node, depth: int, done: dict[tuple[int, int], Any]) -> Any:
    entries = node.entries if isinstance(node, (Table, Call)) else None
    if entries is None or depth == _DEPTH or not (isinstance(node, Table) or entries or _is_dictionary(node)):
        return Part(node)
    if (id(node), depth) not in done:
        done[id(node), depth] = None  # where it contains itself
        found = {
            key: _outline(value, depth + 1, done)
            for key, value in entries
            if isinstance(key, (str, bytes)) or (isinstance(key, (int, float)) and abs(key) < _NUMBER)
        }
        done[id(node), depth] = Outline(node, found)
    return done[id(node), depth]


def _is_dictionary(node: Call) -> bool:
    return str(node.function) in ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")


def _is_module(node: Node) -> bool:
    return isinstance(node, Call) and any(
        isinstance(state, Table)
        and {"_modules", "_parameters"} <= {key for key, _ in state.entries if isinstance(key, str)}
        for state in node.states
    )


def unwrapped(node: Node) -> Node:
    """The module in DataParallel and its like, which change only how it is trained or run; else `node`."""
    for _ in range(len(WRAPPERS) + 1):  # each may be in another
        attribute = WRAPPERS.get(str(node.function)) if isinstance(node, Call) else None
        inner = _attribute(node, attribute) if attribute else None
        if not isinstance(inner, Call):
            break
        node = inner
    return node


def _attribute(node: Call, name: str) -> Node:
    """The module in a wrapper: among its attributes, or the first that it is made with."""
    if not node.states:
        return next(iter(node.arguments.members), None)
    state = node.states[0]
    if not isinstance(state, Table) or len(state.entries) > _ATTRIBUTES:
        return None
    modules = state.get("_modules")
    entries = modules.entries[-_ATTRIBUTES:] if isinstance(modules, (Table, Call)) else []
    return next((value for key, value in reversed(entries) if key == name), None)


def to_make(content: Any) -> Node:
    """What has to be made for a module, or for weights: never more than their tensors and extra state."""
    if isinstance(content, Part):
        return content.node
    if isinstance(content, Outline) and isinstance(content.node, Call) and _is_dictionary(content.node):
        return content.node  # its attributes have the versions of its modules
    return Table([(name, getattr(value, "node", value)) for name, value in content.items()])


def inside(node: Node) -> Iterator[Node]:
    """Every node that is made for `node`, wrappers left out."""
    return reachable([unwrapped(node)], parts)


def parts(node: Node) -> Iterator[Node]:
    """What a node is made of, wrappers left out."""
    return map(unwrapped, children(node))


def names(nodes: Iterator[Node]) -> list[str]:
    """The classes and functions among nodes."""
    return list(dict.fromkeys(str(node) for node in nodes if isinstance(node, Name)))
