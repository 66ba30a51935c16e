"""Whether a folded model still computes what the original computes.

Two questions are kept apart. Whether the *fold* is right is decided in float64, value by value, without the
runtime's rounding and without its optimizer ([`layer_proof`][bnfold.validation.layer_proof]). Whether the
folded *model* is right where it will run is decided in ONNX Runtime, on every provider, with its optimizer
off and at its default: the folded model's distance from the float64 oracle may be only slightly larger than
the original's ([`bnfold.validation.output_check`][bnfold.validation.output_check]).

Sometimes the default optimizer changes the original itself by more than rounding. A fold does not cause this
and cannot repair it, so it is reported with the name of the optimizer. The folded model then passes, with a
note, if it agrees with the optimizer off and is at most four times as far off as the original is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bnfold.options import Checking, OracleMode
from bnfold.validation.results import Check, Validation

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import ModelLike

__all__ = ["Check", "Validation", "validate"]


def validate(
    original: ModelLike,
    folded: ModelLike,
    *,
    providers: Sequence[str] = ("cpu",),
    inputs: Inputs | None = None,
    samples: int = 6,
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
        inputs: Arrays by input name, several such mappings, or a [`Given`][bnfold.inputs.given.Given]; they
            replace the random inputs.
        samples: Number of random inputs; more are drawn where dynamic dimensions need them.
        seed: Seed of the random inputs.
        tolerance: Largest difference from the original that passes, relative to an output's scale; nothing
            else then decides. None uses what the oracle allows: four times the original's own error plus 8
            units in the last place. Without an oracle it is 5e-5 for float32, 1e-12 for float64, and 8 units
            in the last place for float16 and bfloat16.
        threads: Threads within an operator; None uses every CPU that this process may use.
        oracle: `"auto"` uses the float64 oracle where it does not take too long, `"on"` always; `"off"`
            compares in the model's own type.
        per_layer: Whether the error of every layer is measured in ONNX Runtime too.
        on_progress: Called with the number of runs done and their total.

    Raises:
        InputError: The given inputs do not fit the model, or it accepts none of the random ones.
        ModelError: The original cannot be read, or ONNX Runtime does not run it.
        NotEvaluableError: The oracle was demanded and cannot evaluate the model.
        ProviderError: A provider is unknown or absent, or another one would silently run some of the model's
            main nodes.
        MissingExtraError: ONNX Runtime is not installed.
    """
    # imported here, since a fold alone needs neither the oracle nor ONNX Runtime
    from bnfold.validation.compare import compare

    checking = Checking(tuple(providers), samples, seed, tolerance, threads, oracle, per_layer)
    return compare(original, folded, checking, inputs, on_progress)
