"""Fold every eval-mode BatchNorm of a network into the weights around it, and prove that nothing changed.

Importing this package loads nothing else: the module of each name is imported when the name is used.
"""

from typing import TYPE_CHECKING

from bnfold._version import __version__

if TYPE_CHECKING:
    from bnfold.errors import BnfoldError
    from bnfold.folding.fold import fold
    from bnfold.latency.benchmark import benchmark
    from bnfold.latency.results import Benchmark
    from bnfold.pipeline.export import Export, export
    from bnfold.reasons import Reason
    from bnfold.result import FoldResult, Site
    from bnfold.validation.validate import Validation, validate

__all__ = [
    "Benchmark",
    "BnfoldError",
    "Export",
    "FoldResult",
    "Reason",
    "Site",
    "Validation",
    "__version__",
    "benchmark",
    "export",
    "fold",
    "validate",
]

if not TYPE_CHECKING:  # a type checker would accept any name
    _MODULES = {
        "Benchmark": "latency.results",
        "BnfoldError": "errors",
        "Export": "pipeline.export",
        "FoldResult": "result",
        "Reason": "reasons",
        "Site": "result",
        "Validation": "validation.validate",
        "benchmark": "latency.benchmark",
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
