"""The options of the three commands for a fleet: on the command line, in a manifest, and as keywords.

They travel under their names on the command line without hyphens in front, so that a report can write the
line that repeats one model.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from bnfold.errors import InputError
from bnfold.gate.settings import Settings

Kind: TypeAlias = Literal["flag", "text", "texts", "whole", "number", "object"]


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        kind: What it takes.
        help: What it is for, as a sentence.
        metavar: What stands for its value in the help; empty for a flag.
        keyword: What the function is called with; the option's name with underscores if empty.
        value: What the keyword gets from a flag.
    """

    kind: Kind
    help: str
    metavar: str = ""
    keyword: str = ""
    value: bool = True


_RULES = {
    "select": Option("texts", "Ask these rules only: M101, M2 for all of M2xx, ALL. Repeatable.", "CODES"),
    "extend-select": Option("texts", "Ask these rules as well. Repeatable.", "CODES"),
    "ignore": Option("texts", "Leave these rules out. Repeatable.", "CODES"),
}
_FOLD = {
    "no-batchnorm": Option("flag", "Let BatchNorms that cannot be folded become other operators."),
    "keep": Option("texts", "Leave this BatchNorm as it is. Repeatable.", "NAME"),
    "no-merge": Option(
        "flag", "Merge neither parallel branches nor layers in a row.", keyword="merge", value=False
    ),
    "inline": Option("flag", "Inline model-local functions first.", keyword="inline_functions"),
    "equalize": Option("flag", "Balance the channels of weights by powers of two."),
}
_READ = {
    "input-shape": Option("texts", "Shape of an input, such as 1x3x224x224. Repeatable.", "[NAME=]SHAPE"),
    "dtype": Option("text", "Type of the inputs, such as float16.", "TYPE"),
    "arch": Option("text", "What makes the network for a file of weights; it is run.", "MODULE:FACTORY"),
    "arch-args": Option("object", "Keyword arguments of --arch, as a JSON object.", "JSON"),
    "key": Option("text", "The entry of a checkpoint that holds the model, such as ema.state_dict.", "PATH"),
    "ignore-unexpected": Option("flag", "Leave out weights that the network of --arch does not have."),
    "allow": Option("texts", "A class that a .pt file may use besides torch.nn's. Repeatable.", "CLASS"),
    "trust": Option("flag", "Let .pt files run ANY code on the workers. Only for files that you trust."),
    "dynamic": Option(
        "texts", "Sizes to leave open, such as batch, or 2=height. Repeatable.", "[[INPUT:]AXIS=]NAME"
    ),
}
_VERSIONS = {
    "opset": Option("whole", "ONNX opset of the export.", "N"),
    "ir-version": Option("whole", "IR version of the export.", "N"),
}
_PROVE = {
    "samples": Option("whole", "Number of random inputs of the comparison.", "N"),
    "seed": Option("whole", "Seed of the random inputs.", "N"),
    "tolerance": Option("number", "Largest relative error that passes.", "ERROR"),
    "oracle": Option("text", "Whether the original in float64 is the reference.", "auto|on|off"),
    "rollback": Option("flag", "If a fold turns out wrong, undo it and keep the others."),
    "no-validate": Option(
        "flag", "Write files without comparing the outputs.", keyword="validate", value=False
    ),
}
_TIME = {
    "bench": Option("flag", "Measure the latency, on workers that say that they are quiet."),
    "only-if-faster": Option("flag", "Write a file only if the folded model is faster; needs --bench."),
    "threads": Option("whole", "ONNX Runtime's threads for the timing.", "N"),
    "seconds": Option("number", "Time to measure for.", "SECONDS"),
}
GROUPS: Mapping[str, Mapping[str, Mapping[str, Option]]] = {
    "check": {"Rules": _RULES},
    "fold": {"Folding": _FOLD},
    "export": {
        "Reading PyTorch files": {**_READ, **_VERSIONS},
        "Folding": _FOLD,
        "Proof": _PROVE,
        "Latency": _TIME,
    },
}
"""The options of each command by the titles under which its help shows them."""

