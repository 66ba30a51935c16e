"""Whether folding made a model faster, measured so that the answer can be believed.

Original and folded run in turn in one process. The original also runs a second time, in its own session: this
control shows how far the original differs from itself ([`interleave`][bnfold.latency.interleave]). The figure
is the ratio of the medians, original ÷ folded, with a 95 % bootstrap interval; the control has such a ratio
and interval too ([`bootstrap`][bnfold.latency.bootstrap]). Without a given time, all this ends as soon as the
answer is clear ([`stopping`][bnfold.latency.stopping]).

The verdict, with `THRESHOLD` at 3 % and `RESOLUTION` at 10 %:

- **faster** if the interval lies above 1, the folded model beats both sessions of the original by the
  threshold, and the ratio lies above the control's interval; **slower** likewise.
- **too noisy to say** if there is a difference that does not stand out against the control in this way, or if
  one of the two intervals reaches beyond the resolution, so that it could hide a difference of 10 %.
- **no measurable difference** otherwise: a difference of 10 % can be ruled out.

Everything is timed at three settings of ONNX Runtime's optimizer: at its default, which is what users run and
which folds Conv → BatchNormalization by itself; at basic; and off, which shows what the fold gains in a
runtime that does not fold. Other runtimes ([`engines`][bnfold.engines.base]) are timed as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from bnfold.engines import known
from bnfold.errors import InputError, ModelError
from bnfold.files.load import guarded_pair
from bnfold.inputs.given import Inputs
from bnfold.latency.bootstrap import ratios
from bnfold.latency.footprint import footprint
from bnfold.latency.interleave import Budget, Contest, Setting, contest
from bnfold.latency.prepare import for_onnxruntime, for_runtime
from bnfold.latency.results import Benchmark, Row
from bnfold.latency.timing import MIN_ROUNDS
from bnfold.ops.constraints import naming_faults
from bnfold.options import SECONDS, Timing
from bnfold.runtime import sessions
from bnfold.runtime.cgroups import cpu_quota
from bnfold.runtime.interface import Port, as_ir, interface
from bnfold.runtime.sessions import ModelLike
from bnfold.validation.pairing import pair

_STEPS = 8


@guarded_pair
def benchmark(
    original: ModelLike,
    folded: ModelLike,
    *,
    provider: str = "cpu",
    rounds: int | None = None,
    seconds: float | None = None,
    threads: int | Sequence[int] = 1,
    seed: int = 0,
    inputs: Inputs | None = None,
    batches: Sequence[int] = (),
    provider_options: Sequence[str] = ("bnfold",),
    runtime: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Time a folded model against its original.

    On `"cuda"` everything is timed twice: from NumPy arrays to NumPy arrays, which includes the copies to the
    GPU and back; and, unless an input holds strings, with inputs and outputs that stay on the GPU. A captured
    graph (the options `"graph"`) has only the latter.

    Args:
        original: A path, a `ModelProto` or an `onnx_ir.Model`.
        folded: The same, after folding.
        provider: A short name, such as `"cpu"` or `"cuda"` ([`providers`][bnfold.runtime.providers]).
        rounds: Rounds for each setting, rounded up to a multiple of the loads; None fills the time.
        seconds: Total time to measure for, where `rounds` is None. A slow model takes longer, because fewer
            than 16 rounds say nothing. None takes up to 10 seconds, and less where the answer is clear
            before ([`stopping`][bnfold.latency.stopping]).
        threads: Threads within an operator: a number, or several, each of which is timed. The memory, and
            where the nodes run, are those of the first.
        seed: Seed of the inputs, the order and the bootstrap.
        inputs: Arrays by input name, or files; of several samples the first. None draws random inputs, with
            batch size 1 where the model leaves it open.
        batches: Batch sizes to time, for a model that leaves it open; empty uses the inputs as they are.
        provider_options: Names of what the provider is set to, each of which is timed
            ([`OPTIONS`][bnfold.runtime.providers.OPTIONS]); what this provider does not have is left out.
        runtime: Another runtime to time both in instead of ONNX Runtime, as `"openvino"`
            ([`known`][bnfold.engines.known]). Only its runs are timed, at one setting; neither the conversion
            nor the loading counts, and its memory is not measured.
        on_progress: Called with the number of steps done and their total.

    Raises:
        InputError: The given inputs do not fit the model, or it accepts none of the random ones; or there are
            `batches`, and the model's batch size is fixed; or the provider has none of the options.
        ModelError: A model cannot be read, the two differ in inputs or outputs, or ONNX Runtime does not run
            one.
        ProviderError: The provider is unknown or absent, or another one would silently run the model or its
            main nodes.
        MissingExtraError: ONNX Runtime is not installed.
    """
    timing = Timing(threads, seconds, rounds, seed, batches, provider_options)
    _check(timing)
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    other = None if runtime is None else known.choice(runtime)
    rows = []
    with ExitStack() as stack:
        before, after = (stack.enter_context(sessions.on_disk(model)) for model in (original, folded))
        with naming_faults(original):
            ports = _common_inputs(original, folded)
            made = (
                for_runtime((before, after), other, ports, inputs, timing, stack)
                if other
                else for_onnxruntime(original, (before, after), provider, ports, inputs, timing)
            )
        first = next(iter(made.feeds.values()))
        count, *_ = timing.thread_counts
        sizes = [footprint(file, first, None if other else provider, count) for file in (before, after)]
        whole = SECONDS if seconds is None else seconds
        left = max(whole - (time.perf_counter() - start), whole / 2)
        budget = Budget(rounds, left / len(made.settings), may_stop=seconds is None and rounds is None)
        for place, setting in enumerate(made.settings):
            on_load = on_progress and _within(on_progress, place, len(made.settings))
            held = contest(*made.files, setting, made.feeds[setting.batch], budget, rng, on_load)
            rows.append(_row(held, setting, rng))
    shapes = {name: np.shape(array) for name, array in first.items()}
    cpus, quota = sessions.usable_cpus(), cpu_quota()
    where = other.title if other else provider
    weights = sizes[0], sizes[1]
    return Benchmark(where, count, seed, shapes, tuple(rows), *weights, cpus, quota, made.placed)


