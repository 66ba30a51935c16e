"""`bnfold.validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.api.models import to_compare
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.files.load import guarded_pair
from bnfold.options import CheckingOptions
from bnfold.pipeline.progress import Progress, Stage, within
from bnfold.validation import validate as validation
from bnfold.validation.results import Validation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from bnfold.api.models import AnyModel, ExampleInputs
    from bnfold.inputs.given import Inputs


@only_known(CheckingOptions.__annotations__)
@speaking_python
@guarded_pair
def validate(
    original: AnyModel,
    folded: AnyModel,
    example_inputs: ExampleInputs | None = None,
    *,
    inputs: Inputs | None = None,
    progress: Progress | bool | None = None,
    **checking: Unpack[CheckingOptions],
) -> Validation:
    """Compare a folded model with its original. The result is true if they compute the same.

        assert bnfold.validate("model.onnx", "folded.onnx")
        bnfold.validate("model.onnx", "folded.onnx", providers=("cpu", "cuda"), samples=20)
        bnfold.validate(net, "model.onnx", torch.randn(1, 3, 224, 224))

    Args:
        original: A path to an ONNX or a PyTorch file, an `onnx.ModelProto`, an `onnx_ir.Model`, an
            `nn.Module` or an `ExportedProgram`.
        folded: The same, after folding.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names. Those of them that are networks take it.
        inputs: Arrays by input name, several such mappings, or a [`Given`][bnfold.inputs.given.Given]; they
            replace the random inputs.
        progress: Called as `progress(stage, done, total)`; True or False shows a bar or none; None shows one
            in a terminal and in a notebook.
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
        MissingExtraError: ONNX Runtime is not installed, or torch for a PyTorch model.

    Examples:
        >>> bnfold.validate("model.onnx", "folded.onnx", samples=3)
        <Validation: The models compute the same, on 3 inputs.>
    """
    with watching(progress) as report:
        first, second = (to_compare(model, example_inputs, progress=report) for model in (original, folded))
        return validation.validate(
            first, second, inputs=inputs, on_progress=within(Stage.VALIDATE, report), **checking
        )
