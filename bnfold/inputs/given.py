"""Real inputs: arrays by name from an `.npz`, one array from an `.npy`, or a folder of pictures.

The content of a path decides which of them it is, not its name. A model whose batch size is fixed may be
given a longer array: every batch in it becomes one sample. An input with a single batch is used for all.
With labels each row is an example of its own, so that an open batch may be cut too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from bnfold.errors import InputError, listed, reason
from bnfold.files.file_kind import FileKind, sha256
from bnfold.inputs import coverage, images, labels, uses
from bnfold.inputs.arrays import WRITE_NPZ, load_npy, load_npz
from bnfold.inputs.samples import Samples, fit
from bnfold.inputs.values import Array
from bnfold.runtime.interface import Port
from bnfold.runtime.sessions import Feeds

NORMALISATIONS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Mean and standard deviation of RGB from 0 to 1, by the name of their data set."""

_HEAD = 4096
_ROWS = 32  # at a time, of labelled data for a model that takes any number
_KINDS = "an .npz or .npy file that NumPy wrote, or a folder of pictures"


@dataclass(frozen=True)
class Given:
    """Where real inputs are, and how pictures become numbers. At first only the kind is read.

    Attributes:
        path: An `.npz`, an `.npy`, or a folder of pictures.
        mean: Mean of pictures with pixels from 0 to 1: one number, or one for each channel.
        std: Their standard deviation, likewise.
        size: Height and width of pictures, where the model leaves them open.
        labels: A file with the class of every row, as [`labels.read`][bnfold.inputs.labels.read] reads it.
        top: The `k` of the top-k accuracy that is measured with them.
        raw: Whether pixels range from 0 to 255, for a model that scales them itself.
        bgr: Whether pictures are given with their channels in the order BGR.

    Raises:
        InputError: The path does not exist or holds something else, or a number is not valid.
        MissingExtraError: Pillow is needed and not installed.
    """

    path: Path
    mean: tuple[float, ...] = images.Look.mean
    std: tuple[float, ...] = images.Look.std
    size: tuple[int, int] | None = None
    labels: Path | None = None
    top: int = 5
    raw: bool = False
    bgr: bool = False

    def __post_init__(self) -> None:
        if self.kind == "images":
            images.pillow()
            images.files(self.path)
        elif self._look != images.Look():
            raise InputError(f"{self.path} holds no pictures.", "Leave --mean, --std and --size out.")
        if not self.mean or not all(map(math.isfinite, self.mean)):
            raise InputError(f"{_comma(self.mean)} is not a mean.", "Give finite numbers.")
        if not self.std or not all(0 < number < math.inf for number in self.std):
            raise InputError(f"{_comma(self.std)} is not a std.", "Give finite numbers above 0.")
        if self.size and min(self.size) < 1:
            raise InputError(f"{self.size[0]}x{self.size[1]} is not a size.", "Write it as 224x224.")
        if self.labels and not self.labels.is_file():
            raise InputError(f"{self.labels} is not a file.", "Give a file with the class of every row.")
        if self.top < 1:
            raise InputError(f"Top-{self.top} is not an accuracy.", "Give 1 or more.")

    @classmethod
    def parse(
        cls,
        path: Path,
        *,
        mean: str | None = None,
        std: str | None = None,
        size: str | None = None,
        labels: Path | None = None,
        top: int = top,
    ) -> Given:
        """Read the options of the command line.

        Args:
            path: As above.
            mean: `"0.5"`, `"0.485,0.456,0.406"`, or a name in `NORMALISATIONS`; a name sets both where the
                other is not given.
            std: Likewise.
            size: Height and width as `"224x224"`.
            labels: As above.
            top: As above.
        """
        if mean in NORMALISATIONS and std is None:
            std = mean
        elif std in NORMALISATIONS and mean is None:
            mean = std
        return cls(
            path,
            _numbers("--mean", mean, 0) or cls.mean,
            _numbers("--std", std, 1) or cls.std,
            _size(size) if size else None,
            labels,
            top,
        )

    @cached_property
    def kind(self) -> Literal["npz", "npy", "images"]:
        """What the path holds."""
        if self.path.is_dir():
            return "images"
        with _opened(self.path) as stream:
            head = stream.read(_HEAD)
        if head.startswith(b"PK"):
            return "npz"
        if head.startswith(b"\x93NUMPY"):
            return "npy"
        raise InputError(
            f"{self.path} is {FileKind.of(head)}.",
            f"Give {_KINDS}. {WRITE_NPZ}",
        )

    def samples(self, ports: Sequence[Port]) -> Samples:
        """Read the inputs for a model that has these ports.

        Raises:
            InputError: They cannot be read, or do not fit the model.
        """
        if self.kind == "images":
            samples = images.read(self.path, ports, self._look)
            return self._classified(samples, [path.name for path in images.files(self.path)])
        arrays, notes = self._arrays(ports)
        classes = None if self.labels is None else labels.read(self.labels)
        lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
        if classes is not None and len(classes) not in lengths.values():
            found = ", ".join(f"{length} for {name}" for name, length in lengths.items())
            raise InputError(
                f"{self.labels} has {len(classes)} labels, and {self.path} has rows: {found}.",
                "Give one label for each row.",
            )
        batches = _batches(arrays, ports, 0 if classes is None else len(classes))
        names = _numbered(self.path.name, len(batches))
        return Samples(tuple(fit(batch, ports) for batch in batches), notes, names, classes=classes)

    def _arrays(self, ports: Sequence[Port]) -> tuple[Feeds, tuple[str, ...]]:
        """The arrays that the model takes, and a note on others that the file has."""
        names = [port.name for port in ports]
        if self.kind == "npz":
            arrays = load_npz(self.path)
            others = sorted(arrays.keys() - set(names))
            if not others or not arrays.keys() >= set(names):
                return arrays, ()  # where an input is missing, that is an error with all names
            note = f"{listed(others)} of {self.path.name} left out: the model takes {listed(names)}."
            return {name: array for name, array in arrays.items() if name in names}, (note,)
        if len(names) == 1:
            return {names[0]: load_npy(self.path)}, ()
        raise InputError(
            f"{self.path} holds one array without a name, and the model has {len(names)} inputs.",
            WRITE_NPZ,
        )

    def _classified(self, samples: Samples, pictures: Sequence[str]) -> Samples:
        """Pictures with their classes; those that were left out are the last ones."""
        if self.labels is None:
            return samples
        classes = labels.read(self.labels, pictures)
        if len(classes) != len(pictures):
            raise InputError(
                f"{self.labels} has {len(classes)} labels, and {self.path} has {len(pictures)} pictures.",
                "Give one label for each picture, in the order of their names, or lines name,class.",
            )
        used = sum(len(array) for feeds in samples.feeds for array in feeds.values())
        return replace(samples, classes=classes[:used])

    def record(self) -> dict[str, Any]:
        """The inputs as evidence in a report: the fields of this object, and hashes.

        Returns:
            `kind`, `path`, `count` (of files), `sha256` by the name of each file in the order of use; for
            pictures also `mean`, `std` and `size`; with labels their `labels`, `labels_sha256` and `top`.
        """
        pictures = self.kind == "images"
        files = images.files(self.path) if pictures else (self.path,)
        record: dict[str, Any] = {"kind": self.kind, "path": os.fspath(self.path), "count": len(files)}
        record["sha256"] = {path.name: _sha256(path) for path in files}
        if pictures:
            size = None if self.size is None else list(self.size)
            record |= {"mean": list(self.mean), "std": list(self.std), "size": size}
        if self.labels:
            digest = _sha256(self.labels)
            record |= {"labels": os.fspath(self.labels), "labels_sha256": digest, "top": self.top}
        return record

    @property
    def _look(self) -> images.Look:
        return images.Look(self.mean, self.std, self.size, self.raw, self.bgr)


