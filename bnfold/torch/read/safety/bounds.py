"""How much a pickle may ask for: known from its sketch, before anything is made.

Three things could make a small file fill the memory or run for hours: a layer that is made with sizes as
arguments (a saved one is made without, and gets its tensors), a tensor that is larger than its numbers in the
file (`tensor_sizes`), and a key whose hash visits the same tuple again and again. All tensors together may
have `FACTOR` times the file's bytes and `FREE` more: views of one storage count whole, since an export stores
each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bnfold.torch.read.safety import plain
from bnfold.torch.read.safety.budget import Budget, ExcessiveError
from bnfold.torch.read.safety.sketch import Call, Name, Node, Sequence, Storage, Table, children, reachable
from bnfold.torch.read.safety.tensor_sizes import (
    FROM_TENSORS,
    FROM_TYPE,
    SIZED,
    STRIDED,
    sized,
    stored_bytes,
    strided,
)

FACTOR = 4
FREE = 64 << 20
_KEY = 100  # values that one key may be made of
_HASHED = 1 << 60  # greater numbers can be chosen to have all the same hash
_NESTED = 600
_LAYERS = 10_000  # of a recurrent layer, which makes names for each
_ENTRY = 64  # bytes that an entry of a container takes, about
_CONTAINERS = {
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "set", "frozenset", "bytes", "bytearray")),
    *(f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict", "deque")),
    *("torch.Size", "_codecs.encode"),
}
_BYTES = {"builtins.bytes", "builtins.bytearray", "_codecs.encode"}
_HASHING = _CONTAINERS - {"builtins.list", "builtins.tuple", "collections.deque", "torch.Size"}
_ENCODINGS = {"latin1", "latin-1", "utf-8", "utf8", "ascii"}
_FACTORIES = {f"builtins.{name}" for name in ("bool", "int", "float", "str", "list", "tuple", "dict", "set")}
_ATTRIBUTES = {"argparse.Namespace", "types.SimpleNamespace"}
_WITH_ATTRIBUTES = {"collections.OrderedDict", "collections.defaultdict"}
_PARTIAL = "functools.partial"
_NOTED = {"builtins.range", "builtins.slice"}  # they only note two or three numbers
_LARGEST = 16  # bytes of a number, the most
_STATES = {"collections.OrderedDict", "numpy.dtype", "numpy._core.multiarray._reconstruct"} | {
    *("numpy.core.multiarray._reconstruct", "collections.defaultdict", _PARTIAL),
    *_ATTRIBUTES,
}


def check(nodes: Iterable[Node], size: int, records: Mapping[str, int] | None, trusted: set[str]) -> None:
    """Refuse what asks for more than its file holds.

    Args:
        nodes: What is to be made, each once.
        size: Bytes of the file.
        records: Bytes of each storage in an archive; None for a file that is none.
        trusted: The names of the user's own classes, which may be called in any way.

    Raises:
        ExcessiveError: Something in it does.
    """
    budget = Budget(size * FACTOR + FREE)
    storages: dict[Any, int] = {}
    for node in nodes:
        if isinstance(node, Storage):
            storages[node.identity.members[2]] = stored_bytes(node, size, records)
        elif isinstance(node, Table) or (isinstance(node, Sequence) and node.kind in ("set", "frozenset")):
            _keys([key for key, _ in node.entries] if isinstance(node, Table) else node.members, budget)
        elif isinstance(node, Call) and str(node.function) not in trusted:
            _call(node, budget)
    if sum(storages.values()) > size:
        raise ExcessiveError("more numbers than it holds")


def check_tensors(root: Node, size: int, records: Mapping[str, int]) -> None:
    """Refuse tensors that ask for more than their file holds, in a pickle of TorchScript's own.

    Args:
        root: What is in the pickle; TorchScript knows few other calls, and none that takes sizes.
        size: Bytes of the file.
        records: Bytes of each storage.

    Raises:
        ExcessiveError: One does, or it is nested too deep.
    """
    check_depth(root, children)
    nodes = list(reachable([root]))
    budget = Budget(size * FACTOR + FREE)
    for node in nodes:
        if isinstance(node, Storage):
            stored_bytes(node, size, records)
        elif isinstance(node, Call) and str(node.function) in STRIDED:
            budget.spend(strided(str(node.function), node.arguments.members), "its tensors")


def check_depth(root: Node, onward: Callable[[Node], Iterable[Node]]) -> None:
    """Refuse objects that hold others through more levels than Python can follow.

    Args:
        root: What is to be made.
        onward: Gives what a node is made of.

    Raises:
        ExcessiveError: There are more than 600 levels; a layer of a layer is three.
    """
    levels: dict[int, int] = {}  # below each node, itself included; 0 while it is visited
    path: list[tuple[int, Iterator[Node]]] = [(id(path_end := object()), iter([root]))]
    levels[id(path_end)] = 0
    while path:
        above, others = path[-1]
        node = next(others, path_end)
        if node is path_end:
            path.pop()
            levels[above] += 1
            if path:
                levels[path[-1][0]] = max(levels[path[-1][0]], levels[above])
        elif isinstance(node, (Sequence, Table, Storage, Call)):
            if id(node) in levels:  # it may be deeper than where it was first met
                levels[above] = max(levels[above], levels[id(node)])
            else:
                levels[id(node)] = 0
                path.append((id(node), iter(onward(node))))
        if len(path) + levels[above] > _NESTED:
            raise ExcessiveError(f"objects that are nested more than {_NESTED} deep")


def _call(call: Call, budget: Budget) -> None:
    name, arguments = str(call.function), call.arguments.members
    _keys((key for key, _ in call.entries), budget)
    if name == FROM_TYPE:  # calls its first argument on the third
        inner = arguments[2] if len(arguments) > 2 else None
        if not isinstance(arguments[0], Name) or not isinstance(inner, Sequence):
            raise ExcessiveError("a tensor of an unknown kind")
        _call(Call(arguments[0], inner), budget)
    elif name in STRIDED:
        budget.spend(strided(name, arguments), "its tensors")
    elif name in SIZED:
        budget.spend(8 * sized(arguments), "its tensors")
    elif name in _CONTAINERS:
        each = 1 if name in _BYTES else _ENTRY
        count = _container(name, arguments, budget) + len(call.entries) + len(call.added)
        budget.spend(each * count, name)
    elif name.startswith("torch.nn.modules."):
        if arguments or not call.new:
            raise ExcessiveError(f"a {name} that is made with arguments, which torch.save does not write")
    elif name in _ATTRIBUTES:
        if arguments:
            raise ExcessiveError(f"a {name} with arguments")
    elif name == _PARTIAL:
        if len(arguments) != 1 or not isinstance(arguments[0], Name):
            raise ExcessiveError(f"a {name} of what is not named")
    elif name in plain.CALLED:
        if name.startswith("pathlib.") and not all(isinstance(one, str) for one in arguments):
            raise ExcessiveError("a path that is not made of text")  # paths of paths could double each time
        budget.spend(sum(map(_length_of_text, arguments)), name)
    elif name.startswith("torch._utils._rebuild_device_tensor_from_"):
        budget.spend(_LARGEST * _source(arguments), "its tensors")
    elif name not in FROM_TENSORS | _NOTED:
        raise ExcessiveError(f"a call of {name}, which torch.save does not write")
    _states(call, name, budget)


def _states(call: Call, name: str, budget: Budget) -> None:
    module = name.startswith("torch.nn.modules.")
    if call.states and not module and name not in _STATES:
        raise ExcessiveError(f"a {name} whose state is replaced")
    for state in call.states:
        if not module and name not in _ATTRIBUTES | _WITH_ATTRIBUTES:
            budget.spend(
                sum(map(_length_of_text, state.members if isinstance(state, Sequence) else ())), name
            )
            continue
        if not isinstance(state, Table):
            raise ExcessiveError(f"a {name} whose state is not a dictionary")
        budget.spend(_ENTRY * len(state.entries), f"the attributes of a {name}")  # each copies them
        if not all(isinstance(key, str) for key, _ in state.entries):
            raise ExcessiveError(f"a {name} with attributes whose names are not text")
        layers = state.get("num_layers") if module else None
        if name.startswith("torch.nn.modules.rnn.") and isinstance(layers, int) and layers > _LAYERS:
            raise ExcessiveError(f"{layers} layers in a {name}")


def _length_of_text(node: Node) -> int:
    """Of text, or of bytes as pickle's older protocols write them; 0 for anything else."""
    if isinstance(node, Call) and str(node.function) in _BYTES and node.arguments.members:
        node = node.arguments.members[0]
    return len(node) if isinstance(node, (str, bytes)) else 0


