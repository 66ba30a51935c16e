"""Eight-bit networks before and after equalisation, on the digits.

    python -m benchmarks.equalize [NETWORK ...] [--peers PYTHON] [--markdown FILE]

Every network of models/ is trained unless its file is kept, folded, and quantised by ONNX Runtime's own tool
(static, QDQ, 300 training digits, one range a value) with one step a weight and with one step a channel, as
it is and after equalisation; then again with its channels scaled by random powers of two, which changes no
output and is what training may leave. The ratio of signal to noise of the logits is over all held-out digits,
of one after another. With `--peers`, an interpreter that has AIMET's package aimet-onnx, its equalisation is
measured on the same files. Exits with 1 if equalisation changes one bit.
"""

from __future__ import annotations

import argparse
import logging
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import bnfold
from benchmarks.page import markdown_table, today
from bnfold.edge.channels import Channels
from bnfold.edge.equalize import equalize, write
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.pipeline.read import read_model
from models import files
from models.digits import Digits, digits
from models.train import CLASSIFIERS, KEPT, train

Array = npt.NDArray[np.float32]
DEFAULT = ("MobileOneNet", "RepVGGNet", "InvertedResidualNet", "SmallResNet", "PreActResNet")
CALIBRATION = 300
SPREADS = (0, 2, 4)
FOLDER = Path("out") / "equalize"  # ignored by git
HEADER = (
    *("network", "channels scaled by", "float32", "bits lost", "variant"),
    *("one step a weight", "one step a channel"),
)
_AIMET = """
import sys, onnx
from aimet_onnx.cross_layer_equalization import equalize_model
from aimet_onnx.utils import *
model = onnx.load(sys.argv[1])
found = equalize_model(model)
model = getattr(found, "model", None) or getattr(model, "model", model)
onnx.save(getattr(model, "model", model), sys.argv[2])
"""

_NOTES = (
    "Two things to know. The random powers of two are on the very channels that equalisation may scale, so"
    " that these rows show whether it undoes what it can undo, and favour it over a tool that looks for other"
    " pairs. And its candidates were chosen on MobileOneNet and RepVGGNet, with the first 200 of these digits"
    " and one step a weight; the other three networks were not looked at for that.",
    "",
    "“AIMET” is `equalize_model` of the package aimet-onnx with its defaults, on the same folded file. It"
    " multiplies by real factors.",
    "",
)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, images: Array) -> None:
        self._feeds: Iterator[dict[str, Array]] = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        """The next feed."""
        return next(self._feeds, None)


def run(model: onnx.ModelProto | Path, images: Array) -> Array:
    """The logits of one image after another, in ONNX Runtime at its default."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def quantized(model: onnx.ModelProto, data: Digits, *, per_channel: bool) -> Array:
    """The logits of the held-out digits after quantisation."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            _Reader(model.graph.input[0].name, data.train_images[:CALIBRATION].numpy()),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        return run(after, data.test_images.numpy())


def decibels(wanted: Array, found: Array) -> float:
    """The ratio of signal to noise."""
    signal, noise = (float(np.square(one.astype(np.float64)).sum()) for one in (wanted, wanted - found))
    return 10 * np.log10(signal / noise)


def imbalanced(model: ir.Model, spread: int, seed: int = 0) -> ir.Model:
    """The same network with its channels scaled by powers of two between ±`spread`, which changes no bit."""
    copy = model.clone()
    facts = Facts(copy)
    channels = Channels(facts)
    every = np.arange(channels.classes.size)
    steps = np.random.default_rng(seed).integers(-spread, spread + 1, len(every))
    steps[~channels.classes.is_free(every)] = 0
    write(channels, steps[channels.classes.root(every)], Editor(facts))
    return copy


def source(name: str, data: Digits) -> Path:
    """The trained network's file, made if there is none."""
    if name in KEPT:
        return files.FOLDER / KEPT[name]
    path = FOLDER / f"{name}.pt2"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        files.save_program(train(CLASSIFIERS[name], data), CLASSIFIERS[name].input_shape, path)
    return path


