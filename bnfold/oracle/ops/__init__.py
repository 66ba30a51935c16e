"""Which function evaluates a node: one of this package's, or ONNX's reference implementation.

Every module here lists its operators by name in a dictionary `OPERATORS`, those of com.microsoft in
`MICROSOFT`, of ai.onnx.ml in `LEARNING` and of ai.onnx.preview in `PREVIEW`; a new family is a new file and
nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

from bnfold.graph.scopes import ONNX_DOMAINS
from bnfold.oracle.ops.call import Call, Operator, Refusal
from bnfold.oracle.ops.onnx_reference import reference

_TABLES = {
    "": "OPERATORS",
    "ai.onnx.ml": "LEARNING",
    "ai.onnx.preview": "PREVIEW",
    "com.microsoft": "MICROSOFT",
}
_OWN: dict[str, dict[str, Operator]] = {domain: {} for domain in _TABLES}
for _entry in pkgutil.iter_modules(__path__):
    _module = importlib.import_module(f"{__name__}.{_entry.name}")
    for _domain, _table in _TABLES.items():
        _OWN[_domain].update(getattr(_module, _table, {}))


def operator(call: Call) -> Operator:
    """The function that evaluates a node.

    Raises:
        Refusal: No function does.
    """
    kind = call.node.op_type
    domain = "" if call.node.domain in ONNX_DOMAINS else call.node.domain
    if kind in _OWN.get(domain, {}):
        return _OWN[domain][kind]
    if not domain:
        return reference(call)
    raise Refusal(f"it does not know operators of {domain}")
