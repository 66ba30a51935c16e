"""A folder of pictures as inputs of a model: one float or byte tensor, resized and normalised.

Each picture is resized as a whole, bicubic and without a crop, converted to RGB or grey depending on whether
the model has three channels or one, divided by 255, and normalised: `(x − mean) / std`. An input of uint8
gets the bytes as they are. Pillow reads the files; what it takes for a decompression bomb is refused.
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
from bnfold.inputs.values import NUMPY_FLOATS, Array
from bnfold.runtime.interface import Port

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_USE_NPZ = "Give the arrays by name instead: --inputs FILE.npz."
_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})


@dataclass(frozen=True)
class Look:
    """How pictures become numbers.

    Attributes:
        mean: Subtracted from every pixel from 0 to 1; one for all channels, or one for each.
        std: What the difference is divided by; likewise.
        size: Height and width, where the model leaves them open.
        raw: Whether pixels stay as they are, from 0 to 255, before `mean` is subtracted.
        bgr: Whether the channels are in the order BGR.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    raw: bool = False
    bgr: bool = False


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
    """The pictures in a folder, sorted by name; hidden files and folders in it are ignored.

    Raises:
        InputError: It cannot be read, or has no picture in it.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {reason(error)}.", "Check its permissions.") from error
    pictures = tuple(path for path in found if not path.name.startswith(".") and path.is_file())
    if not pictures:
        raise InputError(
            f"{folder} has no pictures in it.",
            f"Put files that end in {', '.join(SUFFIXES)} directly into it.",
        )
    return pictures


def read(folder: Path, ports: Sequence[Port], look: Look) -> Samples:
    """Read the pictures of a folder as inputs of a model.

    One sample holds as many pictures as the model takes at a time: one, where its batch size is open.
    Pictures that do not fill a last batch are left out with a note.

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
    """What the model's input requires of a picture; an open batch size is 1."""

    name: str
    type: str
    batch: int
    channels: Literal[1, 3]
    channels_last: bool
    height: int
    width: int


def _frame(ports: Sequence[Port], look: Look) -> _Frame:
    if len(ports) != 1:
        raise InputError(f"Pictures are a single input, and the model has {len(ports)}.", _USE_NPZ)
    (port,) = ports
    if port.shape is None or len(port.shape) != 4 or port.type not in NUMPY_FLOATS | {"uint8"}:
        raise InputError(f"The input is not a picture: {port}.", _USE_NPZ)
    batch, *_ = port.shape
    axes = [axis for axis in (1, 3) if port.shape[axis] in (1, 3)]
    if len(axes) != 1:
        raise InputError(
            f"It is not clear which dimension holds the channels (1 for grey, 3 for RGB): {port}.",
            _USE_NPZ,
        )
    channels: Literal[1, 3] = 3 if port.shape[axes[0]] == 3 else 1
    channels_last = axes == [3]
    height, width = _size(port, port.shape[1:3] if channels_last else port.shape[2:], look.size)
    _check_look(port, channels, look)
    fixed = batch if isinstance(batch, int) else 1
    return _Frame(port.name, port.type, max(1, fixed), channels, channels_last, height, width)


def _size(port: Port, declared: Sequence[int | str | None], given: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width as the model declares them, otherwise as they are given."""
    sizes = []
    for place, size in enumerate(declared):
        if isinstance(size, int):
            if given and given[place] != size:
                raise InputError(
                    f"--size is {given[0]}x{given[1]}, and the model's input is {port}.", "Leave --size out."
                )
            sizes.append(size)
        elif given is None:
            raise InputError(
                f"The model leaves the size of pictures open: {port}.", "Give it, for example --size 224x224."
            )
        else:
            sizes.append(given[place])
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
                f"{option} has {len(numbers)} numbers, and the pictures have "
                f"{'1 channel' if channels == 1 else '3 channels'}.",
                "Give one." if channels == 1 else "Give one, or one for each channel.",
            )


def _tensor(path: Path, frame: _Frame, look: Look) -> Array:
    """One picture as `[C, H, W]` or `[H, W, C]`, of the input's type."""
    pixels = _pixels(path, frame)
    if look.bgr:
        pixels = np.ascontiguousarray(pixels[..., ::-1])
    if frame.type != "uint8":
        # In float64 and rounded once, like everything that is compared later.
        pixels = ((pixels / (1.0 if look.raw else 255.0) - np.array(look.mean)) / np.array(look.std)).astype(
            frame.type
        )
    return pixels if frame.channels_last else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _pixels(path: Path, frame: _Frame) -> Array:
    """The resized picture as bytes `[H, W, C]`."""
    image = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged comment in a file does not matter here
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with image.open(path) as picture:
                if picture.mode not in _EIGHT_BITS:
                    raise InputError(
                        f"{path} has pixels of the mode {picture.mode} instead of 8 bits per channel.",
                        "Save it as an ordinary RGB or grey picture.",
                    )
                # through RGBA, because a palette may have transparent colours
                plain = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
                coloured = plain.convert("RGB" if frame.channels == 3 else "L")
                resized = coloured.resize((frame.width, frame.height), image.Resampling.BICUBIC)
    except InputError:
        raise
    except (image.DecompressionBombWarning, image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is so large that it may be a decompression bomb: {reason(error)}.",
            "Scale it down, or remove it from the folder.",
        ) from error
    except Exception as error:  # each of Pillow's decoders fails in its own way on a damaged file
        raise InputError(
            f"{path} cannot be read as a picture: {reason(error)}.",
            "Replace it, or remove it from the folder.",
        ) from error
    return np.asarray(resized).reshape(frame.height, frame.width, frame.channels)
