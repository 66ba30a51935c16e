"""What is timed where: the inputs that the original accepts there, the settings, and the files to load."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.engines import base
from bnfold.engines.base import Loaded
from bnfold.engines.known import Choice
from bnfold.errors import InputError, ModelError, listed
from bnfold.inputs.given import Inputs
from bnfold.latency.batches import by_batch
from bnfold.latency.interleave import Measures, Setting
from bnfold.options import Timing
from bnfold.runtime import placement, sessions
from bnfold.runtime.interface import Port
from bnfold.runtime.providers import FIXED_ADDRESSES, device, different
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer

OPTIMIZERS: tuple[Optimizer, ...] = ("default", "basic", "off")


@dataclass(frozen=True)
class Prepared:
    """Everything that a timing needs.

    Attributes:
        feeds: Inputs by batch size.
        settings: What is timed.
        files: The original and the folded model, as the runtime takes them.
        placed: Where the nodes of each run, as sentences; empty where that is not a question.
    """

    feeds: Mapping[int | None, Feeds]
    settings: Sequence[Setting]
    files: tuple[Path, Path]
    placed: tuple[str, ...] = ()


def for_onnxruntime(
    original: ModelLike,
    files: tuple[Path, Path],
    provider: str,
    ports: Sequence[Port],
    inputs: Inputs | None,
    timing: Timing,
) -> Prepared:
    """Prepare a timing in ONNX Runtime.

    Args:
        original: The original as it was given: an error names it, and not a temporary file.
        files: The original and the folded model.
        provider: Where they run.
        ports: Their inputs.
        inputs: As `benchmark` takes them.
        timing: How to time.

    Raises:
        InputError: The inputs do not fit, or there is nothing to time.
        ModelError: ONNX Runtime does not run the original.
        ProviderError: The provider does not run what the model spends its time on.
    """
    threads = timing.thread_counts[0]
    made = sessions.session(original, provider=provider, optimized="off", threads=threads)
    feeds = by_batch(ports, partial(sessions.run, made), inputs, timing.batches, timing.seed)
    first = next(iter(feeds.values()))
    settings = _settings(provider, feeds, timing)
    placed = () if provider == "cpu" else _placed(files, first, provider, threads)
    return Prepared(feeds, settings, files, placed)


def for_runtime(
    files: tuple[Path, Path],
    choice: Choice,
    ports: Sequence[Port],
    inputs: Inputs | None,
    timing: Timing,
    stack: ExitStack,
) -> Prepared:
    """Prepare a timing in another runtime, for which both models are converted once.

    Args:
        files: The original and the folded model.
        choice: The runtime.
        ports: Their inputs.
        inputs: As `benchmark` takes them.
        timing: How to time.
        stack: Keeps what was converted.

    Raises:
        InputError: The inputs do not fit.
        ModelError: The runtime does not convert or run a model.
        ProviderError: It says that it computes in another precision than it was asked for.
        MissingExtraError: It is not installed.
    """
    (first, own), (second, _) = (stack.enter_context(base.conversion(choice.engine, file)) for file in files)
    counts = timing.thread_counts
    loads = {
        threads: partial(choice.engine.load, ports=own, threads=threads, precision=choice.precision)
        for threads in counts
    }
    made = loads[counts[0]](first)
    base.demand_precision(choice.engine, made, choice.precision)
    feeds = by_batch(ports, _accepting(files[0], made, counts[0]), inputs, timing.batches, timing.seed)
    for taken in feeds.values():
        made.run(taken)
    settings = [
        Setting("default", "end to end", choice.title, threads, batch, load=load)
        for threads, load in loads.items()
        for batch in feeds
    ]
    return Prepared(feeds, settings, (first, second))


def _accepting(model: Path, loaded: Loaded, threads: int) -> Callable[[Feeds], Sequence[Any]]:
    """What says which inputs a model accepts: ONNX Runtime, or the runtime itself if that has no say."""
    try:
        return partial(sessions.run, sessions.session(model, optimized="off", threads=threads))
    except ModelError:
        return loaded.run


def _settings(provider: str, feeds: Mapping[int | None, Feeds], timing: Timing) -> list[Setting]:
    """Everything that is timed, by threads, batch size, options, kind of measurement and optimizer.

    Raises:
        InputError: That is nothing.
    """
    first = next(iter(feeds.values()))
    settings = [
        Setting(optimizer, measures, provider, threads, batch, options)
        for threads, batch, options in itertools.product(
            timing.thread_counts, feeds, different(provider, timing.provider_options)
        )
        for measures in _kinds(provider, first)
        for optimizer in OPTIMIZERS
        if not (options == FIXED_ADDRESSES and measures == "end to end")
    ]
    if not settings:
        names = listed(timing.provider_options)
        raise InputError(
            f"The {provider} provider cannot be timed with the options {names}.",
            "Time it with the options bnfold or defaults.",
        )
    return settings


def _kinds(provider: str, feeds: Feeds) -> tuple[Measures, ...]:
    """What can be measured: strings cannot be on a GPU, and a CPU has no memory other than the host's."""
    strings = any(np.asarray(array).dtype.kind in "OSU" for array in feeds.values())
    return ("end to end", "on the device") if device(provider) and not strings else ("end to end",)


def _placed(models: Sequence[Path], feeds: Feeds, provider: str, threads: int) -> tuple[str, ...]:
    """On which provider the nodes of each model run, as sentences.

    Raises:
        ProviderError: The provider does not run what the model spends its time on.
    """
    found = [placement.placements(model, feeds, provider=provider, threads=threads) for model in models]
    for placed in found:
        placement.check(placed, provider)
    return tuple(placement.sentence(placed, provider) for placed in found)
