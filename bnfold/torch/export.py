"""PyTorch to ONNX with every BatchNorm still in its place, constants evaluated, module paths kept."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingExtraError, ModelError
from bnfold.files.contents import reason
from bnfold.torch.load import Loaded

_LOGGERS = ("torch.onnx", "torch.export", "torch._export", "torch._dynamo", "onnxscript", "onnx_ir")
_OLDEST = 7  # from here on, BatchNormalization has the meaning that bnfold's exports rely on
_NATIVE = 18  # what the exporter writes itself; older ones are converted to
_PARKED = "bnfold.parked"
_ALIKE = ("BatchNormalization", "Relu")  # one meaning since opset 7
_LARGEST_CONSTANT = 10**8  # elements; above the largest weight, which may have to be evaluated


def to_onnx(
    loaded: Loaded,
    inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    *,
    opset: int | None = None,
    dynamic_batch: bool = False,
) -> ir.Model:
    """Export `loaded` in eval mode.

    The exporter's own optimiser folds Conv and BatchNorm, without saying which and in the weights' own type;
    it stays off, and only constants are evaluated. Nodes keep the module path that they come from as the
    metadata `pkg.torch.onnx.name_scopes`.

    Args:
        loaded: The model. Every submodule's training flag is as it was when this returns or raises.
        inputs: Example inputs, in order or by name; for an exported program they may be empty.
        opset: The ONNX opset to write, 7 or newer; the exporter's default when None.
        dynamic_batch: Leave the first size of every input open, as `batch`. An exported program has its own
            dynamic sizes, and takes no others.

    Raises:
        InputError: The model does not run on these inputs.
        ModelError: The exporter cannot translate the model, or not to this opset.
        MissingExtraError: onnxscript is not installed.
    """
    try:
        import onnxscript
    except ModuleNotFoundError:
        raise MissingExtraError("onnxscript", "torch", "export PyTorch models to ONNX") from None
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not _OLDEST <= opset <= newest:
        raise InputError(f"There is no opset {opset} to export to.", f"Take one from {_OLDEST} to {newest}.")
    if isinstance(loaded.source, ExportedProgram):
        if dynamic_batch:
            raise InputError(
                "The sizes of an exported program are settled when it is exported.",
                "Give dynamic_shapes to torch.export.export, and leave the dynamic batch out here.",
            )
        model = _export(loaded.source, (), {}, opset, None)
    else:
        if dynamic_batch:  # a size of 1 would be taken for a constant
            args = tuple(_at_least_two(tensor) for tensor in args)
            kwargs = {name: _at_least_two(tensor) for name, tensor in kwargs.items()}
        shapes = _batch_shapes(loaded.source, args, kwargs) if dynamic_batch else None
        with _eval_mode(loaded.source):
            model = _export(loaded.source, args, kwargs, opset, shapes)
    with _quiet():
        onnxscript.optimizer.fold_constants(
            model, input_size_limit=_LARGEST_CONSTANT, output_size_limit=_LARGEST_CONSTANT
        )
        onnxscript.optimizer.remove_unused_nodes(model)
    return model if opset is None or opset >= _NATIVE else _convert(model, opset)


def _export(
    source: nn.Module | ExportedProgram,
    args: tuple[torch.Tensor, ...],
    kwargs: dict[str, torch.Tensor],
    opset: int | None,
    shapes: dict[str, dict[int, str]] | None,
) -> ir.Model:
    try:
        with _quiet():
            program = torch.onnx.export(
                source,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=None if opset is None else max(opset, _NATIVE),
                dynamic_shapes=shapes,
            )
    except Exception as error:  # the exporter runs the model, which can raise anything
        if isinstance(source, nn.Module):
            _explain_forward(source, args, kwargs)
        raise ModelError(
            f"The model could not be exported to ONNX: {_first_useful_line(error)}.",
            "Make it pass torch.onnx.export(model, inputs, dynamo=True), or give an .onnx file.",
        ) from error
    if program is None:
        raise ModelError("torch.onnx.export returned no model.", "Install torch 2.9 or newer.")
    return program.model


def _explain_forward(
    module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
) -> None:
    """Run the module itself; if that is what fails, its own message is the clearer one."""
    try:
        with torch.no_grad(), _quiet():
            module(*args, **kwargs)
    except Exception as error:  # the user's own code
        told = [*args, *kwargs.values()]
        shapes = ", ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in told)
        types = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in told}))
        raise InputError(
            f"The model does not run on inputs of shape {shapes} ({types}): {reason(error)}.",
            "Give the shape it expects with --input-shape, the type with --dtype.",
        ) from error


def _first_useful_line(error: BaseException) -> str:
    """The innermost cause's first line; the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor]) if tensor.ndim and tensor.shape[0] == 1 else tensor


