"""The options that several commands share, in groups that a command takes as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from . import _groups, _terminal

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
"""A path that bnfold checks itself, so that the message about a missing file is the same everywhere."""


output_options = _groups.together(
    "Reports",
    click.option(
        "--json",
        "json_path",
        type=FILE,
        metavar="FILE",
        help="Write a JSON report for programs (schema: docs/report.schema.json); - means standard output.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print only errors, and what to do about them."),
)

html_option = _groups.together(
    "Reports",
    click.option(
        "--html",
        "html_path",
        type=FILE,
        metavar="FILE",
        help="Write the report as an HTML page to look at and to share. It works offline.",
    ),
)

verbose_option = _groups.together(
    "Reports",
    click.option("-v", "--verbose", is_flag=True, help="Show long tables whole; otherwise they are cut."),
)

fold_options = _groups.together(
    "Folding",
    click.option(
        "--no-batchnorm",
        is_flag=True,
        help="For targets without this operator: let BatchNorms that cannot be folded become others, such as"
        " a Mul and an Add, or with the Relu after them a Max. It makes nothing faster.",
    ),
    click.option(
        "--keep",
        multiple=True,
        metavar="NAME",
        help="Leave this BatchNorm as it is; NAME is what `bnfold inspect` shows. Repeatable.",
    ),
    click.option(
        "--no-merge",
        "merge",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Do not merge parallel branches into one convolution, nor two layers in a row into one.",
    ),
    click.option(
        "--inline",
        "inline_functions",
        is_flag=True,
        help="Inline model-local functions first, so that weights passed to them as arguments can be folded.",
    ),
)

step_options = _groups.together(
    "After the fold",
    click.option(
        "--equalize",
        is_flag=True,
        help="For quantisation with one step a tensor: balance the channels of weights by powers of two. The"
        " outputs stay equal bit for bit.",
    ),
    click.option(
        "--record",
        "record_path",
        type=FILE,
        metavar="FILE",
        help="Write what every folded BatchNorm knew, as JSON: its numbers per channel, and the range of the"
        " values after it, for quantisation without data.",
    ),
    click.option(
        "--record-in-model", is_flag=True, help="Put the same into the metadata of the file that is written."
    ),
)


def _announce_trust(ctx: click.Context, option: click.Parameter, trust: bool) -> bool:
    del option
    if trust and not ctx.resilient_parsing:
        click.echo(
            "--trust: the file may run any code on this machine, with your permissions, while it is read.",
            err=True,
        )
    return trust


torch_options = _groups.together(
    "Reading a PyTorch file",
    click.option(
        "--input-shape",
        multiple=True,
        metavar="[NAME=]SHAPE",
        help="Shape of a PyTorch model's input, such as 1x3x224x224. Repeat it with names for several inputs:"
        " --input-shape image=1x3x64x64 --input-shape mask=1x64x64.",
    ),
    click.option(
        "--dtype",
        metavar="TYPE",
        help="Type of a PyTorch model's inputs, such as float16, or by name: ids=int64,mask=bool.",
    ),
    click.option(
        "--arch",
        metavar="MODULE:FACTORY",
        help="The class or function that makes the network for a file of weights (state_dict, checkpoint,"
        " safetensors), such as torchvision.models:resnet18. It is imported, from the current folder too, and"
        " run: name only code that you trust.",
    ),
    click.option(
        "--arch-args",
        metavar="JSON",
        help="""Keyword arguments of --arch, as a JSON object: '{"num_classes": 10}'.""",
    ),
    click.option(
        "--key",
        metavar="PATH",
        help="The entry of a checkpoint that holds the model: a key such as model, or several joined by dots"
        " such as ema.state_dict. It is needed if several entries could be the model, which are then listed.",
    ),
    click.option(
        "--ignore-unexpected",
        is_flag=True,
        help="Leave out weights that the network of --arch does not have, such as counters or the heads of"
        " another task. A weight that is missing is an error all the same.",
    ),
    click.option(
        "--allow",
        multiple=True,
        metavar="CLASS",
        help="A class that a .pt file may use in addition to torch.nn's, such as package.module.Class."
        " Repeatable. It is imported and run: allow only code that you trust.",
    ),
    click.option(
        "--trust",
        is_flag=True,
        callback=_announce_trust,
        help="Let a .pt file run ANY code on this machine, with your permissions, while it is read"
        " (torch.load with weights_only=False). Use it only for a file that you or someone you trust wrote.",
    ),
    click.option(
        "--opset",
        type=click.IntRange(min=7),
        metavar="N",
        help="ONNX opset of a PyTorch model's export, which chooses one otherwise; `export` converts an ONNX"
        " file to it.",
    ),
    click.option(
        "--ir-version",
        type=click.IntRange(min=4),
        metavar="N",
        help="ONNX IR version of a PyTorch model's export, for a runtime that accepts no later one; `export`"
        " writes an ONNX file in it.",
    ),
    click.option(
        "--dynamic",
        multiple=True,
        metavar="[[INPUT:]AXIS=]NAME",
        help="Leave a size of a PyTorch model's inputs open: batch is the first size of every input, 2=height"
        " is axis 2 of every input that has it, x:2=height is axis 2 of the input x. The same name means the"
        " same size. Of an exported program it names the sizes that are open. Repeatable.",
    ),
)

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
