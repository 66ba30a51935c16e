"""One file an operator family, each stating the identities that let an affine pass through or into it.

Every module here lists its operators in a dictionary `OPERATORS`, by ONNX's operator names; a new family is a
new file and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

import onnx_ir as ir

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.ops.base import Operator

_BY_NAME: dict[str, Operator] = {}
for _module in pkgutil.iter_modules(__path__):
    _BY_NAME.update(getattr(importlib.import_module(f"{__name__}.{_module.name}"), "OPERATORS", {}))

_UNKNOWN = Operator()


def operator(node: ir.Node) -> Operator:
    """The family of a node; for an operator of another domain, or an unknown one, a family that refuses."""
    return _BY_NAME.get(node.op_type, _UNKNOWN) if node.domain in ONNX_DOMAINS else _UNKNOWN
