"""The runtimes that there are, and what people type for them: `openvino`, or `openvino:bfloat16`.

In reports a runtime stands where ONNX Runtime's provider would, under its title: "OpenVINO". ONNX Runtime's
own names are in lower case, so that its provider `openvino` is something else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from bnfold.engines import litert, mnn, ncnn, openvino
from bnfold.engines.base import Engine, Precision
from bnfold.errors import InputError
from bnfold.runtime import providers

ENGINES: dict[str, Engine] = {
    one.name: one for one in (openvino.ENGINE, mnn.ENGINE, ncnn.ENGINE, litert.ENGINE)
}
"""Every runtime by what people type for it."""

OWN = "onnxruntime"
"""What people type for ONNX Runtime, which has providers instead."""


@dataclass(frozen=True)
class Choice:
    """A runtime, and the precision that it is asked to compute in.

    Attributes:
        engine: The runtime.
        precision: The float type; its errors may be what one rounding in it explains.
    """

    engine: Engine
    precision: Precision = "float32"

    @property
    def title(self) -> str:
        """What reports call it."""
        other = "" if self.precision == "float32" else f" {self.precision}"
        return f"{self.engine.title}{other}"

    def sentence(self, threads: int) -> str:
        """What it was set to."""
        options = ", ".join(f"{name}={value}" for name, value in self.options(threads).items())
        return f"{self.title}: version {self.engine.version}, set to {options}."

    def options(self, threads: int) -> Mapping[str, str]:
        """Everything that it is set to."""
        return self.engine.options(self.precision, threads)


def choice(text: str) -> Choice:
    """The runtime that a text names.

    Args:
        text: Such as `"openvino"` or `"openvino:bfloat16"`.

    Raises:
        InputError: There is no such runtime, or it cannot be asked for this precision.
    """
    name, _, precision = text.partition(":")
    engine = ENGINES.get(name.lower())
    if engine is None:
        near = difflib.get_close_matches(name.lower(), (*ENGINES, OWN), n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"{name!r} is not a runtime.", f"{hint}Choose from: {', '.join((OWN, *ENGINES))}.")
    for known in engine.precisions:
        if known == (precision or "float32"):
            return Choice(engine, known)
    raise InputError(
        f"{engine.title} cannot be asked to compute in {precision!r}.",
        f"Choose from: {', '.join(engine.precisions)}.",
    )


def titled(title: str) -> Choice | None:
    """The runtime with this title; None for a provider of ONNX Runtime."""
    for engine in ENGINES.values():
        for precision in engine.precisions:
            made = Choice(engine, precision)
            if made.title == title:
                return made
    return None


def options(place: str, threads: int) -> Mapping[str, str]:
    """What a runtime, by its title, or a provider of ONNX Runtime is set to."""
    found = titled(place)
    return providers.options(place) if found is None else found.options(threads)
