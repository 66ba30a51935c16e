"""The latency of two models on every provider, and in every other runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from bnfold.options import Timing
from bnfold.pipeline.progress import Progress, Stage, within

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.latency.results import Benchmark


def compare_latency(
    original: ir.Model,
    folded: ir.Model,
    providers: Sequence[str],
    timing: Timing,
    inputs: Inputs | None,
    progress: Progress,
    runtimes: Sequence[str] = (),
) -> tuple[Benchmark, ...]:
    """Time two models against each other on every provider, and in every other runtime."""
    from bnfold.latency.benchmark import benchmark

    options = {**vars(timing), "inputs": inputs, "on_progress": within(Stage.TIME, progress)}
    return (
        *(benchmark(original, folded, provider=provider, **options) for provider in providers),
        *(benchmark(original, folded, runtime=runtime, **options) for runtime in runtimes),
    )
