"""What is to be done with every model, and which models there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bnfold.fleet.transport import links, shown
from bnfold.gate.settings import Settings

UNIT = "bnfold.fleet.work:one"
"""What is done with one model, as `"module:function"`."""

QUIET = "BNFOLD_FLEET_QUIET"
"""The environment variable in which a worker says that nothing else runs on its host."""

_TORCH_UNIT = "bnfold.fleet.work_torch:one"
_TORCH = (".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".bin")


@dataclass(frozen=True)
class Limits:
    """What the process of one model may take.

    Attributes:
        seconds: From its start to its end.
        memory: Bytes that it may write to; None does not limit them.
    """

    seconds: float = 600.0
    memory: int | None = None


@dataclass(frozen=True)
class Model:
    """One model, as its source lists it.

    Attributes:
        url: Where it is, as fsspec takes it. It may hold a password: neither `repr` nor a report shows it.
        name: The file to write, relative to `models` in the results; no two models have the same.
        size: In bytes, without its external data; 0 where it is not known.
        identity: What its source says of its content without reading it, as a hash of an ETag; empty where
            the model is not there.
        options: What is asked of this model in particular, as `Plan.options`.
        inputs: The sizes of inputs that are expected, as `{"image": "Nx3x224x224"}`.
    """

    url: str = field(repr=False)
    name: str
    size: int = 0
    identity: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The model as reports name it."""
        return shown(self.url)


@dataclass(frozen=True)
class Plan:
    """What is to be done with every model of a fleet; a worker needs this and the model.

    Attributes:
        command: `"check"`, `"fold"` or `"export"`.
        out: Where results go, as fsspec takes it.
        options: The options of the command by their names without hyphens in front, as `{"no-merge": True}`.
        inputs: The sizes of inputs that are expected of every model that has such an input.
        settings: What `check` demands.
        limits: Of the process of one model.
        cache: The folder of `bnfold check`'s answers on the worker; None keeps none.
        versions: What else decides a result; the coordinator's, since workers may have others than it has.
        unit: What is done with one model.
    """

    command: str
    out: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    limits: Limits = Limits()
    cache: str | None = None
    versions: tuple[Any, ...] = ()
    unit: str = UNIT

    @cached_property
    def _asked(self) -> str:
        """All that decides the results of every model."""
        return repr((self.command, self.options, self.inputs, self.settings, self.versions, self.unit))

    def options_of(self, model: Model) -> dict[str, Any]:
        """The options for a model: the plan's, and over them its own."""
        return {**self.options, **model.options}

    def inputs_of(self, model: Model) -> dict[str, str]:
        """The expected inputs of a model: the plan's, and over them its own."""
        return {**self.inputs, **model.inputs}

    def name_of(self, model: Model) -> str:
        """The name of a model's result: a hash of the model, of its content, and of all that is asked."""
        own = json.dumps(
            [model.path, model.identity, dict(model.options), dict(model.inputs)], sort_keys=True
        )
        return hashlib.sha256(f"{self._asked}\n{own}".encode(errors="surrogateescape")).hexdigest()[:32]

    def unit_of(self, model: Model) -> str:
        """What is done with a model: always the same, with torch loaded beforehand where it is needed."""
        is_torch = links(model.url)[0].lower().endswith(_TORCH)
        return _TORCH_UNIT if is_torch and self.unit == UNIT else self.unit

    def name_of_limits(self) -> str:
        """A short hash of the limits: a result that they brought about holds for these only."""
        return hashlib.sha256(repr(self.limits).encode()).hexdigest()[:8]
