"""Fixed sizes for inputs whose sizes are open, and all that follows from them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir

from bnfold.contract.changed import Changed
from bnfold.errors import InputError, reason
from bnfold.graph import shape_inference
from bnfold.graph.constants import Constants
from bnfold.graph.harmless import harmless
from bnfold.graph.scopes import scopes
from bnfold.graph.skeleton import skeleton_of
from bnfold.runtime.interface import Port, interface, shape_text


def fixed(model: ir.Model, batch: int | None, shapes: Mapping[str, Sequence[int]]) -> Changed:
    """Fix open sizes of inputs. A name that stands for a size does so in all inputs.

    Args:
        model: The model.
        batch: The first size of every input, where it is open; None leaves it as it is.
        shapes: All sizes of some inputs, by name; `""` is the only input.

    Raises:
        InputError: A size is fixed already and another one; or two of those asked for, or the operators of
            the graph, contradict each other.
    """
    ports = interface(model).inputs
    sizes = _asked_for(ports, batch, shapes)
    other = model.clone()
    values = {value.name: value for value in other.graph.inputs}
    for port in ports:
        value, dims = values[port.name], sizes.new(port)
        if dims is not None and value.shape is not None:
            kept = [own if size is None else size for own, size in zip(value.shape, dims, strict=True)]
            value.shape = ir.Shape(kept)
        elif dims is not None:
            value.shape = ir.Shape(dims)
    _demand_consistent(model, other)
    _record(other, sizes.symbols)
    now = interface(other)
    changed = [port for port, before in zip(now.inputs, ports, strict=True) if port.shape != before.shape]
    said = ", ".join(f"{port.name!r} to {shape_text(port.shape)}" for port in changed)
    sentence = f"Set the {'input' if len(changed) == 1 else 'inputs'} {said}"
    if not changed:
        sentence, other = "All sizes were set as asked for already", model
    still = [str(port) for port in now.inputs if any(not isinstance(size, int) for size in port.shape or ())]
    if still:
        sentence += f"; open sizes stay in {'; '.join(still)}"
    details = {
        "inputs": {port.name: list(port.shape or ()) for port in now.inputs},
        "outputs": {port.name: list(port.shape or ()) for port in now.outputs},
    }
    name = "set-shape" if shapes else "set-batch"
    return Changed(name, f"{sentence}.", other, model, details=details, may_round=True)


class _Sizes:
    """Sizes asked for, by symbol and by input."""

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}
        self._unnamed: dict[tuple[str, int], int] = {}
        self._ranks: dict[str, int] = {}

    def set(self, port: Port, axis: int, size: int) -> None:
        """Ask for one size; the same one twice is allowed."""
        own = port.shape[axis] if port.shape is not None else None
        if isinstance(own, int):
            known: int | None = own
        elif isinstance(own, str):
            known = self.symbols.setdefault(own, size)
        else:
            known = self._unnamed.setdefault((port.name, axis), size)
        if known != size:
            named = f", which {own!r} stands for" if isinstance(own, str) else ""
            raise InputError(
                f"The input {port.name!r} has the size {known} on axis {axis}{named}, not {size}: {port}.",
                "Only open sizes can be set. Export the model again with that size, or with it open.",
            )

    def rank(self, port: Port, count: int) -> None:
        """Note how many dimensions an input was given that does not say so."""
        self._ranks[port.name] = count

    def new(self, port: Port) -> list[int | None] | None:
        """The sizes that an input has now, None where nothing is known; None if not even their number is."""
        if port.shape is None:
            count = self._ranks.get(port.name)
            return None if count is None else [self._unnamed[port.name, axis] for axis in range(count)]
        return [
            self.symbols.get(own) if isinstance(own, str) else self._unnamed.get((port.name, axis))
            for axis, own in enumerate(port.shape)
        ]


def _asked_for(ports: Sequence[Port], batch: int | None, shapes: Mapping[str, Sequence[int]]) -> _Sizes:
    sizes = _Sizes()
    by_name = {port.name: port for port in ports}
    known = "; ".join(map(str, ports)) or "none"
    for name, shape in shapes.items():
        if not name and len(ports) != 1:
            raise InputError(
                f"The model has {len(ports)} inputs: {known}.", "Name one: --set-shape NAME=SHAPE."
            )
        port = by_name.get(name or ports[0].name)
        if port is None:
            raise InputError(f"The model has no input {name!r}.", f"Its inputs: {known}.")
        if port.shape is None:
            sizes.rank(port, len(shape))
        elif len(port.shape) != len(shape):
            raise InputError(
                f"The input {port.name!r} has {len(port.shape)} dimensions, and {len(shape)} were given:"
                f" {port}.",
                "Give one for each.",
            )
        for axis, size in enumerate(shape):
            sizes.set(port, axis, size)
    if batch is not None:
        firsts = [port for port in ports if port.shape]
        still = [port for port in firsts if port.shape and not isinstance(port.shape[0], int)]
        for port in still or firsts:  # a first size that is fixed next to open ones is not a batch
            sizes.set(port, 0, batch)
    return sizes


def _demand_consistent(before: ir.Model, after: ir.Model) -> None:
    """Refuse sizes that an operator of the graph does not take, if it took the open ones.

    Raises:
        InputError: Names the node, as ONNX's shape inference does.
    """
    problem = _problem(after)
    if problem is not None and _problem(before) is None:
        raise InputError(
            f"The graph does not take these sizes: {problem}.", "Take sizes that the network was made for."
        )


def _problem(model: ir.Model) -> str | None:
    """What ONNX's strict inference says is wrong with the sizes of a model."""
    opsets = {scope.graph: scope.opset for scope in scopes(model)}
    constants = Constants(
        model.ir_version, lambda _: None, lambda node: opsets[node.graph] if node.graph is not None else 1
    )
    try:
        proto = harmless(skeleton_of(model, constants))
        onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except Exception as error:  # it fails in many ways, which differ between versions
        lines = [line for line in str(error).splitlines() if "op_type" in line] or [reason(error)]
        return re.sub(r"^.*?(?=\(op_type)", "", lines[0]).rstrip(".: ")
    return None


def _record(model: ir.Model, symbols: Mapping[str, int]) -> None:
    """Write the sizes that follow into what the file records of its values."""
    shapes, types = shape_inference.infer(model, list(scopes(model)))
    for value in _values(model):
        found = shapes.get(value)
        own = None if value.shape is None else [_size(dim, symbols) for dim in value.shape]
        if found is not None and own is not None and len(found) == len(own):
            own = [new if isinstance(new, int) else old for new, old in zip(found, own, strict=True)]
        elif own is None and found is not None and any(isinstance(size, int) for size in found):
            own = [size if isinstance(size, int) else None for size in found]
        if own is None:
            continue
        if value.type is None:
            if value not in types:
                continue
            value.type = ir.TensorType(types[value])
        value.shape = ir.Shape(own)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in scopes(model):
        if not scope.is_function:
            for node in scope.graph:
                yield from node.outputs


def _size(dim: int | ir.SymbolicDim, symbols: Mapping[str, int]) -> int | str | None:
    return dim if isinstance(dim, int) else symbols.get(dim.value or "", dim.value)
