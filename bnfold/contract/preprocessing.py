"""What is done to a picture before a network, put into its graph; the fold then takes of it what is exact.

The nodes stand in this order: Transpose to channels first, Cast to the type of the network, Div or Mul by the
scale, Sub of the mean, Div by the deviation, and a Gather that turns the channels around. So the arithmetic
stands where the first layer can take it, and the Gather directly before the layer whose weight can be
permuted instead. A scale of `1/n` divides by `n`, as torchvision's `to_tensor` does (`1/255` is rounded).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.contract.changed import Changed
from bnfold.contract.contract import Preprocessing
from bnfold.errors import InputError
from bnfold.graph.naming import Names
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.runtime.interface import Port, interface

if TYPE_CHECKING:
    from bnfold.runtime.sessions import Feeds

_ELEMENTWISE = frozenset({"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Pad", "Relu", "Sub"})
_CHANNELS_FIRST = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool"}
    | {"GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "MaxPool", "QLinearConv"}
    | {"SpaceToDepth"}
)
_FLOATS = ("float16", "float32", "float64")
_FIRST, _LAST = 1, 3  # the axis of the channels
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)

Array = npt.NDArray[Any]


def preprocessed(model: ir.Model, asked: Preprocessing) -> Changed:
    """Put preprocessing in front of an input, which keeps its name.

    Args:
        model: The model.
        asked: What is to be done.

    Raises:
        InputError: It is not clear which input takes the picture, or what was asked for does not suit it.
    """
    port = _picture(model, asked)
    plan = _planned(port, asked, channels_last=_channels_come_last(model, port))
    _demand_in_range(plan)
    other = model.clone()
    nodes = _insert(other, plan)

    def back(feeds: Feeds) -> Feeds:
        return {**feeds, port.name: prepared(feeds[port.name], plan, plan.dtype)}

    def rounding(feeds: Feeds) -> float:
        exact = prepared(feeds[port.name], plan, np.dtype(np.float64))
        off = np.abs(prepared(feeds[port.name], plan, plan.dtype).astype(np.float64) - exact)
        scale = np.abs(exact).max(initial=0.0)
        return float(off.max(initial=0.0) / (scale * np.finfo(plan.dtype).eps)) if scale else 0.0

    details = {
        "input": port.name,
        "nodes": list(nodes),
        "type": "uint8" if asked.uint8 else port.type,
        "shape": [size if isinstance(size, int | str) else None for size in plan.shape],
    }
    new = interface(other).inputs
    said = next(str(one) for one in new if one.name == port.name)
    order = " with channels in the opposite order" if asked.bgr else ""
    return Changed(
        "preprocessing",
        f"The input {said} takes pictures as they are{order}; the graph prepares them{_numbers(plan)}.",
        other,
        model,
        back,
        details,
        rounding,
        nodes,
        may_round=plan.dtype == np.float16,  # runtimes keep float32 between operators of float16
    )


@dataclass(frozen=True)
class Plan:
    """Preprocessing that suits an input.

    Attributes:
        name: Of the input.
        dtype: Of the network's input, in which everything is computed.
        axis: Where the network has its channels, 1 or 3.
        shape: Of the picture that is given.
        asked: What is to be done.
    """

    name: str
    dtype: np.dtype[Any]
    axis: int
    shape: tuple[int | str | None, ...]
    asked: Preprocessing

    def per_channel(self, numbers: tuple[float, ...], dtype: np.dtype[Any]) -> Array:
        """Numbers of the network's channels in a shape that broadcasts: `[C, 1, 1]` or `[C]`."""
        array = np.asarray(numbers, self.dtype).astype(dtype)
        return array.reshape((-1, 1, 1) if self.axis == _FIRST and len(array) > 1 else (-1,))


