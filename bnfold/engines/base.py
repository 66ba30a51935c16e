"""What a runtime has to offer so that its outputs can be judged and its speed measured.

A new runtime is one file next to this one, with an `Engine` and what it loads, and a line in
[`known`][bnfold.engines.known]. Everything else, the reference, the bounds and the statistics, is the same
for all of them.

A runtime may compute in another precision than the model's types: OpenVINO takes bfloat16 where the processor
has it, unless it is asked for float32. So the precision is always asked for, and a runtime that says that it
computes in another one is an error.
"""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bnfold.errors import InputError, ModelError, ProviderError
from bnfold.inputs.values import converted
from bnfold.runtime.interface import Interface, as_ir, interface
from bnfold.runtime.sessions import Feeds, ModelLike, on_disk

Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]
Array: TypeAlias = npt.NDArray[Any]


class Loaded(ABC):
    """A model that a runtime has loaded."""

    @property
    @abstractmethod
    def precision(self) -> str | None:
        """The float type that the runtime says it computes in, as `"bfloat16"`; None if it does not say."""

    @abstractmethod
    def run(self, feeds: Feeds) -> list[Array]:
        """The outputs in the model's order, in whatever types the runtime has for them.

        Raises:
            ModelError: The runtime rejects these inputs, or cannot compute an output.
        """

    def caller(self, feeds: Feeds) -> Callable[[], object]:
        """A function that runs the model from NumPy arrays to NumPy arrays, to be timed.

        Raises:
            ModelError: As `run`; the function itself may raise the runtime's own errors.
        """
        self.run(feeds)
        return partial(self.run, feeds)


class Engine(ABC):
    """A runtime.

    Attributes:
        name: What people type: `"openvino"`; also the extra of bnfold that brings it.
        title: What it is called: `"OpenVINO"`.
        distribution: The package that has its version.
        precisions: Those that it can be asked for.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    distribution: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version(self.distribution)

    @abstractmethod
    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        """Everything that the runtime is set to, by its own names, as reports state it."""

    @abstractmethod
    def demand(self) -> None:
        """Make sure that it is installed.

        Raises:
            MissingExtraError: It is not.
        """

    def convert(self, model: Path, folder: Path) -> Path:
        """Convert an ONNX file with the runtime's own tool.

        Args:
            model: The file.
            folder: Where to put what comes out.

        Returns:
            What `load` takes; the ONNX file itself where the runtime reads ONNX.

        Raises:
            ModelError: The runtime cannot; names the operators that it does not have.
        """
        del folder
        return model

    @abstractmethod
    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Load what `convert` made.

        Args:
            model: The converted file.
            ports: The inputs and outputs of the ONNX model.
            threads: Threads to compute with.
            precision: The float type to compute in.

        Raises:
            ModelError: The runtime cannot load it; names the operators that it does not have.
        """


def load(engine: Engine, model: ModelLike | bytes, threads: int, precision: Precision) -> Loaded:
    """Convert and load a model; its outputs have the types that it declares.

    Args:
        engine: The runtime.
        model: The ONNX model.
        threads: Threads to compute with.
        precision: The float type to compute in.

    Raises:
        MissingExtraError: The runtime is not installed.
        ModelError: It cannot convert or load the model.
        ProviderError: It says that it computes in another precision.
        InputError: There are no threads, or the runtime cannot be asked for this precision.
    """
    with conversion(engine, model) as (path, ports):
        made = engine.load(path, ports, threads=positive(threads), precision=precision)
    demand_precision(engine, made, precision)
    return _Typed(made, ports)


@contextlib.contextmanager
def conversion(engine: Engine, model: ModelLike | bytes) -> Iterator[tuple[Path, Interface]]:
    """What a runtime's converter made of a model, with the model's inputs and outputs; deleted at the end.

    Raises:
        MissingExtraError: The runtime is not installed.
        ModelError: It cannot convert the model, or has no arrays for an input.
    """
    engine.demand()
    with (
        on_disk(model) as path,
        tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder,
    ):
        ports = interface(as_ir(path))
        for port in (*ports.inputs, *ports.outputs):
            if "(" in port.type or port.type == "string":
                raise ModelError(
                    f"{port.name!r} is a {port.type}, and {engine.title} is run with arrays of numbers only.",
                    "Compare these models in ONNX Runtime: leave --runtime out.",
                )
        yield engine.convert(path, Path(folder)), ports


def demand_precision(engine: Engine, loaded: Loaded, precision: Precision) -> None:
    """Refuse a runtime that says that it computes in another precision than it was asked for.

    Raises:
        ProviderError: It does.
    """
    if loaded.precision in (None, precision):
        return
    other = loaded.precision
    able = other in engine.precisions
    raise ProviderError(
        f"{engine.title} was asked to compute in {precision} and says that it computes in {other} here: "
        f"its numbers would say nothing about {precision}.",
        f"To judge it by what {other} allows, type: --runtime {engine.name}:{other}" if able else "",
    )


def positive(threads: int) -> int:
    """A number of threads.

    Raises:
        InputError: It is not positive.
    """
    if threads < 1:
        raise InputError(f"{threads} threads cannot run a model.", "Give 1 or more.")
    return threads


class _Typed(Loaded):
    """A loaded model whose outputs have the types that the ONNX model declares, where these hold them."""

    def __init__(self, loaded: Loaded, ports: Interface) -> None:
        self._loaded, self._types = loaded, [port.type for port in ports.outputs]

    @property
    def precision(self) -> str | None:
        return self._loaded.precision

    def run(self, feeds: Feeds) -> list[Array]:
        return typed(self._loaded.run(feeds), self._types)


def typed(outputs: Sequence[Array], types: Sequence[str]) -> list[Array]:
    """Outputs in declared types: a runtime without int64 or bool gives int32 for them.

    An output that its declared type does not hold stays as it is, and so does one of an unknown type.
    """
    found = []
    for value, name in zip(outputs, types, strict=True):
        other: Array | None = None
        if name == "bool" and value.dtype.kind in "iu":
            other = value.astype(np.bool_) if np.isin(value, (0, 1)).all() else None
        elif name != "unknown" and value.dtype.name != name:
            other = converted(value, name)
        found.append(value if other is None else other)
    return found
