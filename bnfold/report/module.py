"""The result of `export --to`, a fold written back into a PyTorch module, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.report import json
from bnfold.report.record import Json, record
from bnfold.report.terminal import fates, headline
from bnfold.report.terminal.tables import count
from bnfold.result import FoldResult
from bnfold.system.environment import environment

if TYPE_CHECKING:
    from bnfold.pipeline.export_module import ModuleExport

_FORMS = {
    "pt2": "a program of torch.export in eval mode, which torch.export.load reads",
    "module": "the pickled module, which torch.load(…, weights_only=False) reads where its classes exist",
    "state_dict": "the weights alone, which fit bnfold.torch.fold(model, example).module",
}


def module_report(export: ModuleExport, *, verbose: bool = False) -> RenderableType:
    """Show the sites, the notes, the error, and the file."""
    folded = export.folded
    named = sum(old != (new,) for new, old in folded.parameters.items())
    parts: list[RenderableType] = [
        Text(folded.headline),
        headline.written(export.destination),
        Text(f"It holds {_FORMS[export.form]}."),
        "",
        fates.fold_summary(_fold(export)),
        "",
        fates.sites(_fold(export), verbose=verbose),
    ]
    parts += [Text(note, style="yellow") for note in (*export.notes, *folded.notes)]
    parts += [
        "",
        Text(
            f"In eager mode and float64 the largest relative error is {folded.error:.0e},"
            " on the example inputs, on random ones, and at other sizes that the module accepts."
        ),
        Text(
            f"{named} of {count(len(folded.parameters), 'tensor')} were computed from several of the"
            " original, such as a weight and the BatchNorm after it; --json lists which."
        ),
    ]
    return Group(*parts)


def module_document(export: ModuleExport) -> Json:
    """Report an `export --to`: the fold, and for the name of every new tensor the names of the old ones."""
    folded = export.folded
    return json.document(
        "export",
        source=json.read_record(export),
        output=json.file_record(export.destination),
        fold=json.fold_record(_fold(export)),
        module={
            "form": export.form,
            "error": folded.error,
            "parameters": {new: list(old) for new, old in folded.parameters.items()},
            "notes": list(folded.notes),
        },
        environment=record(environment()),
    )


def _fold(export: ModuleExport) -> FoldResult[Any]:
    """The fold in the form of the other reports; its graph is not kept."""
    folded = export.folded
    return FoldResult[Any](None, folded.sites, folded.nodes_before, folded.nodes_after, folded.merges)
