"""Fold every eval-mode BatchNorm of a network into the weights around it, and prove that nothing changed.

Importing this loads neither torch nor onnxruntime; what needs them imports them when it runs.
"""

from bnfold._version import __version__
from bnfold.bench import Benchmark, benchmark
from bnfold.errors import BnfoldError
from bnfold.fold import fold
from bnfold.pipeline import Export, export
from bnfold.reasons import Reason
from bnfold.result import FoldResult, Site
from bnfold.validate import Validation, validate

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
