"""Which function evaluates a node: one of this package's, or ONNX's reference implementation.

Every module here lists its operators by name in a dictionary `OPERATORS`, those of com.microsoft in
`MICROSOFT`; a new family is a new file and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops.call import Call, Operator, Refusal
from bnfold.oracle.ops.onnx_reference import reference

_OWN: dict[str, Operator] = {}
_MICROSOFT: dict[str, Operator] = {}
for _entry in pkgutil.iter_modules(__path__):
    _module = importlib.import_module(f"{__name__}.{_entry.name}")
    _OWN.update(getattr(_module, "OPERATORS", {}))
    _MICROSOFT.update(getattr(_module, "MICROSOFT", {}))


def operator(call: Call) -> Operator:
    """The function that evaluates a node.

    Raises:
        Refusal: No function does.
    """
    kind, domain = call.node.op_type, call.node.domain
    if domain in ONNX_DOMAINS:
        return _OWN[kind] if kind in _OWN else reference(call)
    if domain == "com.microsoft" and kind in _MICROSOFT:
        return _MICROSOFT[kind]
    raise Refusal(f"it does not know operators of {domain}")
