"""The tools that are compared: each reads an ONNX file and writes what it makes of it.

    python -m benchmarks.tools NAME SOURCE TARGET

runs one of them alone, so that a tool that crashes or never ends takes nothing else with it. Every tool runs
as its own documentation shows it first, without options of ours, except that ONNX Runtime's optimizer is held
at its basic level: what it does beyond is meant for one machine and not for a file. Where that does not
matter, `OFFLINE` is its file of the extended level, which does not depend on the processor. This module
imports next to nothing itself, so that the process holds the tool alone, and can be timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Tool(NamedTuple):
    """One tool.

    Attributes:
        name: How the table calls it.
        package: The distribution that brings it.
        convert: Reads the first path and writes the second.
    """

    name: str
    package: str
    convert: Callable[[Path, Path], None]

    @property
    def version(self) -> str | None:
        """The installed version; None where it is not installed."""
        from importlib import metadata

        from bnfold import __version__

        if self.package == "bnfold":
            return __version__  # it runs from this clone, installed or not
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def _bnfold(source: Path, target: Path) -> None:
    import onnx_ir as ir

    import bnfold

    ir.save(bnfold.fold(source).model, target)


def _onnxruntime(source: Path, target: Path, level: str = "ORT_ENABLE_BASIC") -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _extended(source: Path, target: Path) -> None:
    _onnxruntime(source, target, "ORT_ENABLE_EXTENDED")


def _onnxscript(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer, rewriter

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(rewriter.rewrite(model), target)  # the rules that fold BatchNorms are among the rewriter's own


def _onnxsim(source: Path, target: Path) -> None:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(simplified, target)


def _onnxslim(source: Path, target: Path) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def _onnxoptimizer(source: Path, target: Path) -> None:
    import onnx
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(source)), target)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("bnfold", "bnfold", _bnfold),
        Tool("ONNX Runtime", "onnxruntime", _onnxruntime),
        Tool("onnxscript", "onnxscript", _onnxscript),
        Tool("onnxsim", "onnxsim", _onnxsim),
        Tool("onnxslim", "onnxslim", _onnxslim),
        Tool("onnxoptimizer", "onnxoptimizer", _onnxoptimizer),
    )
}
OFFLINE = Tool("ONNX Runtime's file", "onnxruntime", _extended)


def main(arguments: Sequence[str]) -> None:
    """Run one tool in this process."""
    name, source, target = arguments
    ({OFFLINE.name: OFFLINE} | TOOLS)[name].convert(Path(source), Path(target))


if __name__ == "__main__":
    main(sys.argv[1:])
