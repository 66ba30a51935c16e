"""PyTorch files in: told apart by content, loaded without running what they carry, exported to ONNX.

- [`load`][bnfold.torch.read.load.load] reads a pickled `nn.Module` or an `ExportedProgram`.
- [`parse_shapes`][bnfold.torch.export.example_inputs.parse_shapes] and
  [`example_inputs`][bnfold.torch.export.example_inputs.example_inputs] make the tensors that an export is
  traced with.
- [`to_onnx`][bnfold.torch.export.to_onnx.to_onnx] exports, with every BatchNorm still in its place.
- [`fold`][bnfold.torch.write_back.fold_module.fold] gives a folded copy of a module.

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

from bnfold.torch.export.example_inputs import InputSpec, example_inputs, parse_shapes
from bnfold.torch.export.to_onnx import to_onnx
from bnfold.torch.read.load import Loaded, load
from bnfold.torch.write_back.fold_module import Folded, fold

__all__ = ["Folded", "InputSpec", "Loaded", "example_inputs", "fold", "load", "parse_shapes", "to_onnx"]
