"""A list of models with what is asked of each: JSON lines, CSV or Parquet.

Each row has `model`, an URL or a path relative to the manifest; it may have `inputs`, the sizes that are
expected, and options under their names on the command line, either in `options` or each in a column.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bnfold.errors import InputError, reason
from bnfold.fleet import options, transport
from bnfold.fleet.plan import Model

_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")


def is_manifest(url: str) -> bool:
    """Whether a source is a list of models, by its name."""
    return _bare(url).endswith(_SUFFIXES)


def read(url: str, command: str) -> Iterator[Model]:
    """The models of a manifest; their sizes are not known yet.

    Args:
        url: Where it is.
        command: What its options are for.

    Raises:
        InputError: It cannot be read, a row is not as it has to be, or pyarrow is not installed for Parquet.
    """
    with TemporaryDirectory(prefix="bnfold-fleet-") as scratch:
        file = transport.local(url)
        if file is None:
            file = Path(scratch, "manifest")
            try:
                transport.fetch(url, file)
            except transport.TransportError as error:
                raise InputError(error.problem, "Check the address of the manifest.") from error
        for number, row in enumerate(_rows(url, file), 1):
            yield _model(row, url, command, f"{transport.shown(url)}, row {number}")


def _bare(url: str) -> str:
    """An address up to its query, and without what it is in."""
    return transport.links(url)[0].partition("?")[0]


def _rows(url: str, file: Path) -> Iterator[Any]:
    """The rows of a file, as it is read.

    Args:
        url: Of the manifest; its suffix says what it is.
        file: The manifest, or its copy.

    Raises:
        InputError: It cannot be read.
    """
    name = transport.shown(url)
    try:
        if _bare(url).endswith(".parquet"):
            yield from _parquet(file)
            return
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if _bare(url).endswith(".csv"):
                yield from csv.DictReader(stream)
            else:
                yield from (json.loads(line) for line in stream if line.strip())
    except OSError as error:
        why = "it is not there" if isinstance(error, FileNotFoundError) else reason(error)
        raise InputError(f"{name} cannot be read: {why}.", "Check the address of the manifest.") from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{name} cannot be read: {error}.", "Write a JSON object a line, or CSV.") from error


def _parquet(file: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError("A manifest in Parquet needs pyarrow.", "Type: pip install pyarrow") from None
    with parquet.ParquetFile(file) as table:
        for batch in table.iter_batches():
            yield from batch.to_pylist()


def _model(row: Any, url: str, command: str, where: str) -> Model:
    if not isinstance(row, Mapping) or not isinstance(row.get("model"), str) or not row["model"]:
        raise InputError(f"{where} names no model.", 'Each row has "model": an URL, or a path from here.')
    try:
        os.fsencode(row["model"])
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} names a model that no file can be called: {error.reason}.", "Correct it."
        ) from error
    given = {name: value for name, value in row.items() if name not in ("model", "inputs", "options")}
    try:
        given |= _mapping(row.get("options"))
        inputs = {str(name): str(sizes) for name, sizes in _mapping(row.get("inputs")).items()}
    except ValueError:
        raise InputError(
            f"{where}: options and inputs are JSON objects.",
            'Write inputs as {"image": "Nx3x224x224"} or, in CSV, as image=Nx3x224x224.',
        ) from None
    place = _from(url, row["model"])
    name = row["model"] if place != row["model"] and ".." not in Path(row["model"]).parts else ""
    last = Path(transport.links(place)[0].partition("?")[0]).name or "model"
    return Model(place, name or last, options=options.converted(command, given, where), inputs=inputs)


def _mapping(value: Any) -> dict[str, Any]:
    """An object, or the text of one, or words such as `image=1x3`.

    Raises:
        ValueError: It is none of these.
    """
    if not value:
        return {}
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return dict(word.split("=", 1) for word in value.split())  # raises where there is no =
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ValueError
    return {name: one for name, one in found.items() if one is not None}


def _from(url: str, model: str) -> str:
    """The URL of a model as a manifest names it."""
    if "://" in model or model.startswith("/"):
        return model
    if (here := transport.local(url)) is not None:
        return (here.absolute().parent / model).as_posix()
    first, *rest = transport.links(url)
    return "::".join([f"{first.rpartition('/')[0]}/{model}", *rest])
