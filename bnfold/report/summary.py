"""What a model is, in a few figures: what one looks for first in an unknown file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bnfold.files.external_data import data_files, initializers
from bnfold.graph.scopes import ONNX_DOMAINS, scopes
from bnfold.pipeline.read import Source
from bnfold.runtime.interface import interface


@dataclass(frozen=True)
class Summary:
    """A model in a few figures.

    Attributes:
        inputs: Each as text: name, type and sizes.
        outputs: The same.
        opsets: The version of each domain of operators; ONNX's own is `""`.
        ir_version: Of the file, or of the export of a PyTorch file.
        producer: What wrote it, with its version; empty where the file does not say.
        operators: How many nodes there are of each operator, the most frequent first, subgraphs and functions
            included.
        parameters: The number of elements of all weights.
        bytes: The size of the file with its external data; of a model in memory, that of its weights.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    operators: Mapping[str, int]
    parameters: int
    bytes: int

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return sum(self.operators.values())


def summarise(source: Source) -> Summary:
    """Describe a model that was read."""
    model = source.model
    ports = interface(model)
    operators = Counter(
        node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}::{node.op_type}"
        for scope in scopes(model)
        for node in scope.graph
        if node.op_type != "Constant"
    )
    constants = [value.const_value for value in initializers(model)]
    return Summary(
        inputs=tuple(map(str, ports.inputs)),
        outputs=tuple(map(str, ports.outputs)),
        opsets=dict(model.opset_imports),
        ir_version=model.ir_version or 0,
        producer=f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
        operators=dict(sorted(operators.items(), key=lambda pair: (-pair[1], pair[0]))),
        parameters=sum(tensor.size for tensor in constants if tensor is not None),
        bytes=_size(source, sum(tensor.nbytes for tensor in constants if tensor is not None)),
    )


def _size(source: Source, weights: int) -> int:
    """The size of the files, or of a model that is in none that of its weights, in bytes."""
    if not source.path.is_file():
        return weights
    return sum(path.stat().st_size for path in {source.path, *data_files(source.model)})
