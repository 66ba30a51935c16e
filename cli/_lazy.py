"""Modules that are loaded only when they are used, so that a command starts quickly."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A placeholder for a module while another imports it; later it forwards to the real module."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is not self:
            return getattr(importlib.import_module(self.__name__), name)
        if name.startswith("__"):
            raise AttributeError(name)  # the import system looks some of these up on the placeholder itself

        # the import is still running: what it takes from here is called later, if ever
        def call(*args: Any, **options: Any) -> Any:
            return getattr(self, name)(*args, **options)

        return call


def load_onnx_ir() -> None:
    """Import onnx_ir without sympy, which takes longer to load than everything else and is seldom used.

    onnx_ir needs sympy only to compute with symbolic sizes, and then loads the real module. The placeholder
    is removed before this returns, so other packages, such as torch, import sympy as usual.
    """
    if "onnx_ir" in sys.modules or "sympy" in sys.modules:
        return
    placeholder = sys.modules["sympy"] = _Deferred("sympy")
    try:
        importlib.import_module("onnx_ir")
    finally:
        if sys.modules.get("sympy") is placeholder:
            del sys.modules["sympy"]
