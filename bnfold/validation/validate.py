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

from collections.abc import Callable
from typing import TYPE_CHECKING

from bnfold.files.load import guarded_pair
from bnfold.ops.constraints import naming_faults
from bnfold.options import Checking, CheckingOptions
from bnfold.validation.results import Check, Validation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import ModelLike

__all__ = ["Check", "Validation", "validate"]


@guarded_pair
def validate(
    original: ModelLike,
    folded: ModelLike,
    *,
    inputs: Inputs | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **checking: Unpack[CheckingOptions],
) -> Validation:
    """Compare a folded model with its original.

        validate("model.onnx", "folded.onnx", providers=("cpu", "cuda"), samples=20)
        validate("model.onnx", "other_exporter.onnx", match="order", inputs=Given(Path("data.npz")))

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        inputs: Arrays by input name, several such mappings, or a [`Given`][bnfold.inputs.given.Given]; they
            replace the random inputs.
        on_progress: Called with the number of runs done and their total.
        checking: How to compare them, by the fields of [`Checking`][bnfold.options.Checking]: `providers`,
            `samples`, `seed`, `tolerance`, `threads`, `oracle`, `per_layer`, `match`, `strict`, `cover` and
            `cover_seconds`.

    Raises:
        InputError: The given inputs do not fit the model, or it accepts none of the random ones; or `cover`
            is given with inputs.
        ModelError: The original cannot be read, or neither ONNX Runtime nor the oracle runs any of it.
        NotEvaluableError: The oracle was demanded and cannot evaluate the model.
        ProviderError: A provider is unknown or absent, or another one would silently run some of the model's
            main nodes.
        MissingExtraError: ONNX Runtime is not installed.
    """
    # imported here, since a fold alone needs neither the oracle nor ONNX Runtime
    from bnfold.validation.compare import compare

    with naming_faults(original):
        return compare(original, folded, Checking(**checking), inputs, on_progress)