def _batch_shapes(
    module: nn.Module, args: Sequence[torch.Tensor], kwargs: Mapping[str, torch.Tensor]
) -> dict[str, dict[int, str]]:
    """Every input's first size by one name; a scalar has none."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    if not all(isinstance(value, torch.Tensor) for value in bound.values()):
        raise InputError(
            "A forward with *args takes no dynamic batch.", "Give forward a name for each of its inputs."
        )
    return {name: {0: "batch"} if tensor.ndim else {} for name, tensor in bound.items()}


def _convert(model: ir.Model, opset: int) -> ir.Model:
    """Convert `model` to an opset older than the exporter writes, by onnx's own converter.

    That has no adapter for some operators whose newer versions only take more types (BatchNormalization in
    eval mode, below 15; Relu, below 14), so these pass in a domain of their own; the checker, at the end,
    knows the types. It also drops node metadata, which is put back.
    """
    origin = {node.outputs[0].name: dict(node.metadata_props) for node in model.graph if node.outputs}
    for node in _alike(model, ""):
        node.domain = _PARKED
    model.graph.opset_imports[_PARKED] = 1
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), opset))
        for node in _alike(converted, _PARKED):
            node.domain = ""
        converted.graph.opset_imports.pop(_PARKED, None)
        _drop_newer_defaults(converted, opset)
        onnx.checker.check_model(ir.to_proto(converted))
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        detail = reason(error).rpartition(" failed: ")[2]  # after the place in onnx's sources
        raise ModelError(
            f"The model cannot be converted to opset {opset}: {detail}.",
            "Leave --opset out, or take a newer one.",
        ) from error
    for node in converted.graph:
        node.metadata_props.update(origin.get(node.outputs[0].name, {}))
    return converted


def _alike(model: ir.Model, domain: str) -> list[ir.Node]:
    nodes = model.graph.all_nodes()
    return [node for node in nodes if node.op_type in _ALIKE and node.domain == domain]


def _drop_newer_defaults(model: ir.Model, opset: int) -> None:
    """Remove attributes that the converter left and `opset` does not know, where they say the default.

    `ReduceMean` keeps `noop_with_empty_axes=0` of opset 18 when it is converted to 17, for instance.
    """
    for node in model.graph.all_nodes():
        if node.domain or not onnx.defs.has(node.op_type, opset):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        newer = onnx.defs.get_schema(node.op_type, _NATIVE).attributes
        for name in [name for name in node.attributes if name not in known and name in newer]:
            default = ir.from_proto(newer[name].default_value)
            if isinstance(default, ir.Attr) and default.value == node.attributes[name].value:
                del node.attributes[name]


@contextlib.contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode, and back to its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's talk from the user; pass on warnings that the model's own code raises.

    What the model prints goes to standard error: standard output is for results.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what went wrong comes as an exception
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("always")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    for warning in caught:
        if not _from_the_exporter(warning.filename):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _from_the_exporter(filename: str) -> bool:
    """Whether a file is torch's, onnxscript's or onnx_ir's (or copyreg, which torch.export copies with)."""
    homes = [sys.modules[name].__file__ for name in ("torch", "onnxscript", "onnx_ir", "copyreg")]
    files = [Path(home) for home in homes if home]
    return any(
        Path(filename).is_relative_to(file.parent if file.name == "__init__.py" else file) for file in files
    )