def _check(timing: Timing) -> None:
    if timing.rounds is not None and timing.rounds < 2:
        raise InputError(f"{timing.rounds} rounds give no interval.", f"Ask for {MIN_ROUNDS} or more.")
    if timing.seconds is not None and not 0 < timing.seconds < math.inf:
        raise InputError(f"Timing cannot take {timing.seconds} seconds.", "Give a finite, positive number.")
    _check_threads(timing)
    if any(batch < 1 for batch in timing.batches):
        raise InputError(f"{min(timing.batches)} is not a batch size.", "Give 1 or more.")


def _check_threads(timing: Timing) -> None:
    given: Any = timing.threads
    counts = given if isinstance(given, list | tuple) else (given,)
    if not counts:
        raise InputError("No number of threads was given.", "Give 1 or more with --threads.")
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{count!r} is not a number of threads.", "Give 1 or more with --threads.")


def _common_inputs(original: ModelLike, folded: ModelLike) -> tuple[Port, ...]:
    """The inputs of both models, whose inputs and outputs must be the same."""
    ports = interface(as_ir(original))
    found = pair(ports, interface(as_ir(folded)), "order")
    if found.problems or found.notes:
        raise ModelError(
            f"The second model cannot replace the first. {' '.join((*found.problems, *found.notes))}",
            "Give a model and the model that was folded from it.",
        )
    return ports.inputs


def _within(on_progress: Callable[[int, int], None], place: int, settings: int) -> Callable[[int, int], None]:
    """Progress within one setting of several, each of which counts as `_STEPS` steps."""
    return lambda done, total: on_progress(place * _STEPS + done * _STEPS // total, settings * _STEPS)


def _row(held: Contest, setting: Setting, rng: np.random.Generator) -> Row:
    """Medians, quantiles, and the ratios with their intervals."""
    ratio, control = ratios(held.times, rng)
    pooled = held.times.reshape(-1, held.times.shape[-1])
    medians = np.median(pooled, axis=0).tolist()
    p90, p99 = np.quantile(pooled, [0.9, 0.99], axis=0).tolist()
    original, folded, again = (tuple(column) for column in pooled.T.tolist())
    return Row(
        optimizer=setting.optimizer,
        rounds=len(pooled),
        repeats=held.repeats[0],
        original_ms=medians[0],
        original_p90_ms=p90[0],
        folded_ms=medians[1],
        folded_p90_ms=p90[1],
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        folded_repeats=held.repeats[1],
        measures=setting.measures,
        batch=setting.batch,
        provider_options=setting.provider_options,
        original_p99_ms=p99[0],
        folded_p99_ms=p99[1],
        control_ms=medians[2],
        control_ratio=control.value,
        control_low=control.low,
        control_high=control.high,
        original_load_ms=held.load_ms[0],
        folded_load_ms=held.load_ms[1],
        loads=len(held.times),
        pinned=held.pinned,
        settled=held.settled,
        threads=setting.threads,
        stopped_early=held.stopped_early,
        original_times_ms=original,
        folded_times_ms=folded,
        control_times_ms=again,
    )
