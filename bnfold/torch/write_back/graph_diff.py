"""From a folded graph back to edits of the module, and the folds for which the module has no place.

Every difference between the module's graph and the folded one becomes a change of the module: a changed
constant is a parameter's new value, a removed node is a module to replace, an added bias is its layer's. If
that is impossible, the nodes are named, and the graph is folded again without them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from torch import nn

from bnfold import reasons
from bnfold.algebra.affine import Array
from bnfold.graph.nodes import label, module_name, path_of
from bnfold.reasons import Reason
from bnfold.result import FoldResult, Merge
from bnfold.torch.write_back import regions
from bnfold.torch.write_back.edits import Edit, NewBias, Replace, SetTensor
from bnfold.torch.write_back.regions import Region
from bnfold.torch.write_back.tensor_lookup import (
    TensorLookup,
    TensorMatch,
    array_of,
    fits,
    has_bias,
    layer_with_bias,
    named_tensors,
)
from bnfold.torch.write_back.trace_run import TraceRun

_BIAS = 2  # which input of Conv, ConvTranspose and Gemm the bias is
_SUMS = frozenset({"Add", "Sub", "Sum"})
_SAME_ELEMENTS = frozenset({"Cast", "CastLike", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_KERNELS = frozenset({"Conv", "AveragePool"})  # what branches consist of, apart from affine maps
_HAVE_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass
class GraphDiff:
    """What the folded graph asks of the module.

    Attributes:
        edits: What to change in a copy, if `keep` and `apart` are empty.
        keep: Nodes that the next fold must not change, each with the reason.
        apart: Values that the next fold must not change, since they are terms of a sum that the module's
            code computes: their branches cannot be one convolution.
        nodes: For each tensor that is set or made, how a report calls the nodes that read it.
    """

    edits: list[Edit] = field(default_factory=list)
    keep: dict[str, Reason] = field(default_factory=dict)
    apart: list[str] = field(default_factory=list)
    nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Comparison:
    """Compares one folded graph with the original.

    Args:
        original: The exported graph.
        module: What was exported, in float64, without its hooks.
        own: The user's module, whose tensors have the types of the result.
        run: What a run of the module has shown.
    """

    def __init__(self, original: ir.Model, module: nn.Module, own: nn.Module, run: TraceRun) -> None:
        self._graph = original.graph
        self.before = {label(node): node for node in original.graph}
        self.module = module
        self.dtypes = {name: tensor.dtype for name, tensor in named_tensors(own)}
        self.run = run
        self.lookup = TensorLookup(module)
        self.readers = self._all_readers()

    def of(self, result: FoldResult[ir.Model]) -> GraphDiff:
        """What a folded graph asks of the module."""
        return _DiffReader(self, result).difference

    def value(self, name: str) -> ir.Value:
        """A value of the original graph."""
        inputs = self._graph.inputs
        made = (value for node in self.before.values() for value in node.outputs)
        return next(value for value in (*inputs, *made) if value.name == name)

    def tensor(self, node: ir.Node, index: int) -> TensorMatch | None:
        """The tensor that an input comes from; a bias that a layer could get counts, by its future name."""
        value = node.inputs[index] if index < len(node.inputs) else None
        match = self.lookup.find(value, path_of(node) or "") if value is not None else None
        if match is None and index == _BIAS and node.op_type in _HAVE_BIAS:
            array, path = array_of(value), path_of(node)
            layer = layer_with_bias(self.module, path)
            if layer is not None and not has_bias(layer) and (array is None or not np.any(array)):
                return TensorMatch(f"{path}.bias")
        return match

    def _all_readers(self) -> dict[str, list[tuple[str, int]]]:
        """Every input of every node that comes from a tensor, by the tensor's name."""
        readers: dict[str, list[tuple[str, int]]] = {}
        for name, node in self.before.items():
            count = max(len(node.inputs), _BIAS + 1 if node.op_type in _HAVE_BIAS else 0)
            for index in range(count):
                value = node.inputs[index] if index < len(node.inputs) else None
                if value is not None and value.const_value is None:
                    continue
                match = self.tensor(node, index)
                if match is not None:
                    readers.setdefault(match.name, []).append((name, index))
        return readers


