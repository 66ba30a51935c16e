"""The options that several commands share, in groups that a command takes as decorators.

Here are those for the files that are read, folded and written; those for running models are in
`_run_options`.
"""

from __future__ import annotations

from pathlib import Path

import click

from . import _groups

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
