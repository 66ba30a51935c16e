"""Small models for the gate, and questions about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bnfold.gate.cache import Cache
from bnfold.gate.finding import Finding
from bnfold.gate.settings import Limits, Settings
from bnfold.gate.work import Answer, Job, answer, ask
from tests.graphs import build, statistics, weight

BATCHNORM = "BatchNormalization(a, scale, bias, mean, var)"


def layers(
    lines: str = f"y = {BATCHNORM}",
    *,
    seed: int = 0,
    x: str = "1,3,8,8",
    opset: int = 18,
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """A Conv over x giving `a` of four channels, and the lines, which make `y` of it.

    Args:
        lines: They may read `scale`, `bias`, `mean` and `var`, and what is in `constants`.
        seed: Of the weights and statistics.
        x: The input's sizes.
        opset: Of the model.
        constants: Others than the random ones, by name.
    """
    held = {"w": weight(4, 3, 3, 3, seed=seed + 1), **statistics(4, seed), **constants}
    text = f"g (float[{x}] x) => (float y) {{ a = Conv(x, w)\n {lines} }}"
    used = {name: array for name, array in held.items() if any(f"{name}{end}" in text for end in ",)")}
    model = build(text, used, opset=opset)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model


def save(model: onnx.ModelProto, path: Path, *, data: str = "") -> Path:
    """Save a model, its weights in another file where that has a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # what saves external data takes it out of the model
    if data:
        onnx.save(copy, path, save_as_external_data=True, location=data, size_threshold=0)
    else:
        onnx.save(copy, path)
    return path


def job(path: Path, *codes: str, limits: Limits | None = None, **others: Any) -> Job:
    """The question whether a file breaks these rules."""
    return Job(path, path.name, codes, Settings(limits=limits or Limits()), **others)


def codes(findings: Iterable[Finding]) -> list[str]:
    """The codes of findings, in their order."""
    return [finding.code for finding in findings]


def asked(path: Path, *wanted: str, **others: Any) -> list[str]:
    """The codes that a file breaks."""
    return codes(answer(job(path, *wanted, **others)))


def here(
    function: Callable[..., Any], asked: Mapping[str, tuple[Any, ...]], jobs: int, limit: float
) -> Iterator[tuple[str, Any]]:
    """What stands in for the processes of a mending: it works in this one."""
    assert jobs >= 1
    assert limit > 0
    for name, given in asked.items():
        yield name, function(*given)


def answering(names: list[str]) -> Callable[..., Iterator[tuple[int, Answer]]]:
    """What stands in for the processes of a check: it asks here, and notes about which files."""

    def answers(
        asked: Sequence[Job],
        left: Sequence[int],
        store: Cache,
        versions: tuple[object, ...],
        jobs: int,
        limit: float,
    ) -> Iterator[tuple[int, Answer]]:
        assert jobs >= 1
        assert limit > 0
        for at in left:
            answer = ask(asked[at], store, versions)
            assert isinstance(answer, Answer), f"{asked[at].name}: {answer.why}"
            if not answer.remembered:
                names.append(asked[at].name)
            yield at, answer

    return answers
