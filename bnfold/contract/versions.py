"""Other versions of ONNX's operators and of its file format: met, or refused with what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from bnfold.contract.changed import Changed
from bnfold.contract.converter import through_onnx
from bnfold.contract.opsets import differs, opset_of, own_nodes
from bnfold.errors import InputError, ModelError, listed
from bnfold.graph.scopes import ONNX_DOMAINS, scopes

OLDEST = 7  # from here on, BatchNormalization has the meaning that bnfold's exports rely on
OLDEST_IR = 4  # in version 3 every weight is an input that a caller may override
# What a file may hold only from some IR version on, other than what comes with an opset.
_TYPES_SINCE = {
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 9),
    **dict.fromkeys(("INT4", "UINT4"), 10),
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    **dict.fromkeys(("INT2", "UINT2"), 13),
}
_FUNCTIONS_SINCE = 8


def check(opset: int | None, ir_version: int | None) -> None:
    """Refuse versions that do not exist, before any work is spent on them.

    Raises:
        InputError: Says which there are.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise InputError(f"Opset {opset} cannot be exported to.", f"Take one from {OLDEST} to {newest}.")
    if ir_version is None:
        return
    if not OLDEST_IR <= ir_version <= onnx.IR_VERSION:
        raise InputError(
            f"IR version {ir_version} cannot be written.",
            f"Take one from {OLDEST_IR} to {onnx.IR_VERSION}.",
        )


def with_opset(model: ir.Model, opset: int) -> Changed:
    """Write a model for another version of ONNX's operators.

    Raises:
        InputError: There is no such version.
        ModelError: It cannot be converted; names the operator that stands in the way.
    """
    check(opset, None)
    now = opset_of(model)
    details: dict[str, Any] = {"before": now, "after": opset}
    if now == opset:
        return Changed("opset", f"The opset was {opset} already.", model, model, details=details)
    other = model.clone()
    if not any(differs(node, now, opset) for node in own_nodes(other)):
        _set_opset(other, opset)
        said = f"Opset {opset} instead of {now}: none of its operators differs between them."
        return Changed("opset", said, other, model, details=details)
    inlined = bool(other.functions)
    if inlined:
        common_passes.InlinePass()(other)
        common_passes.RemoveUnusedFunctionsPass()(other)  # type: ignore[no-untyped-call]
    made, written_out, of_sizes = through_onnx(other, opset)
    if lost := {one.name for one in model.graph.inputs} - {one.name for one in made.graph.inputs}:
        name = min(map(str, lost))
        raise ModelError(
            f"The model cannot be converted to opset {opset}: its input {name!r}, which callers may override,"
            " would be a constant there.",
            "Leave --opset out, or remove it from the graph's inputs, so that it is a constant.",
        )
    said = f"Converted from opset {now} to {opset} by onnx {onnx.__version__}"
    if inlined:
        said += ", with its functions inlined"
    if written_out:
        said += f", with {listed(written_out)} written out in older operators"
    if of_sizes:
        noun = "Reshape" if of_sizes == 1 else "Reshapes"
        said += f"; {of_sizes} {noun} to computed sizes may no longer take tensors without elements"
    details |= {"inlined": inlined, "written_out": list(written_out), "of_sizes": of_sizes}
    return Changed("opset", f"{said}.", made, model, details=details, may_round=True, by_others=True)


def with_ir_version(model: ir.Model, version: int) -> Changed:
    """Write a model in another version of ONNX's file format.

    Raises:
        InputError: There is no such version, or the model holds what came later.
    """
    check(None, version)
    details = {"before": model.ir_version, "after": version}
    if model.ir_version == version:
        return Changed("ir-version", f"The IR version was {version} already.", model, model, details=details)
    other = model.clone()
    set_ir_version(other, version)
    said = f"IR version {version} instead of {model.ir_version}."
    return Changed("ir-version", said, other, model, details=details)


def set_ir_version(model: ir.Model, version: int) -> None:
    """Set the IR version of `model`, if its opset and what it holds allow that.

    Raises:
        InputError: They need a newer one; says which opset would fit.
    """
    opset = opset_of(model) or OLDEST
    table = onnx.helper.OP_SET_ID_VERSION_MAP  # the IR version that each opset came with
    needed = table["ai.onnx", opset]
    if version < needed:
        fitting = max(n for (domain, n), came in table.items() if domain == "ai.onnx" and came <= version)
        raise InputError(
            f"Opset {opset} needs IR version {needed} or newer, and {version} was requested.",
            f"Add --opset {fitting}, or take --ir-version {needed}.",
        )
    if model.functions and version < _FUNCTIONS_SINCE:
        raise InputError(
            f"The model has functions of its own, which need IR version {_FUNCTIONS_SINCE} or newer.",
            "Inline them first, with onnx.inliner.inline_local_functions.",
        )
    for value in _values(model):
        came = 0 if value.dtype is None else _TYPES_SINCE.get(value.dtype.name, 0)
        if value.dtype is not None and version < came:
            kind = value.dtype.name.lower()
            raise InputError(
                f"{value.name!r} is of type {kind}, which needs IR version {came} or newer.",
                f"Take --ir-version {came}.",
            )
    model.ir_version = version


def _set_opset(model: ir.Model, opset: int) -> None:
    for imports in (
        model.graph.opset_imports,
        *(function.opset_imports for function in model.functions.values()),
    ):
        for domain in ONNX_DOMAINS:
            if domain in imports:
                imports[domain] = opset


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in scopes(model):
        yield from scope.graph.inputs
        yield from scope.graph.initializers.data.values()
        for node in scope.graph:
            yield from node.outputs