Inputs: TypeAlias = Feeds | Sequence[Feeds] | Given | Samples
"""Inputs that a caller gives: arrays by name, several such mappings, files, or samples chosen before."""


def as_samples(inputs: Inputs, ports: Sequence[Port]) -> Samples:
    """The inputs that a caller gives, each checked against the model and converted to its types.

    Raises:
        InputError: There is not a single one, or one does not fit.
    """
    if isinstance(inputs, Given):
        samples = inputs.samples(ports)
    elif isinstance(inputs, Samples):
        fitted = tuple(fit(one, ports) for one in inputs.feeds)
        samples = Samples(fitted, inputs.notes, inputs.labels)
    else:
        several = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        if not several:
            raise InputError("The list of inputs is empty.", "Give one mapping of names to arrays, or more.")
        fitted = tuple(fit(one, ports) for one in several)
        samples = Samples(fitted, labels=_numbered("given", len(several)))
    return replace(
        samples,
        dimensions=coverage.dimensions(ports, samples.feeds),
        integers=coverage.integers(ports, samples.feeds, uses.of(ports)),
    )


# --- arrays ------------------------------------------------------------------------------------------------


def _batches(arrays: Feeds, ports: Sequence[Port], rows: int = 0) -> list[Feeds]:
    """Cut arrays into batches of the size that the model takes; without need, nothing is cut.

    Arrays of as many rows as there are labels are cut also where the batch size is open.
    """
    steps = {port.name: batch for port in ports if (batch := _fixed_batch(port, arrays.get(port.name)))}
    step = next(iter(steps.values()), _ROWS)
    if rows > step:
        open_batch = [port.name for port in ports if port.shape and not isinstance(port.shape[0], int)]
        steps |= {name: step for name in open_batch if name in arrays and len(arrays[name]) == rows}
    counts = {name: math.ceil(len(arrays[name]) / batch) for name, batch in steps.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} for {name}" for name, count in counts.items())
        raise InputError(f"The inputs have different numbers of batches: {found}.", "Give equal numbers.")
    return [
        {
            name: array[number * steps[name] : (number + 1) * steps[name]] if name in steps else array
            for name, array in arrays.items()
        }
        for number in range(next(iter(counts.values()), 1))
    ]


