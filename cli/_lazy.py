"""What is loaded only when it is used, so that a command starts at once."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands in for a module while another imports it, and passes everything on to the real one later."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is not self:
            return getattr(importlib.import_module(self.__name__), name)
        if name.startswith("__"):
            raise AttributeError(name)  # the import system asks for some of these, and means the stand-in

        # it is being imported: what is taken from it now is called later, if ever
        def call(*args: Any, **options: Any) -> Any:
            return getattr(self, name)(*args, **options)

        return call


def load_onnx_ir() -> None:
    """Import onnx_ir without sympy, which takes longer than all the rest and which it seldom uses.

    It computes with symbolic sizes, and only then needs it: from then on it uses the real one. Nobody else
    meets the stand-in, as it is gone when this returns: torch, say, imports sympy as ever.
    """
    if "onnx_ir" in sys.modules or "sympy" in sys.modules:
        return
    stand_in = sys.modules["sympy"] = _Deferred("sympy")
    try:
        importlib.import_module("onnx_ir")
    finally:
        if sys.modules.get("sympy") is stand_in:
            del sys.modules["sympy"]
