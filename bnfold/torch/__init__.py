"""PyTorch files: recognised by content, loaded without running code from the file, exported to ONNX.

- [`load`][bnfold.torch.read.load.load] reads a pickled `nn.Module` or an `ExportedProgram`.
- [`parse_shapes`][bnfold.torch.export.example_inputs.parse_shapes] and
  [`example_inputs`][bnfold.torch.export.example_inputs.example_inputs] make the tensors that an
  export is traced with.
- [`to_onnx`][bnfold.torch.export.to_onnx.to_onnx] exports to ONNX and keeps every BatchNorm.
- [`fold`][bnfold.torch.write_back.fold_module.fold] returns a folded copy of a module.

`import bnfold` does not import this package, since it needs torch.

Raises:
    MissingExtraError: On import, when torch is not installed.
"""

from __future__ import annotations

import gc

_collects = gc.isenabled()
gc.disable()  # torch makes so many lasting objects that searching them for cycles is a quarter of its import
try:
    import torch as _torch  # noqa: F401  (without it, the error says how to install it)

    from bnfold.torch.export.example_inputs import InputSpec, example_inputs, parse_shapes
    from bnfold.torch.export.to_onnx import to_onnx
    from bnfold.torch.read.load import Loaded, load
    from bnfold.torch.write_back.fold_module import Folded, fold
except ModuleNotFoundError as error:
    if error.name != "torch":  # torch is installed, but one of its own dependencies is not
        raise
    from bnfold.errors import MissingExtraError

    raise MissingExtraError("torch", "torch", "read PyTorch files") from None
finally:
    if _collects:
        gc.enable()

__all__ = ["Folded", "InputSpec", "Loaded", "example_inputs", "fold", "load", "parse_shapes", "to_onnx"]


def __dir__() -> list[str]:
    return __all__
