"""The TorchScript-based exporter: for TorchScript itself, and where the newer one fails.

It follows one path through the code. Where that path depends on the values of tensors, PyTorch warns, and the
export is refused: otherwise the written model would be right on one input only.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass
from torch import _C, nn
from torch.jit._trace import TracerWarning  # torch.jit has it, too, but does not export it by name

from bnfold.runtime import bounded_run
from bnfold.torch.export import scripted
from bnfold.torch.export.open_sizes import Sizes
from bnfold.torch.run_quietly import from_torch, silent

NATIVE = range(7, 21)
SECONDS = 3600.0
"""How long an exporter may take."""

SCOPES = "pkg.torch.onnx.name_scopes"
_REPEATED = re.compile(r"_\d+$")


def export(
    module: nn.Module,
    args: tuple[torch.Tensor, ...],
    kwargs: Mapping[str, torch.Tensor],
    *,
    names: Sequence[str],
    opset: int | None,
    sizes: Sizes,
) -> ir.Model:
    """Export `module`, which is in eval mode, with every BatchNorm in its place.

    Args:
        module: The module, TorchScript or not.
        args: Inputs in order.
        kwargs: Inputs by name.
        names: Names of all of them.
        opset: One of `NATIVE`; the exporter's default when None.
        sizes: Sizes to leave open, by input and axis.

    Raises:
        Exception: Whatever the exporter, or the model that it runs, raises; also a `TracerWarning`.
    """
    if isinstance(module, torch.jit.ScriptModule):
        module = scripted.only_with(module, names)
        args, kwargs = (*args, *kwargs.values()), {}  # of which the exporter takes none
    with tempfile.TemporaryDirectory() as folder, silent(), _without_graphs(), _one_path_only():
        path = Path(folder) / "model.onnx"
        call = partial(
            torch.onnx.export,
            module,
            args,
            str(path),
            kwargs=dict(kwargs) or None,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # in EVAL the exporter folds BatchNorms itself
            do_constant_folding=False,
            input_names=list(names),
            dynamic_axes={name: dict(axes) for name, axes in sizes.items() if axes} or None,
            opset_version=opset,
        )
        bounded_run.run(call, SECONDS)
        model = ir.from_proto(onnx.load(path))
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)  # it writes few shapes
    scripted.take_off(model, module)
    _note_modules(model, module)
    return model


@contextlib.contextmanager
def _one_path_only() -> Iterator[None]:
    """Raise the warning that a trace follows one path among several, unless torch's own code causes it.

    Torch's code asks only for sizes; the user's may ask for anything.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, TracerWarning) and not from_torch(warning.filename):
            raise TracerWarning(str(warning.message))


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Keep the exporter from printing its graph to the process's own standard output where it fails.

    It switches that on by itself, so its public switch has no effect, and the function has to be replaced.
    """
    log = _C._jit_onnx_log  # noqa: SLF001  # see above; the same below
    _C._jit_onnx_log = lambda *_: None  # noqa: SLF001
    try:
        yield
    finally:
        _C._jit_onnx_log = log  # noqa: SLF001


def _note_modules(model: ir.Model, module: nn.Module) -> None:
    """Note each node's module path as the newer exporter does."""
    modules = {scripted.path_within(path) for path, _ in module.named_modules()} - {""}
    for node in model.graph.all_nodes():
        path = _owner(node, modules) or _scope(node.name or "", modules)
        if path:
            parts = path.split(".")
            scopes = ["", *(".".join(parts[: i + 1]) for i in range(len(parts))), node.op_type]
            node.metadata_props[SCOPES] = repr(scopes)


def _owner(node: ir.Node, modules: set[str]) -> str | None:
    """The module whose parameter the node reads, which is more precise than scripted code's scopes."""
    if node.op_type == "Identity":  # one parameter under the name of another
        return None
    for value in node.inputs[1:]:
        if value is not None and value.is_initializer() and value.name:
            path = value.name.rpartition(".")[0]
            if path and path in modules:
                return path
    return None


def _scope(name: str, modules: set[str]) -> str | None:
    """The module in a node's name, as `/layer1/layer1.0/bn1/Conv`, or `/layer1/0/bn1/Conv`."""
    path = ""
    for part in name.split("/")[1:-1]:
        for called in (part, _REPEATED.sub("", part)):  # a module that is called again gets a number
            below = f"{path}.{called}" if path else called
            found = next((one for one in (below, called) if one in modules), None)
            if found is not None:
                path = found
                break
        else:
            return path or None
    return path or None
