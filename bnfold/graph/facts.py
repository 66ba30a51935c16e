"""What is proved about a graph while affines move through it: shapes, constants, readers, fresh names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import onnx_ir as ir

from bnfold.algebra.affine import Affine, Array
from bnfold.graph.constants import Constants
from bnfold.graph.readers import Readers, Use
from bnfold.graph.scopes import Scope, scopes
from bnfold.graph.shape_inference import Dims, infer
from bnfold.reasons import Reason


@dataclass(frozen=True)
class Folds:
    """All that the pass has let one node absorb: it is to compute `outward(node(inward(x)))`."""

    inward: Affine
    outward: Affine

    def absorbing(self, side: Literal["input", "output"], affine: Affine) -> Folds:
        """The same with one more affine on the far side of its input or of its output."""
        if side == "output":
            return Folds(self.inward, self.outward.then(affine))
        return Folds(affine.then(self.inward), self.outward)


NO_FOLDS = Folds(Affine(), Affine())


@dataclass
class Facts:
    """What is proved about a model while its affines move: shapes, types, constants, versions.

    Nothing is written before the end, so the folds made so far are facts too: `folds` holds what each node
    has absorbed, `edited` the values that constant inputs have got. Constants are read through
    [`operand`][bnfold.graph.facts.Facts.operand], which knows the latter. `maps` keeps what BatchNorms are by
    their own parameters, which nothing edits, and `faults` how nodes contradict their operators.
    """

    model: ir.Model
    _scopes: dict[ir.Graph, Scope] = field(init=False)
    _shapes: dict[ir.Value, Dims] = field(init=False)
    _dtypes: dict[ir.Value, ir.DataType] = field(init=False)
    constants: Constants = field(init=False)
    folds: dict[ir.Node, Folds] = field(default_factory=dict)
    edited: dict[tuple[ir.Node, int], Array] = field(default_factory=dict)
    maps: dict[ir.Node, Affine | Reason] = field(default_factory=dict)
    faults: dict[ir.Node, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._scopes = {scope.graph: scope for scope in scopes(self.model)}
        self._shapes, self._dtypes = {}, {}
        self.infer()

    @cached_property
    def has_halves(self) -> bool:
        """Whether any value of the model is in float16, the type whose range is narrow."""
        return ir.DataType.FLOAT16 in self._dtypes.values()

    @cached_property
    def _readers(self) -> Readers:
        return Readers(self.model)

    def infer(self) -> None:
        """Infer shapes and types of all values, again where new nodes say more, and keep what was known."""
        shapes, dtypes = infer(self.model, self.scopes)
        for value, old in self._shapes.items():
            shapes[value] = _sharper(shapes.get(value), old)
        self._shapes, self._dtypes = shapes, self._dtypes | dtypes
        self.constants = Constants(self.model.ir_version, self.shape, self.version, self.dtype)
        self.maps.clear()
        self.faults.clear()

    @property
    def scopes(self) -> Collection[Scope]:
        """All scopes of the model; folding adds none and removes none."""
        return self._scopes.values()

    def nodes(self) -> Iterator[ir.Node]:
        """Every node of every scope, in graph order."""
        return (node for scope in self.scopes for node in scope.graph)

    def scope(self, node: ir.Node) -> Scope:
        """The scope of a node."""
        assert node.graph is not None, "a node that was removed is asked about"
        return self._scopes[node.graph]

    def composed(self, node: ir.Node, own: Affine) -> Affine:
        """The map that an affine node is, with all that it has absorbed."""
        folds = self.folds.get(node)
        return own if folds is None else folds.inward.then(own).then(folds.outward)

    def forget(self, node: ir.Node) -> None:
        """Drop what was to be written into a node that goes."""
        self.folds.pop(node, None)
        self.maps.pop(node, None)
        self.faults.pop(node, None)
        for index in range(len(node.inputs)):
            self.edited.pop((node, index), None)

    def learn(self, value: ir.Value, shape: Dims | None, dtype: ir.DataType | None) -> None:
        """Note the shape and type of a new value."""
        if shape is not None:
            self._shapes[value] = shape
        if dtype is not None:
            self._dtypes[value] = dtype

    def version(self, node: ir.Node) -> int:
        """The version of ONNX's operator set that a node is written for."""
        return self.scope(node).opset

    def shape(self, value: ir.Value | None) -> Dims | None:
        """A value's shape; None where unknown or left out. A dimension is a size, a symbol or None."""
        return None if value is None else self._shapes.get(value)

    def rank(self, value: ir.Value | None) -> int | None:
        """A value's number of dimensions, None where unknown."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """The proved size of one axis, None where it is symbolic or unknown."""
        shape = self.shape(value)
        dim = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        return dim if isinstance(dim, int) else None

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """A value's element type, None where unknown."""
        return None if value is None else self._dtypes.get(value)

    def constant_dtype(self, node: ir.Node, index: int) -> ir.DataType:
        """The element type of a constant input, which is known of every constant."""
        dtype = self.dtype(node.inputs[index])
        if dtype is None:  # inference may fail, and nothing be recorded
            array = self.constants.array(node.inputs[index])
            assert array is not None, "asked about a constant"
            dtype = ir.DataType.from_numpy(array.dtype)
        return dtype

    def readers(self, value: ir.Value) -> list[Use]:
        """The uses of a value that have to be asked before its numbers may change."""
        return self._readers.of(value)

    def unheeded_after(self, value: ir.Value) -> list[ir.Value]:
        """The values whose numbers change with those of `value`, and for which that does not matter."""
        return self._readers.unheeded_after(value)

    def has_constant(self, node: ir.Node, index: int) -> bool:
        """Whether an input of a node is there and constant."""
        return index < len(node.inputs) and self.constants.has(node.inputs[index])

    def operand(self, node: ir.Node, index: int) -> Array | None:
        """A constant input of a node in float64, as it is after the folds made so far; otherwise None."""
        if (node, index) in self.edited:
            return self.edited[node, index]
        array = self.constants.array(node.inputs[index]) if index < len(node.inputs) else None
        return None if array is None else np.asarray(array, np.float64)

    def stored(self, node: ir.Node, index: int) -> ir.TensorProtocol:
        """A constant input of a node as it was before any fold; not read, unless it has to be computed."""
        value = node.inputs[index]
        assert value is not None, "asked about a constant"
        stored = self.constants.stored(value)
        if stored is not None:
            return stored
        array = self.constants.array(value)
        assert array is not None, "asked about a constant"
        return ir.Tensor(array)

    def weight(self, node: ir.Node, index: int) -> ir.TensorProtocol:
        """A constant input of a node as it is after the folds made so far; not read, as in `stored`."""
        edited = self.edited.get((node, index))
        return self.stored(node, index) if edited is None else ir.Tensor(edited)

    def integers(self, node: ir.Node, index: int, attribute: str) -> list[int] | None:
        """A list of integers that older versions hold in an attribute and newer ones in a constant input.

        Returns:
            The list, or None where it is left out or not constant (`has_constant` says which).
        """
        if attribute in node.attributes:
            return list(node.attributes[attribute].as_ints())
        array = self.constants.array(node.inputs[index]) if self.has_constant(node, index) else None
        return None if array is None else [int(element) for element in np.asarray(array).reshape(-1)]


def _sharper(new: Dims | None, old: Dims) -> Dims:
    """Every size that either of two shapes of one value states."""
    if new is None or len(new) != len(old):
        return old
    return tuple(a if isinstance(a, int) else b for a, b in zip(new, old, strict=True))
