"""The options that several commands share, in groups that a command takes as decorators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

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
        "--allow",
        multiple=True,
        metavar="CLASS",
        help="A class that a .pt may use beyond torch.nn's own, as package.module.Class. Repeatable."
        " Allow only what you trust: it is imported and runs.",
    ),
    click.option(
        "--opset",
        type=click.IntRange(min=7),
        metavar="N",
        help="ONNX opset that a PyTorch model is exported to.",
    ),
    click.option("--dynamic-batch", is_flag=True, help="Leave the batch size of a PyTorch model open."),
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

data_options = _together(
    click.option(
        "--inputs",
        "inputs_path",
        type=FILE,
        metavar="FILE.npz",
        help="Real data to run on, one array an input, by name; seeded random data otherwise.",
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

validation_options = _together(
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=3,
        metavar="N",
        show_default=True,
        help="How many random inputs to compare on.",
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(min=0),
        metavar="NUMBER",
        help="Largest relative error that passes. Chosen by the type of each output otherwise.",
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
        help="How long to time, on each provider.",
    ),
)
