"""The options for fewer bits, which `bnfold export` takes: half precision, or eight bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _groups, _options, _terminal

if TYPE_CHECKING:
    from bnfold.pipeline.narrow import Convert, Quantize

_GROUP = (
    click.option(
        "--precision",
        type=click.Choice(["float16", "bfloat16", "mixed"]),
        help="Convert the folded model to half precision; mixed is float16 with sums, norms and exponentials"
        " in float32. What leaves the range is scaled by powers of two, or stays in float32.",
    ),
    click.option(
        "--half-io", is_flag=True, help="With --precision: inputs and outputs in half precision, too."
    ),
    click.option(
        "--int8",
        is_flag=True,
        help="Quantise the folded model with ONNX Runtime's tool (QDQ); it needs --calibration.",
    ),
    click.option(
        "--calibration",
        type=_options.FILE,
        metavar="PATH",
        help="Real data to measure ranges on for --int8, in the forms of --inputs: some hundred rows.",
    ),
    click.option(
        "--per-channel/--per-tensor",
        "per_channel",
        default=False,
        show_default=True,
        help="With --int8: one scale for each output channel of a weight, or one for all of it.",
    ),
    click.option(
        "--symmetric", is_flag=True, help="With --int8: the zero point of activations is the middle."
    ),
    click.option("--signed", is_flag=True, help="With --int8: activations are int8 instead of uint8."),
    click.option(
        "--pow2-scales",
        is_flag=True,
        help="With --int8: all scales are powers of two, for targets that shift instead of multiplying.",
    ),
    click.option(
        "--bias-correction/--no-bias-correction",
        "correct_biases",
        default=True,
        show_default=True,
        help="With --int8: let biases make up for what rounded weights shift on average, where that helps.",
    ),
    click.option(
        "--leave",
        multiple=True,
        metavar="NAME",
        help="With --precision or --int8: leave this node, or all of this PyTorch module, in float32."
        " Repeatable.",
    ),
)
_OF_IMAGES = ("mean", "std", "size")


def narrow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for fewer bits: a command gets `narrow`, a last step, or None.

    It stands above `data_options`, whose options say how pictures become numbers for --calibration, too.
    """

    @functools.wraps(command)
    def with_narrow(*, precision: str | None, int8: bool, **options: Any) -> Any:
        own = {name: options.pop(name) for name in _OWN}
        _check(precision, int8=int8, **own)
        narrow: Convert | Quantize | None = None
        if precision is not None:
            narrow = _convert(precision, **own)
        elif int8:
            images = {name: options[name] for name in _OF_IMAGES if name in options}
            narrow = _quantize(images, **own)
        return command(narrow=narrow, **options)

    return _groups.together("Fewer bits", *_GROUP)(with_narrow)


_OWN = (
    *("half_io", "calibration", "per_channel", "symmetric", "signed", "pow2_scales", "leave"),
    "correct_biases",
)
_OF_INT8 = ("calibration", "per_channel", "symmetric", "signed", "pow2_scales")


def _check(precision: str | None, *, int8: bool, **own: Any) -> None:
    if precision is not None and int8:
        raise click.UsageError("--precision and --int8 exclude each other.")
    if int8 and own["calibration"] is None:
        raise click.UsageError("--int8 needs --calibration, data to measure ranges on.")
    if not int8 and (given := [name for name in _OF_INT8 if own[name]]):
        raise click.UsageError(f"--{given[0].replace('_', '-')} needs --int8.")
    if not int8 and not own["correct_biases"]:
        raise click.UsageError("--no-bias-correction needs --int8.")
    if precision is None and own["half_io"]:
        raise click.UsageError("--half-io needs --precision.")
    if precision is None and not int8 and own["leave"]:
        raise click.UsageError("--leave needs --precision or --int8.")


def _convert(precision: Any, *, half_io: bool, leave: tuple[str, ...], **_: Any) -> Convert:
    from bnfold.pipeline.narrow import Convert

    return Convert(precision, keep_io=not half_io, leave=leave)


def _quantize(images: dict[str, Any], *, calibration: Path, half_io: bool, **scheme: Any) -> Quantize:
    from bnfold.edge.quantize import Scheme
    from bnfold.pipeline.narrow import Quantize

    del half_io
    data = _terminal.read_inputs(calibration, **images)
    assert data is not None, "there is a path"
    return Quantize(Scheme(**scheme), data)
