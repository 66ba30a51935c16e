"""The options for running models: where, on which data, and how they are compared and timed.

Like those of `_options`, they are groups that a command takes as decorators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import _groups, _terminal
from ._options import FILE

_given_providers = _groups.together(
    "Where models run",
    click.option(
        "--provider",
        "providers",
        multiple=True,
        default=("cpu",),
        metavar="NAME",
        show_default=True,
        help="Where ONNX Runtime runs the models: cpu, cuda, or another provider of the installed one, such"
        " as openvino, tensorrt or coreml. Repeatable.",
    ),
)


def provider_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option for where models run: a command gets `providers`, short names that are known to be there."""

    @functools.wraps(command)
    def with_providers(*, providers: tuple[str, ...], **options: Any) -> Any:
        return command(providers=_terminal.known_providers(providers) if providers else (), **options)

    return _given_providers(with_providers)


_given_runtimes = _groups.together(
    "Where models run",
    click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        default=("onnxruntime",),
        metavar="NAME[:PRECISION]",
        show_default=True,
        help="The runtime to run the models in: onnxruntime, openvino, mnn, ncnn or litert. It converts them"
        " with its own tools, and is asked to compute in float32, or in another precision as"
        " openvino:bfloat16. Repeatable.",
    ),
)


def runtime_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option for other runtimes; it goes around `provider_option`.

    A command gets `runtimes`, those other than ONNX Runtime, which are known to be installed; its `providers`
    are empty where ONNX Runtime was not asked for.
    """

    @functools.wraps(command)
    def with_runtimes(*, runtimes: tuple[str, ...], **options: Any) -> Any:
        others = _terminal.known_runtimes(runtimes)
        if others and len(others) == len(set(runtimes)):
            source = click.get_current_context().get_parameter_source("providers")
            if source is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(
                    f"--provider says where ONNX Runtime runs, and --runtime {runtimes[0]} does not run it."
                    " Leave one of the two out, or add --runtime onnxruntime to have both."
                )
            options["providers"] = ()
        return command(runtimes=others, **options)

    return _given_runtimes(with_runtimes)


_given_options = _groups.together(
    "Data",
    click.option(
        "--inputs",
        "inputs_path",
        type=FILE,
        metavar="PATH",
        help="Real data to run on: an .npz file with an array per input, an .npy file for a single input, or"
        " a folder of images. Without it, seeded random data is used.",
    ),
    click.option(
        "--mean",
        metavar="NUMBERS",
        help="Mean that is subtracted from the images of --inputs, whose pixels range from 0 to 1: a number,"
        " or one per channel, such as 0.485,0.456,0.406. The word imagenet sets --mean and --std.",
    ),
    click.option(
        "--std", metavar="NUMBERS", help="Standard deviation that images are divided by, after --mean."
    ),
    click.option(
        "--size", metavar="HxW", help="Height and width of the images, for a model that leaves them open."
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        show_default=True,
        help="Seed of the random data.",
    ),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the data to run on: a command gets `seed`, and `inputs`, which is None for random data."""

    @functools.wraps(command)
    def with_inputs(*, inputs_path: Path | None, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _OF_INPUTS if name in options}
        return command(inputs=_terminal.read_inputs(inputs_path, **given), **options)

    return _given_options(with_inputs)


_OF_INPUTS = ("mean", "std", "size", "labels", "top")

label_options = _groups.together(
    "Data",
    click.option(
        "--labels",
        type=FILE,
        metavar="FILE",
        help="The class of every row of --inputs, to compare how often both models are right: a text file"
        " with one number a line, an .npy or an .npz file, or for a folder of images also lines name,class.",
    ),
    click.option(
        "--top",
        type=click.IntRange(min=1),
        default=5,
        metavar="K",
        show_default=True,
        help="With --labels: measure top-K accuracy besides top-1.",
    ),
)
"""They go with `data_options`, which puts them into `inputs`."""


validation_options = _groups.together(
    "Comparing outputs",
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=6,
        metavar="N",
        show_default=True,
        help="Number of random inputs to compare on; they are in turn normal, uniform, zeros, ones, large and"
        " tiny.",
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(min=0),
        metavar="NUMBER",
        help="Largest difference from the original that passes, relative to an output's scale, such as 1e-4."
        " Without it, the folded model may be only slightly farther from float64 than the original is.",
    ),
    click.option(
        "--oracle",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Use the original evaluated in float64 as the reference: auto does unless it takes too long.",
    ),
    click.option(
        "--per-layer",
        is_flag=True,
        help="Measure ONNX Runtime's error at every intermediate value that both models have.",
    ),
)

cover_options = _groups.together(
    "Comparing outputs",
    click.option(
        "--cover",
        is_flag=True,
        help="Draw more random inputs, aimed at what the first ones did not show, until nothing new is seen:"
        " at most 200, and for at most --cover-seconds. The report lists what is left.",
    ),
    click.option(
        "--cover-seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=60,
        metavar="NUMBER",
        show_default=True,
        help="Time for --cover.",
    ),
)

timing_options = _groups.together(
    "Timing",
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        multiple=True,
        default=(1,),
        metavar="N",
        show_default=True,
        help="Number of threads for the timing. Repeatable; the numbers share the time.",
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0, min_open=True),
        metavar="NUMBER",
        help="Total time to measure for on each provider. Without it, up to 10, and less where the answer is"
        " clear before.",
    ),
)

provider_options_option = _groups.together(
    "Where models run",
    click.option(
        "--provider-options",
        type=click.Choice(["bnfold", "defaults", "tf32", "exhaustive", "graph"]),
        multiple=True,
        default=("bnfold",),
        show_default=True,
        help="What the provider is set to: bnfold is as precise as the types and the same every time (CUDA:"
        " no TF32, heuristic search); defaults are the provider's own. CUDA has three more: tf32,"
        " exhaustive (search for convolutions) and graph (a captured CUDA graph). Repeatable; they share"
        " the time.",
    ),
)

batch_option = _groups.together(
    "Timing",
    click.option(
        "--batch",
        "batches",
        type=click.IntRange(min=1),
        multiple=True,
        metavar="N",
        help="Batch size to time, for a model that leaves it open. Repeatable; the sizes share the time.",
    ),
)

pairing_options = _groups.together(
    "Comparing outputs",
    click.option(
        "--match",
        type=click.Choice(["name", "order"]),
        default="name",
        show_default=True,
        help="Pair the inputs and outputs of the two models by name or by order.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Fail if FOLDED has other names or types of inputs and outputs, other open sizes, another opset"
        " or less metadata than ORIGINAL.",
    ),
)