class _DiffReader:
    """Reads one folded graph; `difference` is the result."""

    def __init__(self, comparison: Comparison, result: FoldResult[ir.Model]) -> None:
        self.difference = GraphDiff()
        self._all = comparison
        self._result = result
        self._before = comparison.before
        self._after = {label(node): node for node in result.model.graph}
        self._covered: set[str] = set()
        for site in result.sites:
            if site.graph and site.status != "kept":
                self._refuse(site.node, site.name, "it is in a subgraph")
        for merge in result.merges:
            self._read_merge(merge)
        self._read_added()
        self._read_gone()
        self._read_constants()

    def _plain(self, path: str) -> bool:
        run = self._all.run
        return run.is_plain(path) and path not in run.hooked

    def _read_merge(self, merge: Merge) -> None:
        """Find the module that the merged convolution replaces."""
        found = [n for n in self._after.values() if n.op_type == "Conv" and module_name(n) == merge.into]
        for path in regions.ancestors(merge.into) if len(found) == 1 else ():
            before, after = (Region.of(graph.values(), path) for graph in (self._before, self._after))
            parts = regions.merged(path, before, after, found[0], self._plain)
            if parts is not None:
                self.difference.edits.append(Replace(path, parts))
                self._covered.update(label(node) for node in (*before.nodes, *after.nodes))
                return

    def _read_added(self) -> None:
        """An Add after a MatMul is its Linear's bias, instead of the Add that may have been there."""
        for name in self._after.keys() - self._before.keys() - self._covered:
            add = self._after[name]
            source = add.inputs[0].producer() if add.op_type == "Add" and add.inputs[0] is not None else None
            shift = array_of(add.inputs[1]) if len(add.inputs) == 2 else None
            path = path_of(source) if source is not None else None
            layer = layer_with_bias(self._all.module, path)
            if source is None or not isinstance(layer, nn.Linear) or shift is None or path is None:
                self._refuse_node(source or add, "a shift after it would need an addition in its forward")
            elif shift.shape != (layer.out_features,) or self._is_called_again(source, path):
                self._refuse_node(source, f"{path} cannot have this bias")
            else:
                self._covered.add(name)
                self._covered.update(
                    label(node)
                    for node in self._before.values()
                    if path_of(node) == path and node.op_type == "Add"
                )
                self._set(f"{path}.bias", np.asarray(shift, np.float64), [source])

    def _is_called_again(self, node: ir.Node, path: str) -> bool:
        others = (other for name, other in self._before.items() if name != label(node))
        return any(path_of(other) == path and other.op_type in ("MatMul", "Gemm") for other in others)

    def _read_gone(self) -> None:
        """Every removed node has to belong to a module that can be replaced."""
        gone = frozenset(self._before.keys() - self._after.keys() - self._covered)
        done: set[str] = set()
        for name, node in self._before.items():
            path = path_of(node)
            if name not in gone or path in done:
                continue
            parts = None
            if path:
                before, after = (Region.of(graph.values(), path) for graph in (self._before, self._after))
                parts = regions.without_affines(path, before, after, gone, self._plain)
            if parts is None or path is None:
                self._keep(node)
            else:
                done.add(path)
                self.difference.edits.append(Replace(path, parts))

    def _keep(self, node: ir.Node) -> None:
        """Keep a removed node whose module cannot be replaced; of a sum, keep its terms."""
        path = path_of(node)
        if node.op_type in _SUMS and not any(map(_is_constant, node.inputs)):
            self.difference.apart += [value.name or "" for value in node.inputs if value is not None]
        elif path is not None and path in self._all.run.hooked:
            self.difference.keep[label(node)] = reasons.HOOK(node=module_name(node), module=path)
        elif node.op_type not in _KERNELS:
            where = f"the forward of {path}" if path else "the forward"
            self._refuse_node(node, f"{where} does more than this, or takes or returns more than one tensor")

    def _read_constants(self) -> None:
        """Every changed constant has to be a tensor of the module, with one new value for all its readers."""
        changed: dict[str, list[tuple[ir.Node, int, Array]]] = {}
        for name, node in self._after.items():
            old = self._before.get(name)
            if old is None or name in self._covered:
                continue
            for index, array in _changed_inputs(old, node):
                match = self._all.tensor(old, index)
                if match is None:
                    self._refuse_node(old, "its constants are not a parameter or buffer by themselves")
                    continue
                laid_out = self._all.lookup.laid_out(match, array)
                changed.setdefault(match.name, []).append((old, index, laid_out))
        for name, edits in changed.items():
            self._agree(name, edits)

    def _agree(self, name: str, edits: list[tuple[ir.Node, int, Array]]) -> None:
        readers = {reader for reader in self._all.readers.get(name, []) if reader[0] in self._after}
        others = (
            readers
            - {(label(node), index) for node, index, _ in edits}
            - {(covered, index) for covered in self._covered for index in range(_BIAS + 1)}
        )
        first = edits[0][2]
        if others or not all(np.array_equal(first, array) for _, _, array in edits):
            for node, _, _ in edits:
                self._refuse_node(node, f"{name} is used in several places that would need different numbers")
        else:
            self._set(name, first, [node for node, _, _ in edits])

    def _set(self, name: str, array: Array, nodes: list[ir.Node]) -> None:
        path = name.rpartition(".")[0]
        dtype = self._all.dtypes.get(name) or self._all.dtypes[f"{path}.weight"]
        if not fits(array, dtype):
            self._refuse_node(nodes[0], f"the folded numbers of {name} do not fit {dtype}")
            return
        self.difference.nodes[name] = tuple(module_name(node) for node in nodes)
        if name in self._all.dtypes:
            self.difference.edits.append(SetTensor(name, array))
        else:
            self.difference.edits.append(NewBias(path, array))

    def _refuse_node(self, node: ir.Node, why: str) -> None:
        self._refuse(label(node), module_name(node), why)

    def _refuse(self, node: str, name: str, why: str) -> None:
        self.difference.keep.setdefault(node, reasons.NO_PLACE(node=name, why=why))


def _is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or one in another type or layout."""
    while value is not None and value.const_value is None:
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _SAME_ELEMENTS else None
    return value is not None


def _changed_inputs(old: ir.Node, new: ir.Node) -> list[tuple[int, Array]]:
    changed = []
    for index, value in enumerate(new.inputs):
        before = old.inputs[index] if index < len(old.inputs) else None
        array = array_of(value)
        if array is None or value is None or (before is not None and before.name == value.name):
            continue
        original = array_of(before)
        if original is None or not np.array_equal(original, array):
            changed.append((index, np.asarray(array, np.float64)))
    return changed
