"""Operators that ONNX defines by other operators: their function, evaluated in double.

That is for those whose reference implementation computes in float32. In the function, a Cast to float32 is
the identity, as everywhere.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.inliner

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops.call import Array, Call, Operator, Refusal

_Type: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]
_LOCAL = "bnfold.function"  # the domain that a function is put into to be inlined


def by_function(call: Call, *inputs: Array | None, **_: Any) -> tuple[Any, ...]:
    """The outputs of a node, by the function that ONNX defines it by."""
    from bnfold.oracle.evaluator import Evaluator  # imports the operators, hence this module

    types = tuple(None if value is None else (value.dtype, value.shape) for value in inputs)
    graph, opsets = _body(call.node.SerializeToString(), call.opset, types)
    given = zip(call.node.input, inputs, strict=False)
    results = Evaluator(graph, opsets).run({name: value for name, value in given if name})
    by_name = dict(zip((value.name for value in graph.output), results, strict=True))
    return tuple(by_name.get(name) for name in call.node.output)


@functools.lru_cache(64)
def _body(
    serialized: bytes, opset: int, types: tuple[_Type | None, ...]
) -> tuple[onnx.GraphProto, dict[str, int]]:
    """The function of a node, inlined into a graph with the node's inputs and outputs."""
    node = onnx.NodeProto.FromString(serialized)
    function = _function(node, opset, types)
    function.domain, function.name = _LOCAL, "body"
    node.domain, node.op_type = _LOCAL, "body"
    graph = onnx.helper.make_graph(
        [node],
        "function",
        [onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(node.input) if name],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    # A function of another domain than ONNX's need not say which version of ONNX's operators it uses.
    newest = {"": onnx.defs.onnx_opset_version()}
    opsets = newest | {entry.domain: entry.version for entry in function.opset_import}
    imports = [onnx.helper.make_opsetid(*entry) for entry in {**opsets, _LOCAL: 1}.items()]
    del function.opset_import[:]
    function.opset_import.extend(imports)
    model = onnx.helper.make_model(graph, functions=[function], opset_imports=imports)
    return onnx.inliner.inline_local_functions(model).graph, opsets


def _function(node: onnx.NodeProto, opset: int, types: tuple[_Type | None, ...]) -> onnx.FunctionProto:
    """The function of a node, which onnx makes for its attributes and the types of its inputs."""
    domain = "" if node.domain in ONNX_DOMAINS else node.domain
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError as error:
        raise Refusal(f"onnx {onnx.__version__} does not know it") from error
    function = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        made = schema.get_context_dependent_function(node.SerializeToString(), list(map(_tensor_of, types)))
        function.ParseFromString(made)
    if not function.node:  # onnx gives an empty one for types that the operator does not take
        raise Refusal(f"onnx {onnx.__version__} has no function for it")
    return function


def _tensor_of(kind: _Type | None) -> bytes:
    """The serialized type of an input, float32 for every float, since not every operator takes double."""
    if kind is None:
        return b""
    dtype, shape = kind
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32) if dtype == np.float64 else dtype)
    return bytes(onnx.helper.make_tensor_type_proto(element, shape).SerializeToString())


OPERATORS: dict[str, Operator] = dict.fromkeys(("CausalConvWithState", "LinearAttention"), by_function)
PREVIEW: dict[str, Operator] = {"FlexAttention": by_function}
