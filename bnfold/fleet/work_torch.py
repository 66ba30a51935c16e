"""The same as [`work`][bnfold.fleet.work] for files of PyTorch: torch is loaded once, before any of them."""

from __future__ import annotations

import contextlib
import importlib

from bnfold.fleet import work

_MODULES = ("torch", "onnxscript", "torch.onnx", "bnfold.torch.read.load", "bnfold.torch.export.to_onnx")


def prepare() -> None:
    """Load what every call needs, before any is made."""
    work.prepare()
    for module in _MODULES:
        with contextlib.suppress(ImportError):  # what needs it says so, of each model
            importlib.import_module(module)


one = work.one
