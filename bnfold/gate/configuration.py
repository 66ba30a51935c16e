"""Reading the settings from `bnfold.toml` or `pyproject.toml`, and their JSON schema.

Each key stands once, with what it takes; the schema for editors and the check of a file are both made
from there.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from bnfold.errors import InputError
from bnfold.gate.settings import Limits, Settings, Source, ValidationSettings

FILES = ("bnfold.toml", ".bnfold.toml", "pyproject.toml")
Schema: TypeAlias = dict[str, Any]
_SIZE_OF_A_SHAPE = r"(?:\*|\d+|[A-Za-wyz_]+)"
_SHAPE = rf"^(?:{_SIZE_OF_A_SHAPE}(?:x{_SIZE_OF_A_SHAPE})*)?$"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Configuration:
    """Settings, and where they come from.

    Attributes:
        settings: What is configured.
        root: The folder that paths of findings, and patterns, are relative to.
        file: The file; None where there is none.
    """

    settings: Settings
    root: Path
    file: Path | None = None


@dataclass(frozen=True)
class _Kind:
    """What a key takes: its schema, words for it, and a conversion that raises ValueError or TypeError."""

    schema: Schema
    words: str
    convert: Callable[[Any, Path], Any]


@dataclass(frozen=True)
class _Key:
    """A key of a table: what it takes, and what it is for, as a sentence."""

    kind: _Kind
    description: str


def find(start: Path) -> Path | None:
    """The nearest file with settings, from a folder upwards; a `pyproject.toml` counts if it has the table.

    Raises:
        InputError: A file on the way cannot be read as TOML.
    """
    for folder in (start, *start.parents):
        for name in FILES:
            file = folder / name
            if file.is_file() and (name != "pyproject.toml" or _table(file) is not None):
                return file
    return None


def nearest(folder: Path) -> Configuration:
    """The settings that are nearest to a folder, upwards; without any, those of the default, for that folder.

    Raises:
        InputError: A file cannot be read, or holds what is not a setting.
    """
    file = find(folder)
    return load(file) if file else Configuration(Settings(), folder)


def load(file: Path) -> Configuration:
    """The settings of a file.

    Raises:
        InputError: It cannot be read, or holds what is not a setting.
    """
    folder = Path(os.path.abspath(file)).parent  # noqa: PTH100 - a link stays where it is
    table = _table(file)
    return Configuration(_settings({} if table is None else table, file, folder), folder, file)


def schema() -> Schema:
    """The JSON schema of the settings, for editors."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of bnfold check (bnfold.toml, or tool.bnfold in pyproject.toml)",
        **_TOP.schema,
    }


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {error}.", "Correct the file, or name another with --config."
        ) from error
    found: Mapping[str, Any] | None = table
    if file.name == "pyproject.toml":
        tool = table.get("tool", {})
        found = tool.get("bnfold") if isinstance(tool, dict) else None
    return found


def _settings(table: Mapping[str, Any], file: Path, folder: Path) -> Settings:
    try:
        settings: Settings = _TOP.convert(table, folder)
    except _WrongError as error:
        raise InputError(f"{file}: {error.what}.", error.fix) from None
    except InputError as error:
        raise InputError(f"{file}: {error.problem}", error.fix) from None
    except TypeError:
        raise InputError(
            f"{file}: bnfold is {table!r}, and has to be a table.", "Write [tool.bnfold]."
        ) from None
    return settings