@dataclass(frozen=True)
class Row:
    """One variant of one network.

    Attributes:
        network: Its name.
        spread: Its channels were scaled by 2 to the ± of this.
        accuracy: Of the float32 model, 0 to 1.
        variant: `"as it is"`, `"equalised"` or another tool's name.
        bits: What one step for a whole weight costs a channel on average; NaN where not measured.
        noise: The ratio of signal to noise per tensor and per channel.
        right: The accuracy per tensor and per channel.
    """

    network: str
    spread: int
    accuracy: float
    variant: str
    bits: float
    noise: tuple[float, float]
    right: tuple[float, float]

    def cells(self) -> list[str]:
        """The row of the table."""
        scaled = f"2^±{self.spread}" if self.spread else "–"
        bits = "–" if np.isnan(self.bits) else f"{self.bits:.2f}"
        both = zip(self.noise, self.right, strict=True)
        return [
            *(self.network, scaled, f"{self.accuracy:.1%}", bits, self.variant),
            *(f"{noise:.1f} dB, {right:.1%}" for noise, right in both),
        ]


def measure(name: str, peers: Path | None) -> Iterator[Row]:
    """Measure one network.

    Raises:
        AssertionError: Equalisation changed a bit.
    """
    data = digits(CLASSIFIERS[name].input_shape)
    folded = bnfold.fold(read_model(source(name, data)).model).model
    images, labels = data.test_images.numpy(), data.test_labels.numpy()
    for spread in SPREADS:
        model = imbalanced(folded, spread) if spread else folded
        done = equalize(model)
        before = ir.to_proto(model)
        wanted = run(before, images)
        assert run(ir.to_proto(done.model), images).tobytes() == wanted.tobytes(), "not one bit may change"
        lost = [
            np.mean(bits)
            for bits in zip(*((one.bits_before, one.bits_after) for one in done.layers), strict=True)
        ]
        variants = [("as it is", before, lost[0]), ("equalised", ir.to_proto(done.model), lost[1])]
        other = None if peers is None else by_aimet(peers, before)
        variants += [] if other is None else [("AIMET", other, float("nan"))]
        for variant, proto, bits in variants:
            logits = [quantized(proto, data, per_channel=each) for each in (False, True)]
            yield Row(
                name,
                spread,
                float((wanted.argmax(1) == labels).mean()),
                variant,
                float(bits),
                (decibels(wanted, logits[0]), decibels(wanted, logits[1])),
                (
                    float((logits[0].argmax(1) == labels).mean()),
                    float((logits[1].argmax(1) == labels).mean()),
                ),
            )


def by_aimet(python: Path, model: onnx.ModelProto) -> onnx.ModelProto | None:
    """What AIMET's equalisation makes of a model; None where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, before)
        done = subprocess.run(
            [python, "-c", _AIMET, before, after], capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode or not after.exists():
            print(f"AIMET failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        return onnx.load(after)


def page(rows: Sequence[Row]) -> str:
    """The table with what it was measured with."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy"))
    return "\n".join(
        [
            "# Eight bits before and after equalisation",
            "",
            f"Measured on {today()} by `python -m benchmarks.equalize` with {versions}, Python"
            f" {platform.python_version()}, on the 450 held-out digits; calibrated on {CALIBRATION} training"
            " digits. Signal to noise of the logits against float32, and the accuracy. In every row"
            " “equalised”, the float32 logits are those of the row above it, bit for bit.",
            "",
            *_NOTES,
            *markdown_table(HEADER, [row.cells() for row in rows]),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equalize")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(CLASSIFIERS))
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="an interpreter with aimet-onnx")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    rows = []
    for name in options.networks or DEFAULT:
        for row in measure(name, options.peers):
            print(" | ".join(row.cells()), flush=True)
            rows.append(row)
    if options.markdown:
        options.markdown.write_text(page(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
