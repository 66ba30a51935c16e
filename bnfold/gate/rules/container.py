"""The file itself: whether it can be read, and whether all of it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bnfold.gate.finding import Found
from bnfold.gate.rule import Rule

if TYPE_CHECKING:
    from bnfold.gate.subject import Subject

_SLACK = 1 << 16  # bytes between two tensors that exporters leave free to align them


def _problem(code: str) -> Callable[[Subject], Iterator[Found]]:
    def look(subject: Subject) -> Iterator[Found]:
        if subject.problem and subject.problem[0] == code:
            yield Found(subject.problem[1])

    return look


def _invalid(subject: Subject) -> Iterator[Found]:
    if subject.problem:
        yield from _problem("M302")(subject)
    elif subject.is_onnx:
        from bnfold.gate.checker import complaint

        cause = complaint(subject.path, subject.model)
        if cause:
            yield Found(f"ONNX's checker refuses the model: {cause}")


def _unsorted(subject: Subject) -> Iterator[Found]:
    from bnfold.files.load import NOTES
    from bnfold.files.repair import SORTED

    if SORTED in subject.model.meta[NOTES]:
        yield Found("nodes stand before what they read")


def _unused(subject: Subject) -> Iterator[Found]:
    from bnfold.files.external_data import tensors
    from bnfold.tensors.file_tensor import FileTensor

    folder = subject.path.absolute().parent
    used: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    for tensor in tensors(subject.model):
        if isinstance(tensor, FileTensor) and tensor.external:
            name = tensor.file.path.relative_to(folder).as_posix()
            sizes[name] = len(tensor.file)
            used.setdefault(name, []).append((tensor.offset, tensor.offset + tensor.nbytes))
    wasteful = []
    for name, parts in used.items():
        unread, end = 0, 0
        for first, last in [*sorted(parts), (sizes[name], sizes[name])]:
            unread += first - end if first - end > _SLACK else 0
            end = max(end, last)
        if unread:
            wasteful.append(name)
    if wasteful:
        yield Found(
            "1 file of external data holds bytes that no tensor uses",
            "{} files of external data hold bytes that no tensor uses",
            tuple(wasteful),
        )


RULES = (
    Rule(
        "M300",
        "not-checked",
        "the file could not be checked",
        "Its check took too long or too much memory, or ended the process in which it ran. Other files are"
        " not affected.",
        "Look at it alone with `bnfold inspect`. If bnfold is at fault, `bnfold --bug-report inspect` writes"
        " what a report needs.",
        _problem("M300"),
        needs="file",
        severity="error",
        always=True,
    ),
    Rule(
        "M301",
        "unreadable",
        "the file cannot be read",
        "It is not there, empty, not a file, not to be opened, or not a model at all: a pointer of Git LFS,"
        " for instance.",
        "The message says which it is. Pointers become files with `git lfs pull`.",
        _problem("M301"),
        needs="file",
        severity="error",
        always=True,
    ),
    Rule(
        "M302",
        "invalid",
        "the model is not valid",
        "The file is cut off or damaged, or the graph in it breaks a rule of ONNX, such as an input that no"
        " node computes. In the second case the message quotes ONNX's own checker; bnfold may still read the"
        " model, and other runtimes and tools may refuse it.",
        "If the file is cut off or damaged, copy or download it again. If the graph breaks a rule, export the"
        " model again with a newer version of its exporter, or correct what the message names in the program"
        " that writes the file.",
        _invalid,
        needs="file",
        severity="error",
        always=True,
    ),
    Rule(
        "M303",
        "unsorted",
        "nodes stand before what they read",
        "ONNX demands that nodes are sorted. ONNX Runtime sorts them, other runtimes refuse the file.",
        "Run `bnfold fold IN.onnx --in-place`, which writes them in order.",
        _unsorted,
    ),
    Rule(
        "M304",
        "data-missing",
        "external data is missing",
        "A file that holds weights is not next to the model, or is too short.",
        "Add it to the commit or upload; it belongs to this very version of the model.",
        _problem("M304"),
        needs="file",
        severity="error",
        always=True,
    ),
    Rule(
        "M305",
        "data-outside",
        "external data is outside the model's folder",
        "Such a path can name any file of the machine that loads the model. ONNX forbids it, and so do"
        " runtimes.",
        "Copy the file next to the model and save the model again.",
        _problem("M305"),
        needs="file",
        severity="error",
        always=True,
    ),
    Rule(
        "M306",
        "data-unused",
        "external data is not used",
        "More than 64 KiB in a row of a file of external data belong to no tensor of this model: weights of"
        " an earlier version, or of another model.",
        "Save the model again; `bnfold fold` writes what is used only.",
        _unused,
    ),
)
