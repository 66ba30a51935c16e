"""Repeating the validation of an earlier report, to find out whether it still holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold.contract.contract import Contract
from bnfold.errors import InputError, reason
from bnfold.files.file_kind import sha256
from bnfold.inputs.given import Given
from bnfold.options import Reading
from bnfold.pipeline.contract import as_given, contracted
from bnfold.pipeline.progress import Progress, Stage, silent, within
from bnfold.pipeline.read import Source, read_model
from bnfold.system.environment import versions
from bnfold.validation.validate import Validation, validate

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Replay:
    """An earlier validation and its repetition.

    Attributes:
        report: The report's file.
        validation: The repeated validation; None if the files are not those of the report.
        changes: What has changed, as sentences: files first, then versions, then the outcome.
        holds: Whether the files are the same and the validation has the same outcome.
        models: The original and the folded model as they were read again; None where they were not.
    """

    report: Path
    validation: Validation | None
    changes: tuple[str, ...]
    holds: bool
    models: tuple[Source, Source] | None = None


def models_of(path: Path) -> tuple[Path, ...]:
    """The models that a JSON report compares, so that nothing is written over them.

    Raises:
        InputError: The file is not a report that can be repeated.
    """
    record = _read(path)
    found = (record.get(key) for key in _KEYS[record["command"]])
    return tuple(Path(one["path"]) for one in found if isinstance(one, dict) and "path" in one)


def replay(path: str | os.PathLike[str], *, trust: bool = False, progress: Progress = silent) -> Replay:
    """Repeat the validation of a JSON report, on the same files and with the same settings.

    Args:
        path: The report, written by `bnfold validate --json` or `bnfold export --json`.
        trust: Whether the report's options for reading the model may run code. A report may come from
            anywhere, so without this none of them does.
        progress: Called with each stage and how far it is.

    Raises:
        InputError: The file is not such a report, or its validation cannot be repeated, or would run code
            without `trust`.
        BnfoldError: A model cannot be read or run.
    """
    report = Path(path)
    record = _read(report)
    original, folded = (record.get(key) for key in _KEYS[record["command"]])
    request = (record.get("validation") or {}).get("request")
    if not original or not folded or not request:
        raise InputError(
            f"{report} contains no validation with its settings.",
            "Write the report again: bnfold validate ORIGINAL FOLDED --json FILE",
        )
    moved = (*_changed_files(original), *_changed_files(folded), *_changed_inputs(request["inputs"]))
    if moved:
        return Replay(report, None, (*moved, *_changed_versions(record)), False)
    contract = _contract(record, folded, report)
    before = read_model(original["path"], _reading(original, trust, report), progress=progress)
    after = read_model(folded["path"], progress=progress)
    validation = validate(
        contracted(before.model, contract, None).model,
        after.model,
        **{name: value for name, value in request.items() if name != "inputs"},
        inputs=as_given(_inputs(request["inputs"], report), contract),
        on_progress=within(Stage.VALIDATE, progress),
    )
    passed = record["validation"]["passed"]
    changed = (*_changed_versions(record), *_changed_outcome(passed, validation))
    return Replay(report, validation, changed, validation.passed == passed, (before, after))


_RUN_CODE = ("allow", "arch", "trust")
_KEYS = {"validate": ("original", "folded"), "export": ("source", "output")}


def _read(path: Path) -> Record:
    fix = "Give a file that bnfold validate --json or bnfold export --json wrote."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a report: {reason(error)}.", fix) from error
    if not isinstance(record, dict) or record.get("schema") != "bnfold.report/1":
        raise InputError(f"{path} is not a report of bnfold.", fix)
    if record.get("command") not in _KEYS:
        raise InputError(
            f"{path} is a report of bnfold {record.get('command')}, which contains no validation.", fix
        )
    return record


def _changed_files(model: Record) -> Iterator[str]:
    for file in (model, *model.get("external_data", ())):
        path = Path(file["path"])
        if not path.is_file():
            yield f"{path} does not exist any more."
        elif sha256(path) != file["sha256"]:
            yield f"{path} is not the file that was validated: its SHA-256 has changed."


def _changed_inputs(inputs: Record | None) -> Iterator[str]:
    if not inputs:
        return
    try:
        record = _given(inputs).record()
        now = record["sha256"]
    except InputError as error:  # gone, or of another kind now
        yield error.problem
    else:
        if record.get("labels_sha256") != inputs.get("labels_sha256"):
            yield f"{inputs['labels']} has changed."
        for name, digest in inputs["sha256"].items():
            if now.get(name) != digest:
                yield f"{name} among the inputs of {inputs['path']} has changed, or is gone."
        yield from (
            f"{name} among the inputs of {inputs['path']} is new." for name in now.keys() - inputs["sha256"]
        )


def _changed_versions(record: Record) -> Iterator[str]:
    then, now = record["versions"], versions()
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"{name} was {then.get(name, 'not installed')} and is {now.get(name, 'not installed')}."


def _changed_outcome(passed: bool, validation: Validation) -> Iterator[str]:
    if validation.passed != passed:
        then, now = ("agreed", "disagrees") if passed else ("disagreed", "agrees")
        yield f"The folded model {then} then, and {now} now."


def _reading(model: Record, trust: bool, report: Path) -> Reading:
    """How the model was read."""
    options: Record = model.get("options", {})
    runs = [f"--{name}" for name in _RUN_CODE if options.get(name)]
    if runs and not trust:
        raise InputError(
            f"{report} asks to read {model['path']} with {' and '.join(runs)}, which may run code.",
            "If you trust both files, add --trust.",
        )
    return Reading(**options)


def _contract(record: Record, folded: Record, report: Path) -> Contract:
    """What was changed in the original before the fold."""
    contract = Contract.from_record((record.get("contract") or {}).get("asked", {}))
    if contract.format_of(Path(folded["path"])) == "ort":
        raise InputError(
            f"{report} is of a file in ONNX Runtime's own format, which bnfold does not read.",
            "Export to .onnx, and keep the report of that.",
        )
    return contract


def _inputs(inputs: Record | None, report: Path) -> Given | None:
    if inputs is None:
        return None
    if not inputs:
        raise InputError(
            f"The inputs of {report} were arrays given in Python, which the report does not contain.",
            "Save them with numpy.savez, and validate with --inputs FILE.npz.",
        )
    return _given(inputs)


def _given(inputs: Record) -> Given:
    given: dict[str, Any] = {
        name: tuple(inputs[name]) for name in ("mean", "std", "size") if inputs.get(name)
    }
    if "labels" in inputs:
        given |= {"labels": Path(inputs["labels"]), "top": inputs["top"]}
    return Given(Path(inputs["path"]), **given)
