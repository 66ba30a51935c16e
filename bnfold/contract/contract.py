"""What a target asks of a model apart from its numbers: inputs, outputs, sizes, versions and the format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bnfold.errors import InputError

Format: TypeAlias = Literal["onnx", "ort"]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the network, to be put into the graph.

        Preprocessing(scale="1/255", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        Preprocessing(scale="1/255", bgr=True, uint8=True, channels_last=True)

    The graph computes `(x · scale − mean) / std` in the type of the network's input, after the channels were
    put into the network's order. Mean and std are those of the network's channels, so with `bgr` those of
    RGB for a network that was trained on RGB.

    Attributes:
        mean: What is subtracted from every pixel after `scale`: one number, or one for each channel.
        std: What the difference is divided by, likewise.
        scale: What a pixel is multiplied by first; `"1/255"` divides by 255.
        bgr: Whether the picture has its channels in the opposite order: BGR for a network that takes RGB.
        uint8: Whether the picture is given as bytes.
        channels_last: Whether the picture is given as `[N, H, W, C]`, to a network that takes `[N, C, H, W]`.
        input: The input that takes the picture; None takes the only one of four dimensions.

    Raises:
        InputError: A number is not valid, or nothing is to be done.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: Fraction | float | str | None = None
    bgr: bool = False
    uint8: bool = False
    channels_last: bool = False
    input: str | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean)):
            raise InputError(f"{_comma(self.mean)} is not a mean.", "Give finite numbers.")
        if not all(0 < number < math.inf for number in self.std):
            raise InputError(f"{_comma(self.std)} is not a std.", "Give finite numbers above 0.")
        if not (self.mean or self.std or self.scale is not None or self._moves):
            raise InputError(
                "No preprocessing was given for the input.",
                "Give a scale, a mean and std, or another layout.",
            )
        assert self.factor is None or self.factor > 0

    @property
    def _moves(self) -> bool:
        return self.bgr or self.uint8 or self.channels_last

    @property
    def factor(self) -> Fraction | None:
        """`scale` as a fraction; None where there is none.

        Raises:
            InputError: It is not a number above 0.
        """
        if self.scale is None:
            return None
        try:
            number = Fraction(self.scale)
        except (ValueError, ZeroDivisionError, OverflowError):
            number = Fraction(0)
        if not 0 < number < Fraction(2) ** 64:
            raise InputError(f"{self.scale} is not a scale.", "Give a number above 0, such as 1/255.")
        return number

    @classmethod
    def parse(cls, *, normalize: str | None = None, scale: str | None = None, **others: Any) -> Preprocessing:
        """Read the options of the command line.

        Args:
            normalize: Means and then deviations, as `"0.5,0.25"` or
                `"0.485,0.456,0.406,0.229,0.224,0.225"`; with a colon between the two if their numbers differ,
                as `"0.5:0.2,0.3,0.4"`; or a name in `NORMALISATIONS`.
            scale: As above.
            others: The other fields.
        """
        mean, std = _normalisation(normalize) if normalize else ((), ())
        return cls(mean, std, scale, **others)


@dataclass(frozen=True)
class Contract:
    """What is changed in a model before its fold, each change proved by running it; and the file's format.

        Contract(batch=1, opset=13, ir_version=8)
        Contract(preprocessing=Preprocessing(scale="1/255", uint8=True), rename={"x": "image"}, format="ort")

    The changes are made in the order of the fields, so that all names but those of `rename` are the file's.

    Attributes:
        outputs: Names of the values that the model is to give, in that order; what they do not need goes.
        batch: The first size of every input, where it is open.
        shapes: Sizes of inputs by their names; `""` is the only input.
        simplify: Whether constants are folded and what is not needed is removed, by onnxscript and onnx_ir.
        plain_reshapes: Whether Reshapes lose `allowzero` where it means nothing; some converters refuse it.
        plain_constants: Whether Constants hold tensors in place of numbers; some converters read no others.
        opset: Version of ONNX's operators.
        preprocessing: What is put in front of the network.
        rename: New names of inputs and outputs, by the old ones.
        ir_version: IR version of the file.
        format: `"onnx"`, or `"ort"` for ONNX Runtime's own; None goes by the suffix of the file.

    Raises:
        InputError: A number is not valid.
    """

    outputs: Sequence[str] = ()
    batch: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    simplify: bool = False
    plain_reshapes: bool = False
    plain_constants: bool = False
    opset: int | None = None
    preprocessing: Preprocessing | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    ir_version: int | None = None
    format: Format | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise InputError(f"{self.batch} is not a batch size.", "Give 1 or more.")
        for name, shape in self.shapes.items():
            if any(size < 1 for size in shape):
                raise InputError(
                    f"{tuple(shape)} is not a shape for {name or 'the input'}.", "Give sizes of 1 or more."
                )
        if self.format not in (None, "onnx", "ort"):
            raise InputError(f"{self.format!r} is not a format.", "Take onnx or ort.")

    @property
    def changes_nothing(self) -> bool:
        """Whether the model stays as it is; `format` does not count, which is of the file."""
        return not any(getattr(self, one.name) for one in fields(self) if one.name != "format")

    def format_of(self, path: Path) -> Format:
        """The format to write a file in."""
        return self.format or ("ort" if path.suffix.lower() == ".ort" else "onnx")

    def record(self) -> dict[str, Any]:
        """What was asked for as plain values, from which `from_record` makes the same contract."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: value for name, value in given.items() if value}
        if self.preprocessing is not None:
            own = vars(self.preprocessing) | {"scale": str(self.preprocessing.factor or "")}
            plain["preprocessing"] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in own.items()
                if value
            }
        lists = {
            "outputs": list(self.outputs),
            "shapes": {name: list(one) for name, one in self.shapes.items()},
        }
        return plain | {name: value for name, value in lists.items() if value}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Contract:
        """The contract that a report has."""
        given = dict(record)
        if inner := given.get("preprocessing"):
            numbers = {name: tuple(inner[name]) for name in ("mean", "std") if name in inner}
            given["preprocessing"] = Preprocessing(**{**inner, **numbers})
        return cls(**given)


AS_IT_IS = Contract()
"""Nothing is changed."""


def _normalisation(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from bnfold.inputs.given import NORMALISATIONS  # which reads much more

    if text in NORMALISATIONS:
        return NORMALISATIONS[text]
    parts = [part.split(",") for part in text.split(":")]
    if len(parts) == 1:
        half = len(parts[0]) // 2
        parts = [parts[0][:half], parts[0][half:]] if len(parts[0]) == 2 * half else []
    try:
        mean, std = (tuple(float(number) for number in part) for part in parts)
    except ValueError:
        raise InputError(
            f"--normalize {text} is not a mean and a std.",
            "Give the means and then the deviations, such as 0.485,0.456,0.406,0.229,0.224,0.225, or a name: "
            f"{', '.join(NORMALISATIONS)}.",
        ) from None
    return mean, std


def _comma(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