OPTIONS: Mapping[str, Mapping[str, Option]] = {
    command: {name: option for group in groups.values() for name, option in group.items()}
    for command, groups in GROUPS.items()
}
"""The options of each command by name."""

FOR_TORCH = frozenset(_READ)
"""Those without a meaning for an ONNX file, which has what they say."""

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")
_LETTERS = re.compile(r"[A-Za-wyz_]+")


def keywords(command: str, given: Mapping[str, Any], *, for_torch: bool = True) -> dict[str, Any]:
    """The options as keywords of the function that does the command, with those that were not given.

    Args:
        command: Of the fleet.
        given: By name; some may be for the whole fleet.
        for_torch: Whether the model is a PyTorch file, and not an ONNX file, for which some have no meaning.
    """
    found: dict[str, Any] = {"bench": False, "validate": True, "rollback": False, "input_shape": None}
    found = found if command == "export" else {}
    for name, option in OPTIONS[command].items():
        if name in given and (for_torch or name not in FOR_TORCH):
            keyword = option.keyword or name.replace("-", "_")
            found[keyword] = option.value if option.kind == "flag" else given[name]
    return found


def settings(known: Settings, given: Mapping[str, Any], inputs: Mapping[str, str]) -> Settings:
    """The settings of a check with the options of a model, and the sizes of its inputs."""
    chosen: dict[str, Any] = {name.replace("-", "_"): tuple(codes) for name, codes in given.items()}
    limits = replace(known.limits, shapes={**known.limits.shapes, **inputs})
    return replace(known, **chosen, limits=limits)


def reading(inputs: Mapping[str, str]) -> dict[str, Any]:
    """How a PyTorch file is exported that is expected to have these inputs: a letter leaves a size open."""
    shapes, dynamic = [], []
    for name, text in inputs.items():
        sizes = text.split("x")
        shapes.append(f"{name}={'x'.join('1' if _LETTERS.fullmatch(size) else size for size in sizes)}")
        dynamic += [f"{name}:{at}={size}" for at, size in enumerate(sizes) if _LETTERS.fullmatch(size)]
    return {"input_shape": shapes, "dynamic": dynamic}


def converted(command: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a manifest's row, each of its kind; those without a value are left out.

    Args:
        command: Of the fleet.
        given: By name; texts where the manifest has nothing else.
        where: For messages, as `"models.csv, row 3"`.

    Raises:
        InputError: One is not an option, or not of its kind.
    """
    found = {}
    for name, value in given.items():
        if value is None or value == "" or value is False:
            continue
        option = OPTIONS[command].get(name)
        if option is None:
            near = difflib.get_close_matches(str(name), OPTIONS[command], 1, 0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(OPTIONS[command])}."
            raise InputError(f"{where}: {name!r} is not an option of bnfold fleet {command}.", hint)
        try:
            value = _CONVERT[option.kind](value)
        except (ValueError, TypeError):
            raise InputError(f"{where}: {name} is {value!r}, and has to be {_WORDS[option.kind]}.") from None
        if command == "check":  # all its options are codes, which may have commas between them
            value = [code.upper() for one in value for code in one.replace(",", " ").split()]
        if value is not False:
            found[name] = value
    return found


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if text not in (*_YES, *_NO):
        raise ValueError
    return text in _YES


def _texts(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value]


def _object(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise TypeError
    return found


_CONVERT: Mapping[Kind, Callable[[Any], Any]] = {
    "flag": _flag,
    "text": str,
    "texts": _texts,
    "whole": int,
    "number": float,
    "object": _object,
}
_WORDS = {
    "flag": "true or false",
    "text": "a text",
    "texts": "a list, or words with spaces between them",
    "whole": "a whole number",
    "number": "a number",
    "object": "a JSON object",
}


def words(given: Mapping[str, Any]) -> str:
    """The options as they are typed."""
    typed: list[str] = []
    for name, value in given.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            text = json.dumps(one) if isinstance(one, dict) else str(one)
            if one is True:
                typed.append(f"--{name}")
            elif text.startswith("-"):  # else it would be taken for an option
                typed.append(f"--{name}={text}")
            else:
                typed += [f"--{name}", text]
    return shlex.join(typed)
