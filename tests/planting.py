"""What planting a fault takes: a right fold, an editor for it, and what was tampered with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

import bnfold
from bnfold.graph.nodes import module_name
from bnfold.inputs.samples import choose
from bnfold.oracle.oracle import Oracle
from bnfold.result import FoldResult
from bnfold.runtime import sessions
from bnfold.runtime.interface import as_ir, interface
from bnfold.validation.results import Validation

Array = np.ndarray[Any, Any]
T = TypeVar("T")
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Planted:
    """A fault in a fold.

    Attributes:
        model: The faulty one.
        node: The node that was tampered with; None where it is the interface.
        site: The BatchNorm whose fold it holds; None where it holds none.
    """

    model: onnx.ModelProto
    node: str | None = None
    site: str | None = None

    def is_named(self, validation: Validation) -> bool:
        """Whether a validation says where: the node and the BatchNorm folded there, or the interface."""
        if self.node is None:
            return validation.blame is None and bool(validation.problems or validation.differences)
        if validation.blame is None or validation.blame.runtime:
            return False
        layer = validation.blame.layer
        return self.node in layer.nodes and (self.site is None or self.site in (layer.site or "").split(", "))


class Graph:
    """A copy of a model, to be altered."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.stored = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.nodes = {node.name: node for node in self.model.graph.node}
        self.makers = {name: node for node in self.model.graph.node for name in node.output}

    def readers(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.model.graph.node if value in node.input]

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """A copy of what a node reads, where that is an initializer."""
        name = node.input[index] if index < len(node.input) else ""
        return numpy_helper.to_array(self.stored[name]).copy() if name in self.stored else None

    def put(self, node: onnx.NodeProto, index: int, array: Array) -> None:
        """Give a node its own constant, rounded to the type of what it replaces, or the weight's."""
        present = [self.constant(node, place) for place in (index, 1)]
        like = next(array for array in present if array is not None)
        with np.errstate(over="ignore"):
            tensor = numpy_helper.from_array(array.astype(like.dtype), f"{node.name}.planted.{index}")
        self.stored[tensor.name] = self.model.graph.initializer.add()
        self.stored[tensor.name].CopyFrom(tensor)
        node.input.extend([""] * (index + 1 - len(node.input)))
        node.input[index] = tensor.name

    def bias_of(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
        """Where a layer's bias stands: its third input, or the Add after a MatMul."""
        if node.op_type != "MatMul":
            return (node, 2) if self.constant(node, 2) is not None else None
        adds = [reader for reader in self.readers(node.output[0]) if reader.op_type == "Add"]
        return (adds[0], 1) if adds and self.constant(adds[0], 1) is not None else None


def attribute(node: onnx.NodeProto, name: str, default: T) -> T:
    """An attribute of a node."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def output_first(node: onnx.NodeProto, weight: Array) -> Array:
    """A view of a weight whose first axis is the output channels, within a group where it is transposed."""
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        return np.swapaxes(weight, -1, 0)
    return np.swapaxes(weight, 0, 1) if node.op_type == "ConvTranspose" else weight


@dataclass
class Case:
    """A network, its right fold, and the place at which faults are planted.

    Attributes:
        name: The network's.
        original: The network.
        result: Its fold.
        seed: Decides the place: another seed, mostly another layer.
    """

    name: str
    original: onnx.ModelProto = field(repr=False)
    result: FoldResult[onnx.ModelProto] = field(repr=False)
    seed: int = 0

    @classmethod
    def of(cls, name: str, original: onnx.ModelProto, seed: int = 0) -> Case:
        """Fold a network."""
        return cls(name, original, bnfold.fold(original), seed)

    def edit(self) -> Graph:
        """A copy of the right fold."""
        return Graph(self.result.model)

    @cached_property
    def layers(self) -> dict[str, str]:
        """The names of the folded model's layers by those under which they are reported; each stands once."""
        nodes = [node for node in ir.from_proto(self.result.model).graph if node.op_type in LINEAR]
        times = Counter(map(module_name, nodes))
        return {module_name(node): node.name or "" for node in nodes if times[module_name(node)] == 1}

    @cached_property
    def folds(self) -> list[tuple[str, str]]:
        """Every BatchNorm that went into one layer, with that layer; the seed decides which comes first."""
        found = [
            (site.name, self.layers[site.into[0]])
            for site in self.result.folded
            if len(site.into) == 1 and site.name in self.norms and site.into[0] in self.layers
        ]
        start = (7 * self.seed) % len(found) if found else 0
        return found[start:] + found[:start]

    @cached_property
    def merged(self) -> list[tuple[str, str]]:
        """Those of them whose layer was made of several branches."""
        into = {self.layers.get(merge.into) for merge in self.result.merges}
        return [(site, node) for site, node in self.folds if node in into]

    @cached_property
    def norms(self) -> dict[str, onnx.NodeProto]:
        """The original's BatchNorms by the name under which they are reported; each stands once."""
        nodes = {node.name: node for node in self.original.graph.node}
        times = Counter(site.name for site in self.result.sites)
        return {
            site.name: nodes[site.node]
            for site in self.result.sites
            if site.op_type == "BatchNormalization" and times[site.name] == 1 and site.node in nodes
        }

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every value of the original for random inputs, in float64."""
        run = partial(sessions.run, sessions.session(self.original, optimized="off", threads=1))
        return Oracle(self.original).values(
            choose(interface(as_ir(self.original)).inputs, run, count=1, seed=1).feeds[0]
        )


Fault = Callable[[Case], Iterator[Planted]]
