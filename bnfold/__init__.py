"""Fold every eval-mode BatchNorm of a network into the weights around it, and prove that nothing changed.

Importing this package loads nothing else: the module of each name is imported when the name is used.
"""

from typing import TYPE_CHECKING

from bnfold._version import __version__

if TYPE_CHECKING:
    from bnfold.api.benchmark import benchmark
    from bnfold.api.check import check
    from bnfold.api.equalize import equalize
    from bnfold.api.export import export
    from bnfold.api.fold import fold
    from bnfold.api.inspect import Inspection, inspect
    from bnfold.api.validate import validate
    from bnfold.contract.contract import Contract, Preprocessing
    from bnfold.edge.balance import Equalized
    from bnfold.errors import BnfoldError
    from bnfold.gate.run import Checked
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.exported import Export
    from bnfold.reasons import Reason
    from bnfold.result import FoldResult, Site
    from bnfold.validation.results import Validation

__all__ = [
    "Benchmark",
    "BnfoldError",
    "Checked",
    "Contract",
    "Equalized",
    "Export",
    "FoldResult",
    "Inspection",
    "Preprocessing",
    "Reason",
    "Site",
    "Validation",
    "__version__",
    "benchmark",
    "check",
    "equalize",
    "export",
    "fold",
    "inspect",
    "validate",
]

if not TYPE_CHECKING:  # a type checker would accept any name
    _MODULES = {
        "Benchmark": "latency.results",
        "BnfoldError": "errors",
        "Checked": "gate.run",
        "Contract": "contract.contract",
        "Equalized": "edge.balance",
        "Export": "pipeline.exported",
        "FoldResult": "result",
        "Inspection": "api.inspect",
        "Preprocessing": "contract.contract",
        "Reason": "reasons",
        "Site": "result",
        "Validation": "validation.results",
        "benchmark": "api.benchmark",
        "check": "api.check",
        "equalize": "api.equalize",
        "export": "api.export",
        "fold": "api.fold",
        "inspect": "api.inspect",
        "validate": "api.validate",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