class _WrongError(Exception):
    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def _one_of(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError
    return value


def _of(kind: type, words: str, schema: Schema) -> _Kind:
    return _Kind(schema, words, lambda value, _: _one_of(value, kind))


def _count(value: Any, _: Path) -> int:
    if type(value) is not int:
        raise TypeError
    if value < 0:
        raise ValueError
    return value


def _shape(value: Any, _: Path) -> str:
    if re.fullmatch(_SHAPE, value) is None:
        raise ValueError
    return str(value)


def _texts(value: Any, _: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError
    return tuple(value)


def _codes(value: Any, folder: Path) -> tuple[str, ...]:
    return tuple(map(check_code, _texts(value, folder)))


def _targets(value: Any, folder: Path) -> tuple[str, ...]:
    return targets(_texts(value, folder), folder)


def targets(names: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Targets by the names of their profiles, each once, and files of such by their whole path.

    Args:
        names: Of profiles, or of TOML files that hold one.
        folder: What the paths of files are relative to.

    Raises:
        InputError: There is none of a name, or a file is not a profile.
    """
    from bnfold.targets.profile import load

    found = tuple(str(folder / name) if name.endswith(".toml") else name for name in names)
    loaded = tuple(map(load, found))
    named = (
        one if one.endswith(".toml") else profile.name for one, profile in zip(found, loaded, strict=True)
    )
    return tuple(dict.fromkeys(named))


def check_code(code: str) -> str:
    """The code of a rule, or the beginning of one, in upper case.

    Raises:
        InputError: It is neither; the fix names the nearest.
    """
    from bnfold.gate.rules import RULES

    written = code.upper()
    if written != "ALL" and not (code and any(known.startswith(written) for known in RULES)):
        near = difflib.get_close_matches(written, RULES, 3, 0.5)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"{code!r} is not the code of a rule.", f"{hint}bnfold explain --rules lists them.")
    return written


def _bytes(value: Any, folder: Path) -> int:
    if type(value) is int:
        return _count(value, folder)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _source(value: Any, folder: Path) -> Source:
    if isinstance(value, str):
        return Source(folder / value)
    keys = {"file": _Key(_TEXT, "The PyTorch or ONNX file."), **_READING}
    given = _given(value, folder, keys, "a source")
    if "file" not in given:
        raise _WrongError("a source has no file", 'Write it as "models/net.onnx" = "training/net.pt".')
    return Source(folder / given.pop("file"), given)


def _given(table: Any, folder: Path, keys: Mapping[str, _Key], where: str) -> dict[str, Any]:
    """What a table holds, by the names of fields.

    Raises:
        TypeError: It is not a table.
        _WrongError: A key is not known, or holds what it does not take.
    """
    if not isinstance(table, dict):
        raise TypeError
    given = {}
    for key, value in table.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1, 0.5)
            fix = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(keys)}."
            raise _WrongError(f"{key!r} is not a setting of {where}", fix)
        try:
            given[key.replace("-", "_")] = keys[key].kind.convert(value, folder)
        except (TypeError, ValueError):
            raise _WrongError(f"{key} takes {keys[key].kind.words}, and is {value!r}") from None
    return given


def _properties(keys: Mapping[str, _Key]) -> Schema:
    return {key: {"description": one.description, **one.kind.schema} for key, one in keys.items()}


def _mapping(of: _Kind, words: str) -> _Kind:
    def convert(value: Any, folder: Path) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError
        return {key: of.convert(one, folder) for key, one in value.items()}

    return _Kind({"type": "object", "additionalProperties": of.schema}, words, convert)


def _made(made: type, keys: Mapping[str, _Key], where: str) -> _Kind:
    def convert(value: Any, folder: Path) -> Any:
        return made(**_given(value, folder, keys, where))

    schema = {"type": "object", "additionalProperties": False, "properties": _properties(keys)}
    return _Kind(schema, "a table", convert)


_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_TEXTS = _Kind(_STRINGS, "a list of texts", _texts)
_CODES = _Kind(
    {"type": "array", "items": {"type": "string", "pattern": r"^([Aa][Ll][Ll]|[Mm]\d{0,3})$"}},
    'a list of codes or their beginnings, such as "M101", "M2" or "ALL"',
    _codes,
)
_TARGETS = _Kind(_STRINGS, 'a list of targets, such as "tensorrt"', _targets)
_COUNT = _Kind({"type": "integer", "minimum": 0}, "a whole number that is not negative", _count)
_TEXT = _of(str, "a text", {"type": "string"})
_TRUTH = _of(bool, "true or false", {"type": "boolean"})
_SIZE = _Kind(
    {"type": ["integer", "string"], "minimum": 0, "pattern": r"^\d+(\.\d+)?\s*(([KMGkmg][Ii]?)?[Bb])?$"},
    'a number of bytes, or a size such as "100 MB" or "1.5 GiB"',
    _bytes,
)
_SHAPED = _Kind({"type": "string", "pattern": _SHAPE}, 'a shape such as "Nx3x224x224"', _shape)
_TEXT_OR_TEXTS = _Kind(
    {"oneOf": [{"type": "string"}, _STRINGS]},
    "a text, or a list of texts",
    lambda value, folder: value if isinstance(value, str) else _texts(value, folder),
)
_TEXT_OR_TABLE = _Kind(
    {"type": ["string", "object"]}, "a text, or a table", lambda value, _: _one_of(value, str, dict)
)
_READING = {
    "input-shape": _Key(_TEXT_OR_TEXTS, 'The shape of its input, as "1x3x224x224", or of several by name.'),
    "dtype": _Key(_TEXT, 'The type of its inputs, as "float16", or types by name.'),
    "arch": _Key(_TEXT, "What makes the network for a file of weights; it is imported and run."),
    "arch-args": _Key(_TEXT_OR_TABLE, "Keyword arguments of `arch`, or a JSON object that holds them."),
    "key": _Key(
        _TEXT, 'Which entry of a checkpoint holds the model: its keys joined by dots, as "ema.state_dict".'
    ),
    "allow": _Key(_TEXTS, "Classes that a pickle may use in addition to torch.nn's."),
    "trust": _Key(_TRUTH, "Whether a pickle may run any code while it is read."),
    "opset": _Key(_COUNT, "The ONNX opset of the export."),
    "ir-version": _Key(_COUNT, "The IR version of the export."),
    "dynamic": _Key(_TEXT_OR_TEXTS, 'Sizes of the inputs to leave open, such as "batch".'),
    "ignore-unexpected": _Key(_TRUTH, "Whether weights that `arch` does not have are left out."),
}
"""The options of `bnfold export`, as fields of [`Reading`][bnfold.options.Reading] with hyphens."""
_SOURCE = _Kind(
    {
        "oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {"description": "The PyTorch or ONNX file.", "type": "string"},
                    **_properties(_READING),
                },
            },
        ]
    },
    "a file, or a table with `file` and the options of `bnfold export`",
    _source,
)
_LIMITS = _made(
    Limits,
    {
        "opset": _Key(_COUNT, "The largest opset of ONNX's own operators (M307)."),
        "ir-version": _Key(_COUNT, "The largest IR version (M308)."),
        "shapes": _Key(
            _mapping(_SHAPED, "shapes by the names of inputs"),
            "The shapes of inputs by patterns of their names (M309): a number is that size, a letter an open"
            " size, * either.",
        ),
        "domains": _Key(_TEXTS, "The domains whose operators may occur next to ONNX's own (M310)."),
        "bytes": _Key(_SIZE, "The largest size of a model with its external data (M311)."),
        "parameters": _Key(_COUNT, "The largest number of elements of all weights (M312)."),
        "nodes": _Key(_COUNT, "The largest number of nodes (M313)."),
        "operators": _Key(
            _TEXTS, 'The only operators that may occur, as "Conv" or "com.microsoft::Gelu" (M314).'
        ),
    },
    "limits",
)
_VALIDATION = _made(
    ValidationSettings,
    {
        "inputs": _Key(
            _Kind(
                {"type": "string"}, "a file or a folder", lambda value, folder: folder / _one_of(value, str)
            ),
            "Data to run on, as `bnfold validate --inputs` takes it; random data otherwise.",
        ),
        "samples": _Key(_COUNT, "How many random inputs."),
        "seed": _Key(_COUNT, "Of the random inputs."),
    },
    "validation",
)
_TOP = _made(
    Settings,
    {
        "include": _Key(_TEXTS, "Which files of a folder are models, as patterns of their names."),
        "exclude": _Key(
            _TEXTS,
            "Which files and folders are passed over, as patterns of their names, or of their paths where a"
            " pattern has a slash.",
        ),
        "extend-exclude": _Key(_TEXTS, "Files and folders that are passed over as well."),
        "force-exclude": _Key(_TRUTH, "Whether they are passed over also where they are named themselves."),
        "respect-gitignore": _Key(_TRUTH, "Whether what git ignores in a folder is passed over."),
        "select": _Key(_CODES, "The rules that are asked, in place of those of the default."),
        "extend-select": _Key(_CODES, "Rules that are asked as well."),
        "ignore": _Key(_CODES, "Rules that are not asked."),
        "per-file-ignores": _Key(
            _mapping(_CODES, "lists of codes by patterns of paths"),
            "Rules that are not asked of some files, by patterns of their paths or names; a folder stands for"
            " all in it.",
        ),
        "limits": _Key(_LIMITS, "What a model may not exceed."),
        "targets": _Key(
            _TARGETS, "What models are for, as `bnfold targets` lists it, or TOML files of such."
        ),
        "sources": _Key(
            _mapping(_SOURCE, "sources by patterns of paths"),
            "What models were made from, by patterns of their paths or names (M401).",
        ),
        "validation": _Key(_VALIDATION, "How models are run where they are compared."),
    },
    "bnfold",
)
