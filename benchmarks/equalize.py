"""Eight-bit networks before and after equalisation, on the digits.

    python -m benchmarks.equalize [NETWORK ...] [--seeds NUMBER] [--peers PYTHON] [--markdown FILE]

Every network is trained unless its file is kept, folded, and quantised by ONNX Runtime's own tool
(static, QDQ, 300 training digits, one range a value) with one step a weight and with one step a channel, as
it is and after equalisation; then again with its channels scaled by random powers of two, which changes no
output and is what training may leave. One network of inverted residuals is trained with ReLU in place of
ReLU6 as well. The ratio of signal to noise of the logits is over all held-out digits,
of one after another.

How weights happen to be rounded moves that ratio by a decibel or two either way. So networks are also trained
with other seeds, and the noise is also averaged over random roundings, each weight being off by a uniform
number within half a step.

With `--peers`, an interpreter that has AIMET's package aimet-onnx, its equalisation is
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
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

import bnfold
from benchmarks.page import markdown_table, today
from bnfold.edge.channels import Channels
from bnfold.edge.equalize import equalize, write
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts
from bnfold.pipeline.read import read_model
from models import files
from models.digits import Digits, digits
from models.inverted_residual import InvertedResidualNet
from models.train import CLASSIFIERS, KEPT, SEED, train

Array = npt.NDArray[np.float32]


class InvertedResidualNetReLU(InvertedResidualNet):
    """An InvertedResidualNet whose activations have no bound above, so that scales pass them."""

    def __init__(self) -> None:
        super().__init__()
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU6):
                    setattr(module, name, nn.ReLU())


NETWORKS = {**CLASSIFIERS, "InvertedResidualNetReLU": InvertedResidualNetReLU}
DEFAULT = (
    *("MobileOneNet", "RepVGGNet", "InvertedResidualNet", "InvertedResidualNetReLU"),
    *("SmallResNet", "PreActResNet"),
)
CALIBRATION = 300
SPREADS = (0, 2, 4)
DRAWS = 16
FOLDER = Path("out") / "equalize"  # ignored by git
HEADER = (
    *("network", "channels scaled by", "float32", "bits lost", "variant"),
    *("one step a weight", "one step a channel"),
)
SEEDS_HEADER = (
    *("network", "weights", "one step a weight", "equalised", "one step a channel", "equalised less that"),
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
    " and one step a weight. The correlation of 0.95 that its estimates go by is that of textbooks; 0, 0.5,"
    " 0.8 and 0.9 were tried on these networks as well, and none is better on average.",
    "",
    "“AIMET” is `equalize_model` of the package aimet-onnx with its defaults, on the same folded file. It"
    " multiplies by real factors.",
    "",
)


_LEFT = (
    "**ReLU6 holds InvertedResidualNet.** Most of its noise comes from the weights of the stem. A Clip at the"
    " same 6 in all channels follows the stem and lets no scale of a channel through, and no proof without"
    " data says that 6 is never reached. The one layer that may move, a projection, gains nothing. A network"
    " trained with ReLU instead can be balanced.",
    "",
    "**A residual stream has one scale a channel from end to end**: in the stem, in every layer that is added"
    " to it and in every layer that reads it. In SmallResNet and InvertedResidualNetReLU most of the noise"
    " comes from the stem as well, and what makes the stem even makes the readers of the stream uneven.",
    "",
    "**Powers of two** leave channels up to a factor of two apart; [what that costs](edge.md).",
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


def quantized(model: onnx.ModelProto, data: Digits, *, per_channel: bool) -> onnx.ModelProto:
    """The model in eight bits, calibrated on training digits."""
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
        return onnx.load(after)


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


def network(name: str, data: Digits, seed: int = SEED) -> ir.Model:
    """The trained network, folded; it is trained if there is no file."""
    if seed == SEED and name in KEPT:
        return bnfold.fold(read_model(files.FOLDER / KEPT[name]).model).model
    path = FOLDER / f"{name}-{seed}.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "trained.pt2"
            files.save_program(train(NETWORKS[name], data, seed=seed), NETWORKS[name].input_shape, program)
            onnx.save(ir.to_proto(bnfold.fold(read_model(program).model).model), path)
    return ir.from_proto(onnx.load(path))


def expected(model: onnx.ModelProto, images: Array, whole: onnx.ModelProto) -> float:
    """The ratio of signal to noise of a quantised model, on average over random roundings of its weights.

    Args:
        model: The model before that.
        images: What both are run on.
        whole: The quantised model, whose weights are in a DequantizeLinear each.
    """
    rng = np.random.default_rng(0)
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    stored = {one.name: numpy_helper.to_array(one) for one in whole.graph.initializer}
    own = {
        node.input[0]: node
        for node in whole.graph.node
        if node.op_type == "DequantizeLinear" and stored.get(node.input[0], np.zeros(0)).ndim > 1
    }
    wanted, noise = _all_at_once(model, images).astype(float), 0.0
    for _ in range(DRAWS):
        drawn = onnx.ModelProto()
        drawn.CopyFrom(whole)
        for name, node in own.items():
            weight, step = weights[name.removesuffix("_quantized")], stored[node.input[1]]
            axis = next((one.i for one in node.attribute if one.name == "axis"), 1) if step.ndim else 0
            laid = [-1 if at == axis else 1 for at in range(weight.ndim)]
            moved = weight + step.reshape(laid) * rng.uniform(-0.5, 0.5, weight.shape)
            drawn.graph.node.remove(node)
            drawn.graph.initializer.append(numpy_helper.from_array(moved.astype(np.float32), node.output[0]))
        noise += float(np.square(_all_at_once(drawn, images) - wanted).sum()) / DRAWS
    return float(10 * np.log10(np.square(wanted).sum() / noise))


def _all_at_once(model: onnx.ModelProto, images: Array) -> Array:
    """The logits of all images in one batch."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


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
    data = digits(NETWORKS[name].input_shape)
    folded = network(name, data)
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
            logits = [run(quantized(proto, data, per_channel=each), images) for each in (False, True)]
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


