"""One model: what `check`, `fold` or `export` finds out about it. This runs in a process of its own.

It knows files and nothing of where they came from, of engines, or of other models. What is read here may be
hostile: the answer is plain data.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bnfold.errors import BnfoldError, ExternalDataError, MissingExtraError, reason
from bnfold.fleet import advice, options
from bnfold.gate.settings import Settings
from bnfold.options import PLAIN

if TYPE_CHECKING:
    from bnfold.pipeline.exported import Export
    from bnfold.result import FoldResult

Answer: TypeAlias = dict[str, Any]

_MODULES = (
    *("bnfold.gate.rules", "bnfold.gate.subject", "bnfold.graph.facts"),
    *("bnfold.pipeline.export", "bnfold.pipeline.fold_file", "bnfold.latency.optimized_graph"),
)
"""What nearly every model needs."""

_NO_MEMORY = re.compile("bad_alloc|[Ff]ailed to allocate memory")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_MODEL = "\0"  # stands for the model's name, in which no folder is left out


@dataclass(frozen=True)
class Job:
    """One model and what is asked about it.

    Attributes:
        command: `"check"`, `"fold"` or `"export"`.
        file: The model.
        name: What findings call it.
        target: The file to write; nothing is there yet.
        options: Of the command, as in `Plan.options`.
        inputs: The sizes of inputs that are expected.
        settings: What `check` demands.
        cache: The folder of answers that `bnfold check` keeps.
        is_complete: Whether every file is here that the model needs and its source has.
    """

    command: str
    file: Path
    name: str
    target: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    cache: Path | None = None
    is_complete: bool = True


def prepare() -> None:
    """Load what every call needs, before any is made."""
    import importlib

    from bnfold.gate.run import deciding

    deciding()
    for module in _MODULES:
        importlib.import_module(module)
    with contextlib.suppress(ImportError):
        importlib.import_module("onnxruntime")


def one(job: Job) -> Answer:
    """Do what is asked of one model, whatever happens on the way.

    Returns:
        `{"wants": [...]}` with the names of further files where the model is not whole without them.
        Otherwise `state`, which is `"done"`, `"needs"` (`next` says which command and options), `"failed"` or
        `"unable"` (a package or space is missing here), and what was found out.
    """
    try:
        if not job.is_complete and (names := needed(job.file)[1]):
            return {"wants": names}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of readers, about the file
            return {"state": "done"} | _DO[job.command](job)
    except MissingExtraError as error:
        return {"state": "unable", "why": f"{error.problem} {error.fix}"}
    except MemoryError:
        raise
    except BnfoldError as error:
        if _is_out_of_space(error):
            return {"state": "unable", "why": f"{error.problem} {error.fix}"}
        return _needs(job, error) or _failed(job, f"{error.problem} {error.fix}".strip())
    except Exception as error:  # a fault of bnfold's in one model says nothing of the others
        return _failed(job, f"bnfold did not foresee {type(error).__name__}: {reason(error)}")


def _is_out_of_space(error: BaseException | None) -> bool:
    """Whether it was a full disk, which says nothing of the model."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _needs(job: Job, error: BnfoldError) -> Answer | None:
    """What a model needs that a message asks to add, if it does."""
    if not (further := advice.asked(error)):
        return None
    why = _without_folder(f"{error.problem} {error.fix}", job)
    return {"state": "needs", "why": why, **_next(further), **_files(job), **_content(job)}


def _next(further: Mapping[str, Any]) -> Answer:
    return {"next": {"command": "export", "options": dict(further)}}


def _torch_in_fold(job: Job) -> Answer:
    """Of a PyTorch file, which only `export` reads: what that will need, found out without exporting it."""
    why = "`fold` takes ONNX files only; `export` takes this PyTorch file."
    asks: Mapping[str, Any] = {}
    try:
        from bnfold.torch.export.example_inputs import example_inputs, parse_shapes
        from bnfold.torch.read.load import load_as

        shapes = options.reading(job.inputs)["input_shape"]
        example_inputs(load_as(job.file, PLAIN), parse_shapes(shapes))
    except MissingExtraError as error:
        why += f" {error.problem} {error.fix}"
    except BnfoldError as error:
        if not (asks := advice.asked(error)):
            raise
        why += f" {_without_folder(error.problem, job)} {error.fix}"
    return {"state": "needs", "why": why, **_next(asks), **_files(job), **_content(job)}


def _failed(job: Job, why: str) -> Answer:
    """What is known of a model of which nothing else could be found out.

    Raises:
        MemoryError: What says so in C++ has said so.
    """
    if _NO_MEMORY.search(why):
        raise MemoryError(why)
    return {"state": "failed", "why": _without_folder(why, job), **_files(job), **_content(job)}


def needed(file: Path) -> tuple[set[Path], list[str]]:
    """The files without which a model is not whole: those that are there, and the names of the others.

    Only files in the folder of the model count, and below it.
    """
    import onnx_ir as ir

    from bnfold.files.external_data import data_files
    from bnfold.files.load import load_onnx
    from bnfold.files.weight_index import is_index

    folder, found = file.parent.absolute(), set[Path]()
    with contextlib.suppress(Exception):  # what cannot be read is asked about later, and said
        if is_index(file):
            found = {folder / name for name in json.loads(file.read_bytes())["weight_map"].values()}
        else:
            try:
                found = {path.absolute() for path in data_files(load_onnx(file))}
            except ExternalDataError:
                found = {folder / path for path in data_files(ir.load(file))}
    inside = [path for path in found if path.is_relative_to(folder) and ".." not in path.parts]
    there = {path for path in inside if path.is_file()}
    return there, sorted(path.relative_to(folder).as_posix() for path in inside if path not in there)


