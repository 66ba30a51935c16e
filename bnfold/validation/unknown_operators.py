"""Operators that the float64 oracle does not know: their values are taken from ONNX Runtime.

Each such node is run alone, with the optimizer off, on its inputs rounded to the types that the model has
there. The oracle goes on from its outputs. So what stands before it and what stands behind it is compared in
float64; of the operator itself only this is known, that both models contain it with the same attributes.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from bnfold.errors import ModelError, listed
from bnfold.graph.harmless import harmless
from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.multiply_adds import multiply_adds
from bnfold.oracle.ops import operator
from bnfold.oracle.ops.call import Call, Operator
from bnfold.oracle.oracle import Oracle, Unknown
from bnfold.oracle.prepare import take_apart
from bnfold.runtime import sessions
from bnfold.runtime.sessions import Feeds
from bnfold.tensors.precision import FLOATS


class Oracles:
    """Makes oracles that take equal values for equal nodes, whichever model they belong to.

    Args:
        original: The model before the fold. Nodes of another model get a value only if this one has a node
            with the same operator and attributes: nothing vouches for what the fold itself would have made.
    """

    def __init__(self, original: ir.Model) -> None:
        self._original = _Typed(original)
        self._others: dict[int, _Typed] = {}
        self._sessions: dict[bytes, Any] = {}
        self._taken: dict[str, str] = {}

    def of(
        self, model: ir.Model, perturbed: int | None = None, choose: Callable[[Call], Operator] = operator
    ) -> Oracle:
        """An oracle for the original or for a model that is compared with it.

        Args:
            model: The model.
            perturbed: As for [`Oracle`][bnfold.oracle.oracle.Oracle].
            choose: Likewise.

        Raises:
            ModelError: The model cannot be read.
        """
        return Oracle(model, perturbed, choose=choose, unknown=self.source(model))

    def source(self, model: ir.Model) -> Unknown:
        """What gives the outputs of nodes of a model, where ONNX Runtime knows them."""
        if model is self._original.model:
            typed = self._original
        else:
            typed = self._others.setdefault(id(model), _Typed(model))

        def outputs(node: onnx.NodeProto, inputs: Sequence[Any]) -> list[Any] | None:
            if any(isinstance(value, list) for value in inputs):  # no such operator takes a sequence
                return None
            if typed is not self._original and _signature(node) not in self._original.signatures:
                return None
            return self._run(typed, node, inputs)

        return outputs

    def cost(self, feeds: Feeds) -> int:
        """The multiply-adds of one evaluation of the original.

        Raises:
            NotEvaluableError: They can neither be inferred nor found by evaluation.
        """
        return multiply_adds(self._original.model, feeds, self.source(self._original.model))

    @property
    def sentence(self) -> str:
        """Which operators were taken from ONNX Runtime, and what that means; empty without one."""
        if not self._taken:
            return ""
        it = "it" if len(self._taken) == 1 else "them"
        return (
            f"ONNX Runtime gave the values of {listed(tuple(self._taken.values()))}, which the oracle cannot "
            f"evaluate: what stands before and behind {it} is compared in float64."
        )

    def _run(self, typed: _Typed, node: onnx.NodeProto, inputs: Sequence[Any]) -> list[Any] | None:
        kinds = [
            typed.kind(name, value) if name else None for name, value in zip(node.input, inputs, strict=True)
        ]
        model = _alone(typed.proto, node, kinds)
        session = self._session(model, is_random=_takes_seed(node))
        if session is None:
            return None
        feeds = {
            f"i{number}": _narrowed(value, kind)
            for number, (value, kind) in enumerate(zip(inputs, kinds, strict=True))
            if kind is not None
        }
        try:
            results = sessions.run(session, feeds)
        except ModelError:
            return None
        made = [(number, name) for number, name in enumerate(node.output) if name]
        outputs: list[Any] = [None] * len(node.output)
        for (number, name), result in zip(made, results, strict=True):
            outputs[number] = result
            typed.learn(name, result)
        self._taken.setdefault(
            node.name or node.output[0], f"{node.op_type} ({node.name})" if node.name else node.op_type
        )
        return outputs

    def _session(self, model: onnx.ModelProto, *, is_random: bool) -> Any:
        """A session of one node; None where ONNX Runtime does not know it."""
        key = model.SerializeToString(deterministic=True)
        if key in self._sessions:
            return self._sessions[key]
        made = None
        with contextlib.suppress(ModelError):
            made = sessions.session(model, optimized="off")
        if made is None or not is_random:  # a new session draws the same numbers again
            self._sessions[key] = made
        return made


class _Typed:
    """A model with the types of its values, which the oracle does not keep."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._learned: dict[str, onnx.TypeProto] = {}

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The model as the oracle sees it: functions inlined, larger weights as inputs."""
        return take_apart(self.model)[0]

    @cached_property
    def signatures(self) -> frozenset[bytes]:
        """The operators of all nodes with their attributes."""
        return frozenset(map(_signature, _nodes(self.proto.graph)))

    @cached_property
    def _kinds(self) -> dict[str, onnx.TypeProto]:
        known = onnx.ModelProto()
        known.CopyFrom(self.proto)
        there = {value.name for value in known.graph.value_info}
        for name, kind in self._learned.items():
            if name not in there:
                known.graph.value_info.append(onnx.helper.make_value_info(name, kind))
        # whatever is wrong with the model: types that are not known are then taken from the values
        with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError):
            known = onnx.shape_inference.infer_shapes(harmless(known))
        return {**dict(_types(known.graph)), **self._learned}

    def kind(self, name: str, value: Any) -> onnx.TypeProto | None:
        """The type of a value, without its shape; None for an absent optional value."""
        if value is None:
            return None
        if name in self._kinds:
            return _shapeless(self._kinds[name])
        # float64 says nothing here, since every float is widened
        return _kind_of(value, onnx.TensorProto.FLOAT)

    def learn(self, name: str, value: Any) -> None:
        """Keep the type that ONNX Runtime gave a value, from which others are inferred."""
        if value is not None and name not in self._kinds:
            self._learned[name] = _kind_of(value, onnx.TensorProto.DOUBLE)
            del self._kinds


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    for tensor in graph.initializer:
        yield tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, None)
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.WhichOneof("value"):
            yield value.name, value.type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _types(attribute.g)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _signature(node: onnx.NodeProto) -> bytes:
    """The operator of a node and its attributes, whatever its values are named."""
    bare = onnx.NodeProto(domain=node.domain, op_type=node.op_type)
    bare.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
    return bytes(bare.SerializeToString(deterministic=True))


def _alone(
    whole: onnx.ModelProto, node: onnx.NodeProto, kinds: Sequence[onnx.TypeProto | None]
) -> onnx.ModelProto:
    """A model of one node, in which only places name values, so that equal nodes make equal models."""
    inputs = [f"i{number}" if kind else "" for number, kind in enumerate(kinds)]
    outputs = [f"o{number}" if name else "" for number, name in enumerate(node.output)]
    single = onnx.NodeProto(domain=node.domain, op_type=node.op_type, input=inputs, output=outputs)
    single.attribute.extend(node.attribute)
    if _takes_seed(node) and "seed" not in {attribute.name for attribute in node.attribute}:
        # what a node draws has to be the same in both models
        single.attribute.append(
            onnx.helper.make_attribute("seed", float(zlib.crc32(node.output[0].encode()) % 2**24))
        )
    graph = onnx.helper.make_graph(
        [single],
        "alone",
        [onnx.helper.make_value_info(name, kind) for name, kind in zip(inputs, kinds, strict=True) if kind],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name],
    )
    return onnx.helper.make_model(
        graph, functions=whole.functions, opset_imports=whole.opset_import, ir_version=whole.ir_version
    )


def _takes_seed(node: onnx.NodeProto) -> bool:
    in_onnx = node.domain in ONNX_DOMAINS and onnx.defs.has(node.op_type)
    return in_onnx and "seed" in onnx.defs.get_schema(node.op_type).attributes


def _kind_of(value: Any, double: int) -> onnx.TypeProto:
    """The type of an array, with `double` in place of float64."""
    dtype = np.asarray(value).dtype
    if dtype == np.float64:
        element_type = double
    elif dtype.kind in "OSU":
        element_type = onnx.TensorProto.STRING
    else:
        element_type = int(ir.DataType.from_numpy(dtype))
    return onnx.helper.make_tensor_type_proto(element_type, None)


def _shapeless(kind: onnx.TypeProto) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)


def _narrowed(value: Any, kind: onnx.TypeProto) -> Any:
    """A value of the oracle in the type that the model has there."""
    element_type = kind.tensor_type.elem_type
    array = np.asarray(value)
    with np.errstate(all="ignore"):  # what float16 does not hold is infinite there
        return array.astype(ir.DataType(element_type).numpy()) if element_type in FLOATS else array
