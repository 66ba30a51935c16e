"""The options that several commands share, in groups that a command takes as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from . import _terminal

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
"""A path that bnfold itself looks at, so that its message about a missing file is the same everywhere."""


def _together(*options: Callable[[Any], Any]) -> Callable[[CommandT], CommandT]:
    """Make one decorator of several; the help shows the options in this order."""

    def decorate(command: CommandT) -> CommandT:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


output_options = _together(
    click.option(
        "--json",
        "json_path",
        type=FILE,
        metavar="FILE",
        help="Write a report for programs, described by docs/report.schema.json; - for standard output.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
)

fold_options = _together(
    click.option(
        "--keep",
        multiple=True,
        metavar="NAME",
        help="A BatchNorm, by the name that `bnfold inspect` shows, that shall stay as it is. Repeatable.",
    ),
    click.option(
        "--no-merge",
        "merge",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Leave parallel branches apart that could be one convolution.",
    ),
    click.option(
        "--inline",
        "inline_functions",
        is_flag=True,
        help="Inline model-local functions first, so that weights that are passed to them can be folded.",
    ),
)


def _announce_trust(ctx: click.Context, option: click.Parameter, trust: bool) -> bool:
    del option
    if trust and not ctx.resilient_parsing:
        click.echo(
            "--trust: the file may run any code on this machine, with your rights, while it is read.",
            err=True,
        )
    return trust


torch_options = _together(
    click.option(
        "--input-shape",
        multiple=True,
        metavar="[NAME=]SHAPE",
        help="Shape of a PyTorch model's input, as 1x3x224x224; for several inputs once each, as x=1x3x8x8.",
    ),
    click.option(
        "--dtype",
        metavar="TYPE",
        help="Type of a PyTorch model's inputs, as float16 or ids=int64,mask=bool.",
    ),
    click.option(
        "--arch",
        metavar="MODULE:FACTORY",
        help="What makes the network for a file of weights (state_dict, checkpoint, safetensors), as"
        " package.module:factory. It is imported, from this folder too, and runs: name only what you trust.",
    ),
    click.option(
        "--arch-args",
        metavar="JSON",
        help="""Keyword arguments of --arch, as '{"num_classes": 10}'.""",
    ),
    click.option(
        "--key",
        metavar="PATH",
        help="Where in a checkpoint the model is, with dots, as ema.state_dict; needed if it holds several.",
    ),
    click.option(
        "--allow",
        multiple=True,
        metavar="CLASS",
        help="A class that a .pt may use beyond torch.nn's own, as package.module.Class. Repeatable."
        " Allow only what you trust: it is imported and runs.",
    ),
    click.option(
        "--trust",
        is_flag=True,
        callback=_announce_trust,
        help="Let a .pt run ANY code on this machine, with your rights, while it is read (torch.load with"
        " weights_only=False). Only for a file that you or somebody you trust wrote.",
    ),
    click.option(
        "--opset",
        type=click.IntRange(min=7),
        metavar="N",
        help="ONNX opset that a PyTorch model is exported to.",
    ),
    click.option(
        "--ir-version",
        type=click.IntRange(min=4),
        metavar="N",
        help="IR version of the ONNX file that a PyTorch model is exported to.",
    ),
    click.option(
        "--dynamic",
        multiple=True,
        metavar="[[INPUT:]AXIS=]NAME",
        help="A size of a PyTorch model to leave open: batch, the first of every input; 2=height, an axis of"
        " every input that has it; x:2=height, of one input. One name stands for one size. Repeatable.",
    ),
)

provider_option = click.option(
    "--provider",
    "providers",
    type=click.Choice(["cpu", "cuda"]),
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Where to run the models. Repeatable.",
)

_given_options = _together(
    click.option(
        "--inputs",
        "inputs_path",
        type=FILE,
        metavar="PATH",
        help="Real data to run on: an .npz of arrays by input name, an .npy, or a folder of pictures;"
        " seeded random data otherwise.",
    ),
    click.option(
        "--mean",
        metavar="NUMBERS",
        help="What pictures are normalised by, one number or one a channel, as 0.485,0.456,0.406; pixels go"
        " from 0 to 1. imagenet stands for both --mean and --std.",
    ),
    click.option("--std", metavar="NUMBERS", help="Likewise; pixels are divided by it after --mean."),
    click.option(
        "--size", metavar="HxW", help="Height and width of pictures, where the model leaves them open."
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        show_default=True,
        help="Of the random data.",
    ),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to run on: the command gets `inputs`, which is None for random data, and `seed`."""

    @functools.wraps(command)
    def with_inputs(
        *, inputs_path: Path | None, mean: str | None, std: str | None, size: str | None, **options: Any
    ) -> Any:
        return command(inputs=_terminal.read_inputs(inputs_path, mean=mean, std=std, size=size), **options)

    return _given_options(with_inputs)


validation_options = _together(
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=6,
        metavar="N",
        show_default=True,
        help="How many random inputs to compare on: normal, uniform, zeros, ones, large, tiny, and again.",
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(min=0),
        metavar="NUMBER",
        help="Largest difference from the original, relative to an output's scale, that passes. Without it"
        " the float64 oracle decides: hardly farther from the truth than the original is.",
    ),
    click.option(
        "--oracle",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Evaluate the original in float64 as the reference: where it does not take too long, always, or"
        " never.",
    ),
    click.option(
        "--per-layer", is_flag=True, help="Measure ONNX Runtime's error at every value that both models have."
    ),
)

timing_options = _together(
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        show_default=True,
        help="ONNX Runtime's threads for the timing.",
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=10,
        metavar="NUMBER",
        show_default=True,
        help="How long to time, on each provider, in all.",
    ),
)

batch_option = click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="Batch size to time, of a model that leaves it open; repeatable, and they share the time.",
)
