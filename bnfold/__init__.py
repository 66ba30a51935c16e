"""Fold every eval-mode BatchNorm of a network into the weights around it, and prove that nothing changed.

Importing this package loads nothing else: the module of each name is imported when the name is used.
"""

from typing import TYPE_CHECKING

from bnfold._version import __version__

if TYPE_CHECKING:
    from bnfold.edge.equalize import Equalized, equalize
    from bnfold.errors import BnfoldError
    from bnfold.folding.fold import fold
    from bnfold.gate.run import Checked, check
    from bnfold.latency.benchmark import benchmark
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.export import Export, export
    from bnfold.reasons import Reason
    from bnfold.result import FoldResult, Site
    from bnfold.validation.validate import Validation, validate

__all__ = [
    "Benchmark",
    "BnfoldError",
    "Checked",
    "Equalized",
    "Export",
    "FoldResult",
    "Reason",
    "Site",
    "Validation",
    "__version__",
    "benchmark",
    "check",
    "equalize",
    "export",
    "fold",
    "validate",
]

if not TYPE_CHECKING:  # a type checker would accept any name
    _MODULES = {
        "Benchmark": "latency.results",
        "BnfoldError": "errors",
        "Checked": "gate.run",
        "Equalized": "edge.equalize",
        "Export": "pipeline.export",
        "FoldResult": "result",
        "Reason": "reasons",
        "Site": "result",
        "Validation": "validation.validate",
        "benchmark": "latency.benchmark",
        "check": "gate.run",
        "equalize": "edge.equalize",
        "export": "pipeline.export",
        "fold": "folding.fold",
        "validate": "validation.validate",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
