"""Fold every eval-mode BatchNorm of a network into the weights around it, and prove that nothing changed.

Importing this loads neither torch nor onnxruntime; what needs them imports them when it runs.
"""

from typing import TYPE_CHECKING, Any

from bnfold._version import __version__
from bnfold.errors import BnfoldError
from bnfold.folding.fold import fold
from bnfold.pipeline.export import Export, export
from bnfold.reasons import Reason
from bnfold.result import FoldResult, Site
from bnfold.validation.validate import Validation, validate

if TYPE_CHECKING:
    from bnfold.latency.benchmark import benchmark
    from bnfold.latency.results import Benchmark

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


def __getattr__(name: str) -> Any:
    """Load what times models when it is asked for, so that a fold need not wait for it."""
    if name not in ("Benchmark", "benchmark"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bnfold.latency import benchmark

    return getattr(benchmark, name)
