"""Writing folded constants into a graph: one rounding, new names, nothing overwritten, nothing left over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bnfold.algebra.affine import Array
from bnfold.graph.facts import Facts
from bnfold.graph.naming import Names, annotated, rename
from bnfold.graph.nodes import label
from bnfold.tensors.precision import OutOfRangeError, rounded
from bnfold.tensors.product import Product


class Editor:
    """Replaces constants of a model that may be modified."""

    def __init__(self, facts: Facts) -> None:
        self._model = facts.model
        self._facts = facts
        self._names = Names(facts.model)
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._products: dict[ir.Value, Product] = {}
        self._orphans: list[ir.Value] = []
        self.annotated = annotated(facts.model)

    def set_input(self, node: ir.Node, index: int, array: Array, dtype: ir.DataType, name: str) -> None:
        """Let an input of a node be a new constant.

        Args:
            node: The node.
            index: Which input; inputs in between that are missing stay left out.
            array: The elements in float64; rounded once, to `dtype`.
            dtype: Type of the constant.
            name: The name wanted for it when there was no constant before.
        """
        constant = rounded(node, array, dtype)
        self._facts.edited.pop((node, index), None)  # this is what it was waiting for
        self._replace(node, index, ir.Tensor(constant, dtype=dtype), _content(constant), name)

    def multiply(self, node: ir.Node, index: int, factors: Sequence[Array], name: str) -> None:
        """Let a constant input of a node be itself times factors, computed when it is read.

        Args:
            node: The node.
            index: Which input.
            factors: Arrays in float64 that broadcast against the constant.
            name: The name wanted for it when the constant had none.
        """
        old = node.inputs[index]
        assert old is not None, "only a constant that is there is multiplied"
        product = Product(
            self._facts.stored(node, index), factors, self._facts.constant_dtype(node, index), node
        )
        key = (old, *((factor.shape, factor.tobytes()) for factor in factors))
        self._products.setdefault(self._replace(node, index, product, key, name), product)

    def set_tensor(self, node: ir.Node, index: int, array: npt.NDArray[np.generic]) -> None:
        """Let an input of a node be a new constant of any type, taken as it is."""
        old = node.inputs[index]
        assert old is not None, "only constants that are there are replaced as they are"
        self._replace(node, index, ir.Tensor(array), _content(array), "integers")

    def compute(self) -> None:
        """Let every product be an array, so that it need not be computed each time it is read.

        Raises:
            OutOfRangeError: One does not fit its type.
        """
        for value, product in self._products.items():
            tensor = ir.Tensor(product.numpy(), dtype=product.dtype, name=product.name)
            if value.is_initializer():
                value.const_value = tensor
                continue
            maker = value.producer()
            assert maker is not None, "what is not an initializer is the output of a Constant node"
            maker.attributes["value"] = ir.AttrTensor("value", tensor)

    def misfits(self) -> list[OutOfRangeError]:
        """What goes wrong when every product is computed, in the order in which they were made."""
        return [
            OutOfRangeError(use.node, error.dtype, error.rule)
            for value, product in self._products.items()
            if (error := product.misfit()) is not None
            for use in value.uses()  # a weight that several layers share is found once, and all are to blame
        ]

    def add_after(self, node: ir.Node, shift: Array, dtype: ir.DataType) -> None:
        """Insert an Add of a constant after a node's first output.

        The Add takes over the output's name, so that graph outputs and readers see what they saw before.

        Args:
            node: The node whose output gets the shift.
            shift: The elements in float64, of a shape that broadcasts against the output.
            dtype: Type of the constant, that of the output.
        """
        value = node.outputs[0]
        graph = node.graph
        assert graph is not None, "the node is in a graph"
        name = value.name or "linear"
        add = ir.Node(
            "", "Add", [value], num_outputs=1, name=self._names.fresh(f"{node.name or name}.bias_add")
        )
        graph.insert_after(node, add)
        self._facts.learn(add.outputs[0], self._facts.shape(value), self._facts.dtype(value))
        value.replace_all_uses_with(add.outputs[0], replace_graph_outputs=True)
        add.replace_input_with(0, value)
        rename(add.outputs[0], value)
        value.name = self._names.fresh(f"{name}.without_bias")
        add.resize_inputs(2)
        constant = rounded(node, shift, dtype)
        self._replace(
            add, 1, ir.Tensor(constant, dtype=dtype), _content(constant), f"{node.name or name}.bias"
        )

    def insert(
        self, before: ir.Node, op_type: str, inputs: list[ir.Value], like: ir.Node | None = None
    ) -> ir.Node:
        """Insert a new node with one output.

        Args:
            before: The node before which it stands.
            op_type: One of ONNX's operators.
            inputs: Its inputs.
            like: A node that goes, whose name and metadata, as the PyTorch module's path, it takes over.
        """
        graph = before.graph
        assert graph is not None, "the node is in a graph"
        node = ir.Node("", op_type, inputs, num_outputs=1)
        node.name = (like.name if like is not None else None) or self._names.fresh(
            f"{label(before)}.{op_type.lower()}"
        )
        node.outputs[0].name = self._names.fresh(f"{node.name}.output")
        if like is not None:
            node.metadata_props.update(like.metadata_props)
        graph.insert_before(before, node)
        return node

    def rename_changed(self, value: ir.Value) -> None:
        """Give a value that holds other numbers than in the original a name that the original lacks.

        So a name that both models have stands for the same numbers in both, and they can be compared value by
        value. The same goes for what is computed from it and reaches no output.
        """
        self._rename([value, *self._facts.unheeded_after(value)])

    def _rename(self, changed: Iterable[ir.Value]) -> None:
        for value in changed:
            if value.name in self._names.original:
                value.name = self._names.fresh(f"{value.name}.scaled")

    def release(self, node: ir.Node, instead: ir.Value | None = None) -> None:
        """Remove a node; its constants go too when nothing else reads them.

        Args:
            node: Its outputs have no readers but those for whom numbers do not matter.
            instead: What these read then, a value of the same shape. Left out, what an affine node reads.
        """
        self._facts.forget(node)
        assert node.graph is not None, "the node is in a graph"
        for value in node.outputs:
            if value.uses():
                assert not self._facts.readers(value), "a node that is read is removed"
                data = (one for one in node.inputs if not self._facts.constants.has(one))
                other = next(data) if instead is None else instead
                assert other is not None, "an affine node has a data input"
                self._rename(self._facts.unheeded_after(value))
                value.replace_all_uses_with(other)
        self._orphans.extend(value for value in node.inputs if value is not None)
        node.graph.remove(node, safe=True)

    def sweep(self) -> None:
        """Remove the constants, and the nodes that computed them, that our edits left without a reader."""
        while self._orphans:
            value = self._orphans.pop()
            producer = value.producer()
            if value.uses() or value.is_graph_output():
                continue
            if producer is not None:
                unread = not any(output.uses() or output.is_graph_output() for output in producer.outputs)
                if unread and producer.graph is not None and self._facts.constants.has(value):
                    self.release(producer)
            elif value.is_initializer() and value.name not in self.annotated:
                self._drop(value)

    def _drop(self, value: ir.Value) -> None:
        graph = value.graph
        assert graph is not None, "an initializer belongs to a graph"
        if value.is_graph_input():
            if self._model.ir_version >= 4:
                return  # a caller may still set it: it is part of the interface
            graph.inputs.remove(value)
        graph.initializers.pop(value.name or "")

    def _replace(
        self, node: ir.Node, index: int, tensor: ir.TensorProtocol, key: tuple[object, ...], name: str
    ) -> ir.Value:
        """Let an input be a new constant, or one that was made with the same `key` for another node."""
        old = node.inputs[index] if index < len(node.inputs) else None
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        value = self._constant(
            node, tensor, key, f"{old.name}.folded" if old is not None and old.name else name
        )
        node.replace_input_with(index, value)
        if old is not None:
            self._orphans.append(old)
        return value

    def _constant(
        self, node: ir.Node, tensor: ir.TensorProtocol, key: tuple[object, ...], wanted: str
    ) -> ir.Value:
        graph = node.graph
        assert graph is not None, "the node is in a graph"
        if self._facts.scope(node).is_function:
            value = self._constant_node(node, graph, tensor, wanted)
        else:
            # what several nodes shared before stays shared, if the folds gave all of them the same numbers
            key = (graph, tensor.dtype, *key)
            if key not in self._made:
                self._made[key] = self._initializer(graph, tensor, wanted)
            value = self._made[key]
        self._facts.learn(value, tuple(tensor.shape.numpy()), tensor.dtype)
        return value

    def _initializer(self, graph: ir.Graph, tensor: ir.TensorProtocol, wanted: str) -> ir.Value:
        tensor.name = self._names.fresh(wanted)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=tensor.name, shape=shape, type=kind, const_value=tensor)
        graph.register_initializer(value)
        if self._model.ir_version < 4 and graph is self._model.graph:
            graph.inputs.append(value)  # before IR version 4 every initializer is listed as an input
        return value

    def _constant_node(
        self, node: ir.Node, graph: ir.Graph, tensor: ir.TensorProtocol, wanted: str
    ) -> ir.Value:
        """A Constant node, since a function's body has no initializers."""
        tensor.name = name = self._names.fresh(wanted)
        maker = ir.Node(
            "",
            "Constant",
            [],
            [ir.AttrTensor("value", tensor)],
            num_outputs=1,
            name=self._names.fresh(f"{name}.constant"),
        )
        maker.outputs[0].name = name
        graph.insert_before(node, maker)
        return maker.outputs[0]


def _content(array: npt.NDArray[np.generic]) -> tuple[object, ...]:
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
