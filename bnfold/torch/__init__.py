"""PyTorch files in: told apart by content, loaded without running what they carry, exported to ONNX.

- [`load`][bnfold.torch.load.load] reads a pickled `nn.Module` or an `ExportedProgram`.
- [`parse_shapes`][bnfold.torch.inputs.parse_shapes] and
  [`example_inputs`][bnfold.torch.inputs.example_inputs] make the tensors that an export is traced with.
- [`to_onnx`][bnfold.torch.export.to_onnx] exports, with every BatchNorm still in its place.
- [`fold`][bnfold.torch.module.fold] gives a folded copy of a module.

`import bnfold` does not import this package, since it needs torch.

Raises:
    MissingExtraError: On import, when torch is not installed.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  (only to say how to install it)
except ModuleNotFoundError as error:
    if error.name != "torch":  # torch is there, and lacks something of its own
        raise
    from bnfold.errors import MissingExtraError

    raise MissingExtraError("torch", "torch", "read PyTorch files") from None

from bnfold.torch.export import to_onnx
from bnfold.torch.inputs import InputSpec, example_inputs, parse_shapes
from bnfold.torch.load import Loaded, load
from bnfold.torch.module import Folded, fold

__all__ = ["Folded", "InputSpec", "Loaded", "example_inputs", "fold", "load", "parse_shapes", "to_onnx"]
