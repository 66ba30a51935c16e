"""What is demanded of models: the tables of `bnfold.toml`, or of `[tool.bnfold]` in `pyproject.toml`."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a model may not exceed; what is None or empty is not asked.

    Attributes:
        opset: The largest opset of ONNX's own operators.
        ir_version: The largest IR version.
        bytes: The largest size of a model with its external data, in bytes.
        parameters: The largest number of elements of all weights.
        nodes: The largest number of nodes.
        operators: The only operators that may occur, as `"Conv"` or `"com.microsoft::Gelu"`.
        domains: The domains whose operators may occur, next to ONNX's own two.
        shapes: The sizes of inputs by the patterns of their names, as `{"image*": "Nx3x224x224"}`: a number
            is that size, a letter an open size, and `*` either.
    """

    opset: int | None = None
    ir_version: int | None = None
    bytes: int | None = None
    parameters: int | None = None
    nodes: int | None = None
    operators: tuple[str, ...] = ()
    domains: tuple[str, ...] | None = None
    shapes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """What a model was made from.

    Attributes:
        file: The PyTorch or ONNX file.
        reading: How it is read, as the keywords of `bnfold.options.Reading`.
    """

    file: Path
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationSettings:
    """How models are run where they are compared.

    Attributes:
        inputs: Data to run on; None for random data.
        samples: How many random inputs.
        seed: Of the random inputs.
    """

    inputs: Path | None = None
    samples: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """All that is configured.

    Attributes:
        include: Which files of a folder are models, as patterns of names.
        exclude: Which files and folders of a folder are passed over, by patterns of names, or of paths where
            a pattern has a slash.
        extend_exclude: More of them.
        force_exclude: Whether they are passed over also where they are named themselves.
        respect_gitignore: Whether what git ignores in a folder is passed over.
        select: Codes of rules, or beginnings of codes, that are asked; empty for the rules of the default.
            Whether a file can be read at all is asked in any case.
        extend_select: Codes that are asked as well.
        ignore: Codes that are not asked.
        per_file_ignores: Codes that are not asked, by patterns of paths.
        limits: What a model may not exceed.
        targets: What models are for: names of profiles, or TOML files that hold one. Their rules are asked
            whatever is selected.
        sources: What models were made from, by patterns of paths.
        validation: How models are run where they are compared.
    """

    include: tuple[str, ...] = (*("*.onnx", "*.pt", "*.pth", "*.pt2", "*.ckpt", "*.safetensors"),)
    exclude: tuple[str, ...] = (".*", "node_modules", "__pycache__", "site-packages")
    extend_exclude: tuple[str, ...] = ()
    force_exclude: bool = False
    respect_gitignore: bool = True
    select: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    targets: tuple[str, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def codes(self, path: str) -> tuple[str, ...]:
        """The rules that are asked about a file, by code.

        Args:
            path: As it is named in findings, with forward slashes.
        """
        from bnfold.gate.rules import RULES

        ignored = [
            *self.ignore,
            *(
                code
                for pattern, codes in self.per_file_ignores.items()
                if fits(path, pattern)
                for code in codes
            ),
        ]
        chosen = [
            rule.code
            for rule in RULES.values()
            if rule.always
            or (rule.for_targets and self.targets)
            or (begins(rule.code, self.select) if self.select else rule.default)
            or begins(rule.code, self.extend_select)
        ]
        return tuple(code for code in chosen if not begins(code, ignored))

    def source(self, path: str) -> Source | None:
        """What a file was made from; None where no pattern fits."""
        return next((source for pattern, source in self.sources.items() if fits(path, pattern)), None)


def begins(code: str, beginnings: Iterable[str]) -> bool:
    """Whether a code is one of a selection; `ALL` selects all."""
    return any(one == "ALL" or code.startswith(one) for one in beginnings)


def fits(path: str, pattern: str) -> bool:
    """Whether a path, its last part, or a folder that it is in fits a pattern.

    Args:
        path: With forward slashes.
        pattern: `*` is any text, also with slashes; `**/` any number of folders, also none.
    """
    pattern = pattern.removeprefix("./").rstrip("/")
    forms = {pattern, pattern.replace("**/", "")}
    places = {path, path.rsplit("/", 1)[-1]}
    if "/" in pattern:
        places |= {path[:at] for at, sign in enumerate(path) if sign == "/"}
    return any(fnmatch.fnmatchcase(place, form) for place in places for form in forms)