def _source(arguments: list[Node]) -> int:
    """How many numbers, at most, the first argument has, which a call converts to another type."""
    first = arguments[0] if arguments else None
    if not isinstance(first, Call):
        raise ExcessiveError("a tensor of an unknown kind")
    name = str(first.function)
    if name in STRIDED:
        return strided(name, first.arguments.members)
    if name.endswith("._frombuffer"):
        return sum(map(_length_of_text, first.arguments.members))
    if name.endswith("._reconstruct"):
        members = [one for state in first.states if isinstance(state, Sequence) for one in state.members[:9]]
        return sum(map(_length_of_text, members))
    raise ExcessiveError("a tensor of an unknown kind")


def _container(name: str, arguments: list[Node], budget: Budget) -> int:
    """How many entries a container gets from what it is made with."""
    first, *others = arguments or [None]
    if name == "collections.defaultdict":
        if first is not None and str(first) not in _FACTORIES:
            raise ExcessiveError(f"a {name} that calls {first}")
        first, others = (*others, None)[0], others[1:]
    known = {"collections.deque": (int, type(None)), "_codecs.encode": (str,), "builtins.bytearray": (str,)}
    if len(others) > 1 or not all(isinstance(one, known.get(name, ())) for one in others):
        raise ExcessiveError(f"a call of {name}, which torch.save does not write")
    if isinstance(first, (str, bytes)):
        if name == "_codecs.encode" and (not others or others[0] not in _ENCODINGS):
            raise ExcessiveError("text in an unknown encoding")
        return len(first)
    return _length(name, first, budget)


