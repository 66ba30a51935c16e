"""Which kind of file a toolchain reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnfold.targets.obstacle import Obstacle
from bnfold.targets.view import View

_WORDS = {"onnx": "ONNX files", "ort": "files in ORT format", "pt2": "programs of torch.export"}


@dataclass(frozen=True)
class Form:
    """The kinds of files that are read.

    Attributes:
        reads: `"onnx"`, `"ort"`, or `"pt2"` for a program of torch.export; the first is what is written.
    """

    reads: tuple[str, ...]

    def look(self, view: View) -> Iterator[Obstacle]:
        """Say so where an ONNX file is not read."""
        del view  # it is of an ONNX file, whatever it holds
        if "onnx" not in self.reads:
            yield Obstacle(f"the file is ONNX, and the target reads {self.words}")

    @property
    def words(self) -> str:
        """What is read, in words."""
        return " or ".join(_WORDS.get(one, one) for one in self.reads)
