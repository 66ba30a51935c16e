"""A folder of pictures as inputs of a model: one float or byte tensor, resized and normalised.

Each picture is resized as a whole, bicubic and without a crop, made RGB or grey as the model has three
channels or one, divided by 255, and normalised: `(x − mean) / std`. An input of uint8 gets the bytes as they
are. Pillow does the reading; what it warns of as a decompression bomb is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from bnfold.errors import InputError, MissingExtraError, reason
from bnfold.inputs.samples import Samples, fit
from bnfold.inputs.values import FLOATS, Array
from bnfold.runtime.interface import Port

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_USE_NPZ = "Give the arrays by name instead: --inputs FILE.npz."
_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})


@dataclass(frozen=True)
class Look:
    """How pictures become numbers.

    Attributes:
        mean: Taken off every pixel from 0 to 1; one for all channels, or one a channel.
        std: What the rest is divided by; likewise.
        size: Height and width, where the model leaves them open.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None


def pillow() -> ModuleType:
    """Pillow's module `Image`.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("Pillow", "images", "read pictures") from error
    return Image


def files(folder: Path) -> tuple[Path, ...]:
    """The pictures that lie in a folder, sorted by name; hidden files and folders within it are passed over.

    Raises:
        InputError: It cannot be read, or holds no picture.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {reason(error)}.", "Check its permissions.") from error
    pictures = tuple(path for path in found if not path.name.startswith(".") and path.is_file())
    if not pictures:
        raise InputError(
            f"{folder} holds no picture.",
            f"Put some there that end in {', '.join(SUFFIXES)}; not in folders.",
        )
    return pictures


def read(folder: Path, ports: Sequence[Port], look: Look) -> Samples:
    """Read the pictures of a folder as inputs of a model.

    One sample holds as many pictures as the model takes at a time: one, where its batch is open. Pictures
    that do not fill a last batch are left out with a note.

    Raises:
        InputError: A picture cannot be read, or the model has no input that pictures fit.
        MissingExtraError: Pillow is not installed.
    """
    found = files(folder)
    frame = _frame(ports, look)
    whole = len(found) - len(found) % frame.batch
    if not whole:
        raise InputError(
            f"The model takes {frame.batch} pictures at a time, and {folder} holds {len(found)}.",
            "Add pictures.",
        )
    groups = [found[start : start + frame.batch] for start in range(0, whole, frame.batch)]
    feeds = [{frame.name: np.stack([_tensor(path, frame, look) for path in group])} for group in groups]
    left = found[whole:]
    note = f"{len(left)} of {len(found)} pictures were left out: the model takes {frame.batch} at a time."
    return Samples(
        tuple(fit(one, ports) for one in feeds),
        (note,) if left else (),
        tuple(
            group[0].name if len(group) == 1 else f"{group[0].name} … {group[-1].name}" for group in groups
        ),
    )


@dataclass(frozen=True)
class _Frame:
    """What the model's input asks of a picture; the batch is 1 where it is open."""

    name: str
    type: str
    batch: int
    channels: Literal[1, 3]
    channels_last: bool
    height: int
    width: int


def _frame(ports: Sequence[Port], look: Look) -> _Frame:
    if len(ports) != 1:
        raise InputError(f"Pictures are one input, and the model has {len(ports)}.", _USE_NPZ)
    (port,) = ports
    if port.shape is None or len(port.shape) != 4 or port.type not in FLOATS | {"uint8"}:
        raise InputError(f"The input is no picture: {port}.", _USE_NPZ)
    batch, *_ = port.shape
    axes = [axis for axis in (1, 3) if port.shape[axis] in (1, 3)]
    if len(axes) != 1:
        raise InputError(
            f"Which dimension of the input holds the channels, 1 of grey or 3 of RGB, is not clear: {port}.",
            _USE_NPZ,
        )
    channels: Literal[1, 3] = 3 if port.shape[axes[0]] == 3 else 1
    channels_last = axes == [3]
    height, width = _size(port, port.shape[1:3] if channels_last else port.shape[2:], look.size)
    _check_look(port, channels, look)
    fixed = batch if isinstance(batch, int) else 1
    return _Frame(port.name, port.type, max(1, fixed), channels, channels_last, height, width)


def _size(port: Port, declared: Sequence[int | str | None], told: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width: as the model declares them, else as they were told."""
    sizes = []
    for place, size in enumerate(declared):
        if isinstance(size, int):
            if told and told[place] != size:
                raise InputError(
                    f"--size is {told[0]}x{told[1]}, and the model's input is {port}.", "Leave --size out."
                )
            sizes.append(size)
        elif told is None:
            raise InputError(
                f"The model leaves the size of pictures open: {port}.", "Tell it: --size 224x224, for one."
            )
        else:
            sizes.append(told[place])
    height, width = sizes
    return height, width


def _check_look(port: Port, channels: int, look: Look) -> None:
    if port.type == "uint8" and (look.mean, look.std) != (Look.mean, Look.std):
        raise InputError(
            f"The input takes bytes, which are not normalised: {port}.", "Leave --mean and --std out."
        )
    for option, numbers in (("--mean", look.mean), ("--std", look.std)):
        if len(numbers) not in (1, channels):
            raise InputError(
                f"{option} has {len(numbers)} numbers, and the pictures have {channels} channel"
                f"{'s' * (channels > 1)}.",
                f"Give one{', or one a channel' * (channels > 1)}.",
            )


def _tensor(path: Path, frame: _Frame, look: Look) -> Array:
    """One picture as `[C, H, W]` or `[H, W, C]`, of the input's type."""
    pixels = _pixels(path, frame)
    if frame.type != "uint8":
        # In float64 and rounded once, as with everything that comes near a comparison.
        pixels = ((pixels / 255.0 - np.array(look.mean)) / np.array(look.std)).astype(frame.type)
    return pixels if frame.channels_last else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _pixels(path: Path, frame: _Frame) -> Array:
    """The resized picture as bytes `[H, W, C]`."""
    image = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged comment in a file is no matter here
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with image.open(path) as picture:
                if picture.mode not in _EIGHT_BITS:
                    raise InputError(
                        f"{path} has pixels of the mode {picture.mode}, and not of 8 bits a channel.",
                        "Save it as an ordinary RGB or grey picture.",
                    )
                # by way of RGBA, because a palette may have transparent colours
                plain = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
                coloured = plain.convert("RGB" if frame.channels == 3 else "L")
                resized = coloured.resize((frame.width, frame.height), image.Resampling.BICUBIC)
    except InputError:
        raise
    except (image.DecompressionBombWarning, image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is so large that it may be a decompression bomb: {reason(error)}.",
            "Scale it down, or take it out of the folder.",
        ) from error
    except Exception as error:  # each of Pillow's decoders fails in its own way on a damaged file
        raise InputError(
            f"{path} cannot be read as a picture: {reason(error)}.",
            "Replace it, or take it out of the folder.",
        ) from error
    return np.asarray(resized).reshape(frame.height, frame.width, frame.channels)