def _length(name: str, argument: Node, budget: Budget) -> int:
    if isinstance(argument, Sequence):
        if name in _HASHING:
            pairs = name not in ("builtins.set", "builtins.frozenset", "collections.Counter")
            _keys((_first_of(one) if pairs else one for one in argument.members), budget)
        return len(argument.members)
    if isinstance(argument, Table):
        return len(argument.entries)
    if isinstance(argument, Call) and str(argument.function) in _CONTAINERS - {"_codecs.encode"}:
        inner = _container(str(argument.function), argument.arguments.members, budget)
        return inner + len(argument.entries) + len(argument.added)
    if argument is None:
        return 0
    if isinstance(argument, Call) and str(argument.function) == "_codecs.encode":
        return _length_of_text(argument)
    raise ExcessiveError(f"a {name} of an unknown length")


def _first_of(pair: Node) -> Node:
    return pair.members[0] if isinstance(pair, Sequence) and pair.members else pair


def _keys(keys: Iterable[Node], budget: Budget) -> None:
    """A key's hash visits all that it is made of, as often as it is named; equal hashes are compared."""
    for key in keys:
        if isinstance(key, (str, bytes)) or id(key) in budget.keys:
            continue
        count, work = 0, [key]
        while work:
            one = work.pop()
            count += 1
            if count > _KEY:
                raise ExcessiveError(f"a dictionary with a key of more than {_KEY} values")
            if isinstance(one, int) and abs(one) >= _HASHED:
                raise ExcessiveError("a dictionary with a key that is a number of 19 digits or more")
            work.extend(itertools.islice(children(one), _KEY + 1))
        if isinstance(key, (Sequence, Table, Call)):  # these live as long as the sketch
            budget.keys.add(id(key))
