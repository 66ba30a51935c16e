"""`bnfold.benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from bnfold.api.models import to_compare
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.files.load import guarded_pair
from bnfold.latency import benchmark as latency
from bnfold.latency.results import Benchmark
from bnfold.pipeline.progress import Progress, Stage, within

if TYPE_CHECKING:
    from bnfold.api.models import AnyModel, ExampleInputs


@only_known(signature(latency.benchmark).parameters)
@speaking_python
@guarded_pair
def benchmark(
    original: AnyModel,
    folded: AnyModel,
    example_inputs: ExampleInputs | None = None,
    *,
    provider: str = "cpu",
    seconds: float | None = None,
    threads: int | Sequence[int] = 1,
    progress: Progress | bool | None = None,
    **timing: Any,
) -> Benchmark:
    """Time a folded model against its original. The result is true if it is faster.

        bnfold.benchmark("model.onnx", "folded.onnx", threads=(1, 4))
        bnfold.benchmark("model.onnx", "folded.onnx", provider="cuda", batches=(1, 8)).plot()

    Args:
        original: A path to an ONNX or a PyTorch file, an `onnx.ModelProto`, an `onnx_ir.Model`, an
            `nn.Module` or an `ExportedProgram`.
        folded: The same, after folding.
        example_inputs: What a network is traced with, as in [`validate`][bnfold.api.validate.validate].
        provider: A short name, such as `"cpu"` or `"cuda"` ([`providers`][bnfold.runtime.providers]).
        seconds: Total time to measure for. A slow model takes longer, because fewer than 16 rounds say
            nothing. None takes up to 10 seconds, and less where the answer is clear before.
        threads: Threads within an operator: a number, or several, each of which is timed.
        progress: As in `validate`.
        timing: Further keywords of [`latency.benchmark`][bnfold.latency.benchmark.benchmark]: `rounds`,
            `seed`, `inputs`, `batches`, `provider_options` and `runtime`.

    Raises:
        InputError: The given inputs do not fit the model, or it accepts none of the random ones; or there are
            `batches`, and the model's batch size is fixed; or the provider has none of the options.
        ModelError: A model cannot be read, the two differ in inputs or outputs, or ONNX Runtime does not run
            one.
        ProviderError: The provider is unknown or absent, or another one would silently run the model or its
            main nodes.
        MissingExtraError: ONNX Runtime is not installed, or torch for a PyTorch model.

    Examples:
        >>> timed = bnfold.benchmark("model.onnx", "folded.onnx", rounds=3)
        >>> [row["optimizer"] for row in timed.records()]
        ['default', 'basic', 'off']
    """
    with watching(progress) as report:
        first, second = (to_compare(model, example_inputs, progress=report) for model in (original, folded))
        return latency.benchmark(
            first,
            second,
            provider=provider,
            seconds=seconds,
            threads=threads,
            on_progress=within(Stage.TIME, report),
            **timing,
        )