@dataclass(frozen=True)
class Means:
    """One network, trained with several seeds.

    Attributes:
        network: Its name.
        logits: The ratio of signal to noise of the logits, shape `(seeds, 3)`: with one step a weight as it
            is and equalised, with one step a channel as it is.
        average: The same on average over random roundings of the weights.
    """

    network: str
    logits: npt.NDArray[np.float64]
    average: npt.NDArray[np.float64]

    def rows(self) -> Iterator[list[str]]:
        """The two rows of the table."""
        kinds = {"rounded": self.logits, f"mean of {DRAWS}": self.average}
        for kind, found in kinds.items():
            cells = [
                f"{column.mean():.1f} dB ({', '.join(f'{one:.1f}' for one in column)})" for column in found.T
            ]
            yield [self.network, kind, *cells, f"{(found[:, 1] - found[:, 2]).mean():+.1f} dB"]


def by_seeds(name: str, seeds: int) -> Means:
    """Measure one network as trained with each seed."""
    data = digits(NETWORKS[name].input_shape)
    images = data.test_images.numpy()
    logits, average = np.zeros((seeds, 3)), np.zeros((seeds, 3))
    for seed in range(seeds):
        folded = network(name, data, seed)
        before, after = ir.to_proto(folded), ir.to_proto(equalize(folded).model)
        wanted = run(before, images)
        for at, (proto, per_channel) in enumerate(((before, False), (after, False), (before, True))):
            whole = quantized(proto, data, per_channel=per_channel)
            logits[seed, at] = decibels(wanted, run(whole, images))
            average[seed, at] = expected(proto, images, whole)
    return Means(name, logits, average)


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


def page(rows: Sequence[Row], means: Sequence[Means]) -> str:
    """The tables with what they were measured with."""
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
            *(_by_seeds(means) if means else ()),
        ]
    )


def _by_seeds(means: Sequence[Means]) -> list[str]:
    return [
        "## Other seeds, and what is left",
        "",
        f"The same networks, each trained with {len(means[0].logits)} seeds: the mean, and each in brackets."
        " “rounded” is the quantised network as above. How its few early weights happen to be rounded moves"
        " the ratio by one or two decibels either way. So the second row of each network is the mean of"
        f" {DRAWS} networks whose weights are each off by a uniform number within half a step, with the same"
        " activations in eight bits: what the steps cost, without luck. The last column compares the"
        " equalised network with one step a weight to the network as it is with one step a channel.",
        "",
        *markdown_table(SEEDS_HEADER, [row for one in means for row in one.rows()]),
        "",
        *_LEFT,
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equalize")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3, metavar="NUMBER", help="train with so many seeds")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="an interpreter with aimet-onnx")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    rows, means = [], []
    for name in options.networks or DEFAULT:
        for row in measure(name, options.peers):
            print(" | ".join(row.cells()), flush=True)
            rows.append(row)
        if options.seeds > 0:
            means.append(by_seeds(name, options.seeds))
            print(*(" | ".join(row) for row in means[-1].rows()), sep="\n", flush=True)
    if options.markdown:
        options.markdown.write_text(page(rows, means), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