def prepared(picture: Array, plan: Plan, dtype: np.dtype[Any]) -> Array:
    """What the network gets for a picture, in plain NumPy: the reference that the graph is compared with.

    Args:
        picture: Of the new input's type and shape.
        plan: The preprocessing.
        dtype: What to compute in; the constants are those of the graph, rounded to the network's type.
    """
    asked = plan.asked
    values = picture.transpose(_TO_FIRST) if asked.channels_last else picture
    if asked.bgr:
        values = np.flip(values, plan.axis)
    values = np.ascontiguousarray(values).astype(dtype)
    if (factor := asked.factor) is not None:
        if factor.numerator == 1:
            values = values / np.asarray(factor.denominator, dtype)
        else:
            values = values * np.asarray(float(factor), plan.dtype).astype(dtype)
    if asked.mean:
        values = values - plan.per_channel(asked.mean, dtype)
    if asked.std:
        values = values / plan.per_channel(asked.std, dtype)
    return np.asarray(values, dtype)


def _picture(model: ir.Model, asked: Preprocessing) -> Port:
    """The input that takes the picture."""
    ports = interface(model).inputs
    listed = "; ".join(map(str, ports)) or "none"
    if asked.input is not None:
        found = [port for port in ports if port.name == asked.input]
        if not found:
            raise InputError(f"The model has no input {asked.input!r}.", f"Its inputs: {listed}.")
    else:
        found = [port for port in ports if port.shape is not None and len(port.shape) == 4]
    if len(found) != 1:
        what = "No input has four dimensions" if not found else "Several inputs have four dimensions"
        raise InputError(
            f"{what}, so that it is not clear which one takes the picture.",
            f"Name it with --preprocess-input. Its inputs: {listed}.",
        )
    (port,) = found
    if port.shape is None or len(port.shape) != 4 or port.type not in _FLOATS:
        hint = " It takes bytes already." if port.type == "uint8" else ""
        raise InputError(
            f"The input is not a picture of floats: {port}.{hint}", "Name another with --preprocess-input."
        )
    return port


def _channels_come_last(model: ir.Model, port: Port) -> bool:
    """Whether a network takes channels last, by what it does with the picture first.

    The sizes alone do not tell: a picture may be three elements wide. They decide only where the network's
    first operators do not.
    """
    value = next(value for value in model.graph.inputs if value.name == port.name)
    while readers := {node for node, _ in value.uses() if node.domain in ONNX_DOMAINS}:
        if any(node.op_type in _CHANNELS_FIRST for node in readers):
            return False
        if all(node.op_type == "Transpose" for node in readers):
            turns = [node.attributes.get("perm") for node in readers]
            return all(turn is not None and tuple(turn.as_ints()) == _TO_FIRST for turn in turns)
        if len(readers) > 1 or not {node.op_type for node in readers} <= _ELEMENTWISE:
            break
        (node,) = readers
        value = node.outputs[0]
    shape = port.shape or ()
    return shape[_FIRST] not in (1, 3) and shape[_LAST] in (1, 3)


def _demand_in_range(plan: Plan) -> None:
    """Refuse numbers that the network's type does not hold.

    Raises:
        InputError: Names the number.
    """
    asked, factor = plan.asked, plan.asked.factor
    scale = () if factor is None else (float(factor.denominator if factor.numerator == 1 else factor),)
    for word, numbers, divides in (
        ("scale", scale, True),
        ("mean", asked.mean, False),
        ("std", asked.std, True),
    ):
        for number in numbers:
            with np.errstate(over="ignore", under="ignore"):
                held = plan.dtype.type(number)
            if not np.isfinite(held) or (divides and (abs(held) < np.finfo(plan.dtype).tiny)):
                raise InputError(
                    f"The {word} {number:g} of the preprocessing is out of the range of {plan.dtype}.",
                    "Prepare the pictures before the model, or use the model in float32.",
                )


def _planned(port: Port, asked: Preprocessing, *, channels_last: bool) -> Plan:
    shape = port.shape or ()
    axis = _LAST if channels_last else _FIRST
    channels = shape[axis]
    if asked.channels_last and axis == _LAST:
        raise InputError(
            f"The input has its channels last already: {port}.", "Leave --channels-last-input out."
        )
    counts = {len(numbers) for numbers in (asked.mean, asked.std)} - {0, 1}
    if isinstance(channels, int) and counts - {channels}:
        raise InputError(
            f"--normalize has numbers for {max(counts)} channels, and the input is {port}.",
            "Give one mean and one std, or one of each for every channel.",
        )
    if len(counts) > 1:
        raise InputError("There are not as many means as deviations.", "Give one of each for every channel.")
    if asked.bgr and channels != 3:
        raise InputError(
            f"--bgr turns three channels around, and the input is {port}.",
            "Leave it out, or fix the number of channels with --set-shape.",
        )
    given = tuple(shape[place] for place in _TO_LAST) if asked.channels_last else shape
    return Plan(port.name, np.dtype(port.type), axis, given, asked)


