"""The options for a model's contract: what it takes and gives, its versions, and the format of the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from . import _groups

if TYPE_CHECKING:
    from bnfold.contract.contract import Contract

_TITLE = "What the model takes and gives"
_GROUP = (
    click.option(
        "--normalize",
        metavar="MEAN,STD",
        help="Put the normalisation of pictures into the graph: the means and then the deviations of the"
        " channels, as in 0.5,0.25 or 0.485,0.456,0.406,0.229,0.224,0.225, or imagenet for these."
        " What is exact of it goes into the first layer.",
    ),
    click.option(
        "--scale",
        metavar="NUMBER",
        help="Put a scale into the graph, which comes before --normalize: 1/255 for pictures whose pixels"
        " range from 0 to 255.",
    ),
    click.option(
        "--bgr",
        is_flag=True,
        help="Take pictures with their channels in the opposite order: BGR for a network that takes RGB. The"
        " numbers of --normalize stay those of the network's channels.",
    ),
    click.option("--uint8-input", is_flag=True, help="Take pictures as bytes."),
    click.option(
        "--channels-last-input", is_flag=True, help="Take pictures as [N, H, W, C] instead of [N, C, H, W]."
    ),
    click.option(
        "--preprocess-input",
        metavar="NAME",
        help="The input that takes the picture; needed if several have four dimensions.",
    ),
    click.option(
        "--set-batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Set the first size of every input, where it is open.",
    ),
    click.option(
        "--set-shape",
        multiple=True,
        metavar="[NAME=]SHAPE",
        help="Set the open sizes of an input of an ONNX model, as in 1x3x224x224. Repeat it with names for"
        " several inputs. A name that stands for a size does so everywhere.",
    ),
    click.option(
        "--rename", multiple=True, metavar="OLD=NEW", help="Rename an input or an output. Repeatable."
    ),
    click.option(
        "--outputs",
        multiple=True,
        metavar="NAME[,NAME]",
        help="Let the model give these values, which may be inner ones, and remove what they do not need.",
    ),
)

_SIMPLIFY = click.option(
    "--simplify",
    is_flag=True,
    help="Fold constants and remove what is not needed, with onnxscript and onnx_ir. With --set-shape,"
    " sizes are constants.",
)

_VERSIONS = (
    click.option(
        "--opset",
        type=click.IntRange(min=7),
        metavar="N",
        help="Write the model in this ONNX opset, if its operators are the same there; `bnfold export`"
        " converts others, which only a run proves.",
    ),
    click.option(
        "--ir-version",
        type=click.IntRange(min=4),
        metavar="N",
        help="Write the file in this IR version, for a runtime that accepts no later one.",
    ),
)

_FORMAT = click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "ort"]),
    help="The format of the file: onnx, or ort for ONNX Runtime's own, which its small builds read. Without"
    " it, the suffix of OUT decides.",
)

_OWN = (
    *("normalize", "scale", "bgr", "uint8_input", "channels_last_input", "preprocess_input"),
    *("set_batch", "set_shape", "rename", "outputs"),
)


def contract_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for `export`, whose `--opset` and `--ir-version` are those for PyTorch files too.

    A command gets `contract`.
    """

    @functools.wraps(command)
    def with_contract(*, file_format: str | None, simplify: bool, **options: Any) -> Any:
        own = {name: options.pop(name) for name in _OWN}
        return command(contract=_contract(file_format=file_format, simplify=simplify, **own), **options)

    return _groups.together(_TITLE, *_GROUP, _SIMPLIFY, _FORMAT)(with_contract)


def contract_options_of_fold(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for `fold`, which writes ONNX files only and runs nothing.

    It has no `--simplify`, which only a run can prove.
    """

    @functools.wraps(command)
    def with_contract(*, opset: int | None, ir_version: int | None, **options: Any) -> Any:
        own = {name: options.pop(name) for name in _OWN}
        return command(contract=_contract(opset=opset, ir_version=ir_version, **own), **options)

    return _groups.together(_TITLE, *_GROUP, *_VERSIONS)(with_contract)


def _contract(
    *,
    opset: int | None = None,
    ir_version: int | None = None,
    simplify: bool = False,
    file_format: str | None = None,
    **own: Any,
) -> Contract:
    from bnfold.contract.contract import Contract, Preprocessing

    prepares = {
        "normalize": own["normalize"],
        "scale": own["scale"],
        "bgr": own["bgr"],
        "uint8": own["uint8_input"],
        "channels_last": own["channels_last_input"],
    }
    if own["preprocess_input"] is not None and not any(prepares.values()):
        raise click.UsageError(
            "--preprocess-input needs --normalize, --scale or another layout of the input."
        )
    preprocessing = None
    if any(prepares.values()):
        preprocessing = Preprocessing.parse(**prepares, input=own["preprocess_input"])
    return Contract(
        outputs=tuple(name for names in own["outputs"] for name in names.split(",") if name),
        batch=own["set_batch"],
        shapes=_pairs("--set-shape", [_shape(text) for text in own["set_shape"]]),
        simplify=simplify,
        opset=opset,
        preprocessing=preprocessing,
        rename=_pairs("--rename", [_renaming(text) for text in own["rename"]]),
        ir_version=ir_version,
        format=file_format,  # type: ignore[arg-type]  # click has checked it
    )


def _pairs(option: str, pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise click.UsageError(f"{option} gives a name twice.")
    return found


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        return name, tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        raise click.UsageError(
            f"--set-shape {text} is not a shape: write it as 1x3x224x224, or with the input's name as"
            " image=1x3x224x224."
        ) from None


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise click.UsageError(f"--rename {text} is not a pair of names: write it as OLD=NEW.")
    return old, new
