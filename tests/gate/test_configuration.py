"""Settings are read from the nearest file, and what is wrong in it is said with what was meant."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bnfold.errors import InputError
from bnfold.gate.configuration import Configuration, find, load, nearest, schema
from bnfold.gate.settings import Limits, Settings, Source, ValidationSettings
from bnfold.options import Reading

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "bnfold.schema.json"
EVERYTHING = """
include = ["*.onnx"]
exclude = ["old"]
extend-exclude = ["models/drafts"]
force-exclude = true
respect-gitignore = false
select = ["M1", "M301"]
extend-select = ["ALL"]
ignore = ["M103"]
targets = ["tensorrt"]

[per-file-ignores]
"old/*" = ["M1"]

[limits]
opset = 17
ir-version = 8
bytes = "1.5 MB"
parameters = 1000
nodes = 10
operators = ["Conv"]
domains = []
shapes = { "image*" = "Nx3x*x224" }

[sources]
"a.onnx" = "train/a.pt"

[sources."b.onnx"]
file = "b.pt"
input-shape = ["x=1x3", "y=1"]
dtype = "float16"
arch = "package.module:factory"
arch-args = { classes = 3 }
key = "ema"
allow = ["a.B"]
trust = false
opset = 18
ir-version = 9
dynamic = "batch"
ignore-unexpected = true

