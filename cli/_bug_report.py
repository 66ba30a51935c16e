"""A file for the people who mend bnfold: what was run, with what, how it failed, and on which graph."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Sequence
from pathlib import Path

_LARGEST = 16  # elements of a constant that stay; those are sizes and axes, and no weights


def write(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write the report next to the model, or into the current folder where no model was given.

    Args:
        error: What was not foreseen.
        arguments: The command line without the program.

    Returns:
        The file, which replaces an older report.
    """
    from bnfold.system.environment import versions

    model = next((path for path in map(Path, arguments) if path.is_file()), None)
    target = Path("bnfold-bug.txt") if model is None else model.with_name(f"{model.name}.bnfold-bug.txt")
    parts = {
        "Command": shlex.join(["bnfold", *arguments]),
        "Versions": "\n".join(f"{name} {version}" for name, version in versions().items()),
        "Traceback": "".join(traceback.format_exception(error)),
        "Graph, without weights": "No model was given." if model is None else _graph(model),
    }
    text = "\n\n".join(f"## {title}\n\n{content.strip()}" for title, content in parts.items())
    target.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return target


def _graph(path: Path) -> str:
    """The model in ONNX's text form, the larger of its constants emptied."""
    import onnx

    from bnfold.files.file_kind import FileKind, kind_of

    kind = kind_of(path)
    if kind is not FileKind.ONNX:
        return f"The file is {kind}."
    try:
        model = onnx.load(path, load_external_data=False)
        graphs = [model.graph]
        while graphs:
            graph = graphs.pop()
            _empty(graph.initializer)
            for node in graph.node:
                for attribute in node.attribute:
                    _empty([attribute.t] if attribute.HasField("t") else attribute.tensors)
                    graphs += [attribute.g] if attribute.HasField("g") else attribute.graphs
        return onnx.printer.to_text(model)
    except Exception as problem:  # the report goes out all the same, and says so
        return f"It could not be printed: {type(problem).__name__}: {problem}"


def _empty(tensors: Sequence[object]) -> None:
    import math

    import onnx

    for tensor in tensors:
        assert isinstance(tensor, onnx.TensorProto), "only tensors are emptied"
        if math.prod(tensor.dims) > _LARGEST:
            kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0])
            kept.doc_string = f"{'x'.join(map(str, tensor.dims))}, left out"
            tensor.CopyFrom(kept)
