"""Whether a folded model still is the original.

Two questions are kept apart. Whether the *fold* is right is asked in float64, value by value, where neither
the runtime's rounding nor its optimizer has a say ([`layer_proof`][bnfold.validation.layer_proof]). Whether
the folded *model* is right where it will run is asked of ONNX Runtime, on every provider, with its optimizer
off and at its default: it may be hardly farther from the float64 oracle than the original is
([`bnfold.validation.output_check`][bnfold.validation.output_check]).

A default that changes the original itself beyond rounding computes something else. A fold cannot mend this
and is not to blame for it; it is reported, with the optimizer that does it. There the folded model is
excused, with a note, where it agrees with the optimizer off and is at most four times as far off as the
original is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bnfold.errors import InputError
from bnfold.validation.results import Check, Request, Validation

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import ModelLike
    from bnfold.validation.choose_reference import OracleMode

__all__ = ["Check", "Validation", "validate"]

SAMPLES = 6


def validate(
    original: ModelLike,
    folded: ModelLike,
    *,
    providers: Sequence[str] = ("cpu",),
    inputs: Inputs | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    tolerance: float | None = None,
    threads: int | None = None,
    oracle: OracleMode = "auto",
    per_layer: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Compare a folded model with its original.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        providers: Where the folded model runs: `"cpu"`, `"cuda"` or both.
        inputs: Arrays by input name, several such mappings, or a [`Given`][bnfold.inputs.given.Given], to be
            used instead of random ones.
        samples: Number of random inputs; more are drawn where dynamic dimensions need them.
        seed: Seed of the random inputs.
        tolerance: Bound of the difference from the original, relative to an output's scale. None takes what
            the oracle allows: four times the original's own error and 8 units in the last place; without an
            oracle 5e-5 for float32, 1e-12 for float64, 8 units in the last place for float16 and bfloat16.
            A tolerance that is given decides alone.
        threads: Threads within an operator; None takes every CPU that this process may use.
        oracle: `"auto"` takes the float64 oracle where it does not take too long, `"on"` at any cost, `"off"`
            compares in the model's own type.
        per_layer: Whether to run ONNX Runtime's numbers of every layer against the oracle too.
        on_progress: Called with the number of runs done and their total.

    Raises:
        InputError: The inputs given do not fit the model, or none can be drawn that it takes.
        ModelError: The original cannot be read, or ONNX Runtime does not run it.
        NotEvaluableError: The oracle was asked for and cannot evaluate the model.
        ProviderError: A provider is unknown, absent, or would be silently replaced, be it only for nodes that
            do the model's work.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError(f"{tolerance} is no tolerance.", "Give a number from 0 upwards, such as 5e-5.")
    # loaded when it is needed: `import bnfold` and the pass alone do without the oracle and the sessions
    from bnfold.runtime.sessions import usable_cpus
    from bnfold.validation.compare import compare

    threads = usable_cpus() if threads is None else threads
    request = Request(tuple(providers), samples, seed, tolerance, threads, oracle, per_layer)
    return compare(original, folded, request, inputs, oracle, on_progress or _silent)


def _silent(done: int, total: int) -> None:
    del done, total
