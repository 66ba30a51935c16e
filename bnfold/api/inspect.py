"""`bnfold.inspect`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir as ir

from bnfold.api.models import read
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.display.shown import Shown
from bnfold.files.load import guarded
from bnfold.folding.fold import fold
from bnfold.options import Reading
from bnfold.pipeline.progress import Progress, Stage, within
from bnfold.pipeline.read import Source
from bnfold.report.summary import Summary, summarise
from bnfold.result import FoldResult, said

if TYPE_CHECKING:
    from bnfold.api.models import AnyModel, ExampleInputs
    from bnfold.display.plots import Bar


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """What a model is, and what a fold would do with it. It is true if no BatchNorm would stay.

    Attributes:
        source: The model as it was read.
        about: The model in figures.
        fold: What the fold does, done in memory.
    """

    source: Source
    about: Summary
    fold: FoldResult[ir.Model]

    axis: ClassVar[str] = "sites"

    @property
    def headline(self) -> str:
        """What the model is, and what becomes of its BatchNorms."""
        about = self.about
        what = f"{self.source.path.name}: {about.nodes} nodes, {about.parameters:,} parameters"
        return f"{what}. {said(self.fold.sites, self.fold.nodes_before, self.fold.nodes_after)}"

    def __bool__(self) -> bool:
        return bool(self.fold)

    def records(self) -> list[dict[str, Any]]:
        """A row for each site."""
        return self.fold.records()

    def bars(self) -> Sequence[Bar]:
        """How many sites of each operator had each fate."""
        return self.fold.bars()


@only_known(field.name for field in fields(Reading))
@speaking_python
@guarded
def inspect(
    model: AnyModel,
    example_inputs: ExampleInputs | None = None,
    *,
    merge: bool = True,
    inline_functions: bool = False,
    keep: Collection[str] = (),
    no_batchnorm: bool = False,
    progress: Progress | bool | None = None,
    **reading: Any,
) -> Inspection:
    """Show what a model is, and what becomes of each of its BatchNorms; nothing is written.

        bnfold.inspect("model.onnx").records()
        bnfold.inspect(net, torch.randn(1, 3, 224, 224))

    Args:
        model: A path to an ONNX or a PyTorch file, an `onnx.ModelProto`, an `onnx_ir.Model`, an `nn.Module`
            or an `ExportedProgram`. It is not modified.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names.
        merge: As in [`fold`][bnfold.api.fold.fold].
        inline_functions: As in `fold`.
        keep: As in `fold`.
        no_batchnorm: As in `fold`.
        progress: As in `fold`.
        reading: How a PyTorch file is read, by the fields of [`Reading`][bnfold.options.Reading]:
            `input_shape`, `dtype`, `arch`, `key`, `dynamic` and others.

    Raises:
        ModelError: The model cannot be read or exported.
        InputError: The example inputs or a shape are missing or do not fit.

    Examples:
        >>> bnfold.inspect("model.onnx").records()[0]["into"]
        'conv1'
    """
    with watching(progress) as report:
        source = read(model, example_inputs, reading=Reading(**reading), progress=report)
        result = fold(
            source.model,
            merge=merge,
            inline_functions=inline_functions,
            keep=keep,
            no_batchnorm=no_batchnorm,
            on_progress=within(Stage.FOLD, report),
        )
    return Inspection(source, summarise(source), result)