[validation]
inputs = "data.npz"
samples = 2
seed = 7
"""


def written(folder: Path, text: str, name: str = "bnfold.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def refused(folder: Path, text: str, name: str = "bnfold.toml") -> InputError:
    file = written(folder, text, name)
    with pytest.raises(InputError) as caught:
        load(file)
    assert caught.value.problem.startswith(f"{file}")
    return caught.value


def test_every_setting_is_read(tmp_path: Path) -> None:
    found = load(written(tmp_path, EVERYTHING))
    reading: dict[str, Any] = {
        "input_shape": ("x=1x3", "y=1"),
        "dtype": "float16",
        "arch": "package.module:factory",
        "arch_args": {"classes": 3},
        "key": "ema",
        "allow": ("a.B",),
        "trust": False,
        "opset": 18,
        "ir_version": 9,
        "dynamic": "batch",
        "ignore_unexpected": True,
    }
    assert found.settings == Settings(
        include=("*.onnx",),
        exclude=("old",),
        extend_exclude=("models/drafts",),
        force_exclude=True,
        respect_gitignore=False,
        select=("M1", "M301"),
        extend_select=("ALL",),
        ignore=("M103",),
        targets=("tensorrt",),
        per_file_ignores={"old/*": ("M1",)},
        limits=Limits(17, 8, 1_500_000, 1000, 10, ("Conv",), (), {"image*": "Nx3x*x224"}),
        sources={
            "a.onnx": Source(tmp_path / "train/a.pt"),
            "b.onnx": Source(tmp_path / "b.pt", reading),
        },
        validation=ValidationSettings(tmp_path / "data.npz", 2, 7),
    )
    assert Reading(**reading)
    assert (found.root, found.file) == (tmp_path, tmp_path / "bnfold.toml")


def test_the_text_above_has_every_key_and_so_has_the_schema() -> None:
    table = tomllib.loads(EVERYTHING)
    jsonschema.validate(table, schema())
    properties = schema()["properties"]
    assert table.keys() == properties.keys() == _keys(Settings)
    assert table["limits"].keys() == properties["limits"]["properties"].keys() == _keys(Limits)
    assert properties["validation"]["properties"].keys() == _keys(ValidationSettings)
    source = properties["sources"]["additionalProperties"]["oneOf"][1]
    assert table["sources"]["b.onnx"].keys() == source["properties"].keys() == {"file"} | _keys(Reading)
    nested = (properties, properties["limits"]["properties"], properties["validation"]["properties"])
    for keys in (*nested, source["properties"]):
        assert all(one["description"].endswith(".") for one in keys.values())


def _keys(made: type) -> set[str]:
    return {field.name.replace("_", "-") for field in fields(made)}


def test_the_schema_for_editors_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), (
        "type: python -c 'import json; from bnfold.gate.configuration import schema;"
        " print(json.dumps(schema(), indent=2))' > docs/bnfold.schema.json"
    )


@pytest.mark.parametrize("code", ["m101", "M101", "m2", "all", "All", "ALL"])
def test_codes_are_taken_in_any_case_by_the_schema_too(tmp_path: Path, code: str) -> None:
    text = f'select = ["{code}"]\nignore = ["{code}"]\n[per-file-ignores]\n"a.onnx" = ["{code}"]\n'
    jsonschema.validate(tomllib.loads(text), schema())
    found = load(written(tmp_path, text)).settings
    assert found.select == found.ignore == found.per_file_ignores["a.onnx"] == (code.upper(),)


@pytest.mark.parametrize("size", ["100", "100 MB", "1.5 GiB", "3kb", "7b", "1 K", "2M", "5 XB", "G"])
def test_the_schema_takes_the_sizes_that_are_read(tmp_path: Path, size: str) -> None:
    text = f'[limits]\nbytes = "{size}"\n'
    by_schema = jsonschema.Draft7Validator(schema()).is_valid(tomllib.loads(text))
    try:
        load(written(tmp_path, text))
    except InputError:
        assert not by_schema
    else:
        assert by_schema


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ('selekt = ["M1"]', "'selekt' is not a setting of bnfold", "Did you mean select?"),
        ("per_file_ignores = {}", "'per_file_ignores' is not a setting", "Did you mean per-file-ignores?"),
        ("[limits]\nopsett = 3", "'opsett' is not a setting of limits", "Did you mean opset?"),
        ("[validation]\nsample = 3", "'sample' is not a setting of validation", "Did you mean samples?"),
        ('[sources.a]\nfile = "a.pt"\ninput_shape = "1"', "of a source", "Did you mean input-shape?"),
        ("[limits]\nzzz = 3", "'zzz' is not", "Known are opset, ir-version"),
        ('select = "M101"', "select takes a list of codes", ""),
        ("select = [101]", "select takes a list of codes", ""),
        ('select = ["M110"]', "'M110' is not the code of a rule", "Did you mean M"),
        ('select = ["m110"]', "'m110' is not the code of a rule", "Did you mean M"),
        ('select = [""]', "'' is not the code of a rule", ""),
        ('[per-file-ignores]\n"*.pt" = ["X1"]', "'X1' is not the code of a rule", ""),
        ('per-file-ignores = ["M1"]', "per-file-ignores takes lists of codes by patterns", ""),
        ('[per-file-ignores]\n"*.pt" = "M1"', "per-file-ignores takes lists of codes by patterns", ""),
        ("limits = 3", "limits takes a table", ""),
        ('[limits]\nopset = "17"', "opset takes a whole number that is not negative, and is '17'", ""),
        ("[limits]\nopset = true", "opset takes a whole number", ""),
        ("[limits]\nopset = -1", "opset takes a whole number", ""),
        ("[limits]\nopset = 17.0", "opset takes a whole number", ""),
        ('[limits]\nbytes = "many"', "bytes takes a number of bytes, or a size", ""),
        ('[limits]\nbytes = "3 parsecs"', "bytes takes a number of bytes, or a size", ""),
        ("[limits]\nbytes = -3", "bytes takes a number of bytes, or a size", ""),
        ("[limits]\nbytes = 1.5", "bytes takes a number of bytes, or a size", ""),
        ('[limits]\nshapes = { x = "1, 3" }', "shapes takes shapes by the names of inputs", ""),
        ("[limits]\nshapes = { x = [1, 3] }", "shapes takes shapes by the names of inputs", ""),
        ("[sources]\na = 3", "sources takes sources by patterns", ""),
        ('[sources.a]\nkey = "ema"', "a source has no file", '"models/net.onnx" = "training/net.pt"'),
        ("[sources.a]\nfile = 3", "file takes a text", ""),
        ('[sources.a]\nfile = "a"\ntrust = "yes"', "trust takes true or false", ""),
        ("[validation]\ninputs = 3", "inputs takes a file or a folder", ""),
        ("select = [", "cannot be read", "Correct the file"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_meant(tmp_path: Path, text: str, problem: str, fix: str) -> None:
    error = refused(tmp_path, text)
    assert problem in error.problem
    assert error.problem.endswith(".")
    assert fix in error.fix
    if "cannot be read" not in problem:
        table = tomllib.loads(text)
        if "M110" not in text.upper() and "17.0" not in text:  # it takes 17.0 for 17
            assert list(jsonschema.Draft7Validator(schema()).iter_errors(table))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ('"7"', 7),
        ('"7 b"', 7),
        ('"100 MB"', 10**8),
        ('"1.5GiB"', 3 * 2**29),
        ('"2KiB"', 2048),
        ('"3 GB"', 3 * 10**9),
    ],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    given = f"[limits]\nbytes = {text}"
    jsonschema.validate(tomllib.loads(given), schema())
    assert load(written(tmp_path, given)).settings.limits.bytes == size


def test_a_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "bnfold.toml")


def test_the_nearest_file_upwards_counts(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b" / "c"
    below.mkdir(parents=True)
    top = written(tmp_path, 'ignore = ["M101"]', "bnfold.toml")
    assert find(below) == top
    near = written(tmp_path / "a", '[tool.bnfold]\nignore = ["M102"]', "pyproject.toml")
    assert nearest(below) == Configuration(Settings(ignore=("M102",)), tmp_path / "a", near)
    written(tmp_path / "a" / "b", "[project]\nname = 'other'", "pyproject.toml")
    assert find(below) == near
    assert find(tmp_path) == top


def test_in_one_folder_the_file_of_its_own_goes_before_pyproject(tmp_path: Path) -> None:
    written(tmp_path, '[tool.bnfold]\nignore = ["M102"]', "pyproject.toml")
    assert find(tmp_path) == tmp_path / "pyproject.toml"
    hidden = written(tmp_path, "", ".bnfold.toml")
    assert find(tmp_path) == hidden
    own = written(tmp_path, "", "bnfold.toml")
    assert find(tmp_path) == own
    assert load(own).settings == Settings()


def test_an_empty_table_of_pyproject_ends_the_search(tmp_path: Path) -> None:
    file = written(tmp_path, "[tool.bnfold]", "pyproject.toml")
    assert nearest(tmp_path) == Configuration(Settings(), tmp_path, file)


@pytest.mark.parametrize("value", ["3", "0", '""', '["M1"]'])
def test_what_is_no_table_is_said(tmp_path: Path, value: str) -> None:
    error = refused(tmp_path, f"[tool]\nbnfold = {value}", "pyproject.toml")
    assert "has to be a table" in error.problem


def test_without_a_file_the_folder_itself_is_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnfold.gate.configuration.FILES", ("no-such-file.toml",))
    assert nearest(tmp_path) == Configuration(Settings(), tmp_path)


def test_the_root_is_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named relative to it would not be in it otherwise."""
    written(tmp_path, "")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert load(Path("../bnfold.toml")).root == tmp_path
