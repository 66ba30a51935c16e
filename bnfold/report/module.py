"""What came of a fold back into a PyTorch module, as text and as a JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.report import json
from bnfold.report.terminal import fates, text
from bnfold.result import FoldResult
from bnfold.system.environment import environment

if TYPE_CHECKING:
    from bnfold.pipeline.export_module import ModuleExport

_FORMS = {
    "pt2": "a program of torch.export, in eval mode: torch.export.load reads it",
    "module": "the pickled module: torch.load(…, weights_only=False) reads it where its classes are",
    "state_dict": "the weights alone: they fit bnfold.torch.fold(model, example).module",
}


def module_report(export: ModuleExport) -> RenderableType:
    """Show the sites, what else should be known, the error, and the file."""
    folded = export.folded
    named = sum(old != (new,) for new, old in folded.parameters.items())
    parts: list[RenderableType] = [fates.sites(_fold(export))]
    parts += [Text(note, style="yellow") for note in (*export.notes, *folded.notes)]
    parts += [
        "",
        Text(
            f"In eager mode and float64 the largest relative error is {folded.error:.0e},"
            " on the example inputs, on random ones, and at other sizes that it takes."
        ),
        Text(
            f"{named} of {len(folded.parameters)} tensors hold numbers of others too; --json says of which."
        ),
        "",
        text.written(export.destination),
        Text(f"It holds {_FORMS[export.form]}."),
    ]
    return Group(*parts)


def module_document(export: ModuleExport) -> json.Json:
    """Report an `export --to`: the fold, and for every new name of a tensor the old ones."""
    folded = export.folded
    return json.document(
        "export",
        source={
            **json.file_record(export.path),
            "kind": export.kind,
            "was_training": export.was_training,
            "external_data": [],
            "options": dict(export.options),
            "notes": list(export.notes),
        },
        output=json.file_record(export.destination),
        fold=json.fold_record(_fold(export)),
        module={
            "form": export.form,
            "error": folded.error,
            "parameters": {new: list(old) for new, old in folded.parameters.items()},
            "notes": list(folded.notes),
        },
        environment=environment().record(),
    )


def _fold(export: ModuleExport) -> FoldResult[Any]:
    """The fold as other reports know it; its graph has done its work and is gone."""
    folded = export.folded
    return FoldResult[Any](None, folded.sites, folded.nodes_before, folded.nodes_after, folded.merges)