def _fixed_batch(port: Port, array: Array | None) -> int:
    """The model's batch size where the array is longer; 0 where it is not to be cut."""
    if array is None or not port.shape or array.ndim != len(port.shape):
        return 0
    batch = port.shape[0]
    if not isinstance(batch, int) or batch < 1 or len(array) <= batch:
        return 0
    if rest := len(array) % batch:
        raise InputError(
            f"The input {port.name!r} was given {len(array)} rows, and the model takes {batch} at a time.",
            f"Leave out the last {rest}, or add {batch - rest}. The model expects {port}.",
        )
    return batch


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name} {number} of {count}" for number in range(1, count + 1))


# --- files ------------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path} is not there.", "Check the path; it is relative to this folder.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.", "Check its permissions.") from error


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.", f"Give {_KINDS}.") from error


# --- the command line -------------------------------------------------------------------------------------


def _numbers(option: str, text: str | None, place: int) -> tuple[float, ...] | None:
    """The numbers of `--mean` (`place` 0) or `--std` (1); None where the option is not given."""
    if text is None:
        return None
    if text in NORMALISATIONS:
        return NORMALISATIONS[text][place]
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{text!r} is not a value of {option}.",
            f"Write it as 0.5, as 0.485,0.456,0.406, or by a name: {', '.join(NORMALISATIONS)}.",
        ) from None


def _comma(numbers: Sequence[float]) -> str:
    return ",".join(map(str, numbers)) or "Nothing"


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a value of --size.", "Write height and width as 224x224.")
    return int(match[1]), int(match[2])