def _check(job: Job) -> Answer:
    from bnfold.gate.cache import Cache
    from bnfold.gate.run import deciding
    from bnfold.gate.subject import Subject
    from bnfold.gate.work import Job as Asked
    from bnfold.gate.work import recall

    settings = options.settings(job.settings, job.options, job.inputs)
    source = settings.source(job.name)
    asked = Asked(job.file, job.name, settings.codes(job.name), settings, source)
    subject = Subject(job.file, settings, source)
    findings = recall(asked, Cache(job.cache), deciding(), subject).findings
    known = _of_fold(subject.folded) if subject.problem is None and subject.is_onnx else {}
    return {
        "verdict": "findings" if any(one.severity != "note" for one in findings) else "passed",
        "findings": [
            {
                "code": one.code,
                "severity": one.severity,
                "message": _without_folder(one.found.headline, job),
                "sites": list(one.found.sites),
            }
            for one in findings
        ],
        **known,
        **_files(job),
        **_content(job),
    }


def _fold(job: Job) -> Answer:
    from bnfold.pipeline.fold_file import fold_file
    from bnfold.pipeline.read import is_torch

    if is_torch(job.file):
        return _torch_in_fold(job)
    done = fold_file(job.file, job.target, **options.keywords("fold", job.options))
    verdict = "folded" if done.fold.folded or done.fold.merges or done.fold.joins else "unchanged"
    return {"verdict": verdict, **_of_export(done), **_files(job), **_content(job)}


def _export(job: Job) -> Answer:
    from bnfold.pipeline.export import export
    from bnfold.pipeline.exported import ExportDisagreementError, NotFasterError
    from bnfold.pipeline.read import is_torch

    is_for_torch = is_torch(job.file)
    given = options.keywords("export", job.options, for_torch=is_for_torch)
    if given["validate"] is False and given["rollback"]:
        raise BnfoldError("rollback needs the comparison of the outputs, which no-validate leaves out.")
    if is_for_torch and job.inputs and not given["input_shape"]:
        given |= options.reading(job.inputs)
    try:
        done = export(job.file, job.target, **given)
    except ExportDisagreementError as error:
        found, why = error.export, error.cause
        return {"verdict": "disagrees", "why": why, **_of_export(found), **_files(job), **_content(job)}
    except NotFasterError as error:
        return {"verdict": "not faster", **_of_export(error.export), **_files(job), **_content(job)}
    verdict = "exported" if done.validation is None else "proved"
    return {"verdict": verdict, **_of_export(done), **_files(job), **_content(job)}


_DO = {"check": _check, "fold": _fold, "export": _export}


def _of_export(done: Export) -> Answer:
    latency = [
        {
            "provider": benchmark.provider,
            "verdict": row.verdict,
            "ratio": row.ratio if math.isfinite(row.ratio) else None,
        }
        for benchmark in done.benchmarks
        for row in benchmark.defaults
    ]
    return {**_of_fold(done.fold), "latency": latency, "rolled_back": len(done.rolled_back)}


def _of_fold(result: FoldResult[Any]) -> Answer:
    """What a fold did, in numbers, and why BatchNorms stay."""
    batchnorms = [site for site in result.sites if site.op_type == "BatchNormalization"]
    stay = [site for site in batchnorms if site.status == "kept"]
    return {
        "batchnorms": {"before": len(batchnorms), "after": len(stay)},
        "nodes": {"before": result.nodes_before, "after": result.nodes_after},
        "reasons": dict(sorted(Counter(site.reason.code for site in stay if site.reason).items())),
    }


def _files(job: Job) -> Answer:
    """The sizes with external data, and the names of the further files that the answer rests on."""
    there, absent = needed(job.file)
    written = list(job.target.parent.iterdir()) if job.target.is_file() else []
    folder = job.file.parent.absolute()
    return {
        "bytes": {"before": _size(job.file, *there), "after": _size(*written) if written else None},
        "needs": sorted([*(path.relative_to(folder).as_posix() for path in there), *absent]),
    }


def _size(*files: Path) -> int:
    return sum(file.stat().st_size for file in files)


def _content(job: Job) -> Answer:
    """What the model holds, as a hash, and the name of the answer: a hash of all that decides it."""
    from bnfold.gate.cache import Cache, key
    from bnfold.gate.run import deciding

    digest = Cache(job.cache).digest(job.file)
    asked = (job.command, dict(job.options), dict(job.inputs), job.settings, deciding(), digest)
    return {"content": digest, "key": key(asked)}


def _without_folder(text: str, job: Job) -> str:
    """A message that names the model as people know it, and not the place where it was copied to."""
    text = text.replace(str(job.file), _MODEL)
    for folder in (job.file.parent, job.target.parent):
        text = text.replace(f"{folder}/", "")
    return text.replace(_MODEL, job.name)