def _insert(model: ir.Model, plan: Plan) -> tuple[str, ...]:
    """Put the nodes into `model`; gives their names."""
    graph, asked = model.graph, plan.asked
    old = next(value for value in graph.inputs if value.name == plan.name)
    if old.is_graph_output():
        raise InputError(f"The input {plan.name!r} is an output, too.", "Take other outputs with --outputs.")
    shape = old.shape
    if asked.channels_last and shape is not None:
        shape = ir.Shape([shape[place] for place in _TO_LAST])
    picture = ir.Value(
        name=plan.name,
        type=ir.TensorType(ir.DataType.UINT8) if asked.uint8 else old.type,
        shape=shape,
        doc_string=old.doc_string,
    )
    made = _nodes(model, plan, picture)
    last = made[-1].outputs[0]
    last.type, last.shape = old.type, old.shape
    measured = made[0].outputs[0] if asked.channels_last else picture
    for node, index in tuple(old.uses()):
        if node.op_type in ("Shape", "Size") and node.domain in ONNX_DOMAINS:
            node.replace_input_with(index, measured)  # so that the fold sees one reader of what is prepared
    old.replace_all_uses_with(last)
    old.name = None
    graph.inputs[graph.inputs.index(old)] = picture
    if len(graph):
        graph.insert_before(graph[0], made)
    else:
        graph.extend(made)
    return tuple(node.name or "" for node in made)


def _nodes(model: ir.Model, plan: Plan, picture: ir.Value) -> list[ir.Node]:
    """The nodes in their order, not in the graph yet; their constants are initializers of it."""
    asked, names = plan.asked, Names(model)
    made: list[ir.Node] = []

    def add(op_type: str, what: str, *constants: Array, **attributes: Any) -> None:
        inputs = [made[-1].outputs[0] if made else picture]
        for array in constants:
            name = names.fresh(f"{plan.name}.{what}.constant")
            tensor = ir.Tensor(array, name=name)
            kind = ir.TensorType(tensor.dtype)
            value = ir.Value(name=name, type=kind, shape=ir.Shape(array.shape), const_value=tensor)
            model.graph.register_initializer(value)
            inputs.append(value)
        name = names.fresh(f"{plan.name}.{what}")
        given = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        node = ir.Node("", op_type, inputs, given, name=name)
        node.outputs[0].name = name
        made.append(node)

    def constant(numbers: tuple[float, ...]) -> Array:
        turned = numbers[::-1] if asked.bgr else numbers  # the Gather comes last
        return plan.per_channel(turned, plan.dtype)

    if asked.channels_last:
        add("Transpose", "channels_first", perm=list(_TO_FIRST))
    if asked.uint8:
        add("Cast", "as_float", to=ir.DataType.from_numpy(plan.dtype).value)
    if (factor := asked.factor) is not None:
        whole = factor.numerator == 1
        number = np.asarray(factor.denominator if whole else float(factor), plan.dtype)
        add("Div" if whole else "Mul", "scaled", number)
    if asked.mean:
        add("Sub", "centred", constant(asked.mean))
    if asked.std:
        add("Div", "normalised", constant(asked.std))
    if asked.bgr:
        add("Gather", "channels_turned", np.array([2, 1, 0]), axis=plan.axis)
    return made


def _numbers(plan: Plan) -> str:
    asked, parts = plan.asked, []
    if asked.factor is not None:
        parts.append(
            f"times {asked.factor}" if asked.factor.denominator < 1e6 else f"times {float(asked.factor):g}"
        )
    for word, numbers in (("minus", asked.mean), ("over", asked.std)):
        if numbers:
            parts.append(f"{word} {','.join(f'{number:g}' for number in numbers)}")
    return f": {', '.join(parts)}" if parts else ""
