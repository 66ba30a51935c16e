"""Eight-bit networks before and after equalisation, on the digits.

    python -m benchmarks.equalize [NETWORK ...] [--plain] [--seeds NUMBER] [--peers PYTHON] [--markdown FILE]

Every network is trained unless its file is kept, folded, and quantised by ONNX Runtime's own tool
(static, QDQ, 300 training digits, one range a value) with one step a weight and with one step a channel, as
it is and after equalisation, with biases as that tool writes them and corrected; then again with its channels
scaled by random powers of two, which changes no output and is what training may leave. One network of
inverted residuals is trained with ReLU in place of ReLU6 as well. The ratio of signal to noise of the logits
is over all held-out digits, of one after another.

How weights happen to be rounded moves that ratio by a decibel or two either way. So networks are also trained
with other seeds.

On the networks as training left them the equalisation of onnxsim is measured as well, and with `--peers`, an
interpreter that has the package aimet-onnx, that of AIMET. `--markdown` puts the tables between the marks of
a page; what to make of them is said around the marks. Fails if equalisation changes one bit.
"""

from __future__ import annotations

import argparse
import logging
import platform
import subprocess
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
import onnxsim
from torch import nn

import bnfold
from benchmarks.eight_bits import decibels, imbalanced
from benchmarks.page import markdown_table, replaced, today
from bnfold.edge.equalize import equalize
from bnfold.edge.quantize import Calibrated, Scheme
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
FOLDER = Path("out") / "equalize"  # ignored by git
HEADER = (
    *("network", "channels scaled by", "float32", "bits lost", "variant"),
    *("one step a weight", "biases corrected", "one step a channel", "biases corrected"),
)
SEEDS_HEADER = (
    *("network", "one step a weight", "equalised", "and corrected", "one step a channel", "corrected"),
    "one step a weight, equalised and corrected, less one step a channel",
)
WAYS = tuple(
    Scheme(per_channel=per_channel, correct_biases=corrected)
    for per_channel in (False, True)
    for corrected in (False, True)
)
_AIMET = """
import sys, onnx
from importlib import metadata
from aimet_onnx.cross_layer_equalization import equalize_model
model = onnx.load(sys.argv[1])
found = equalize_model(model)
model = getattr(found, "model", None) or getattr(model, "model", model)
onnx.save(getattr(model, "model", model), sys.argv[2])
print("aimet-onnx", metadata.version("aimet-onnx"))
"""


def run(model: onnx.ModelProto | Path, images: Array) -> Array:
    """The logits of one image after another, in ONNX Runtime at its default."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def quantized(model: onnx.ModelProto, data: Digits, schemes: Sequence[Scheme] = WAYS) -> list[Array]:
    """The logits of the held-out digits in eight bits, calibrated on training digits."""
    rows = {model.graph.input[0].name: data.train_images[:CALIBRATION].numpy()}
    with Calibrated(ir.from_proto(model), rows) as calibrated:
        found = [ir.to_proto(calibrated.quantize(scheme).model) for scheme in schemes]
    return [run(one, data.test_images.numpy()) for one in found]


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


@dataclass(frozen=True)
class Row:
    """One variant of one network.

    Attributes:
        network: Its name.
        spread: Its channels were scaled by 2 to the ± of this.
        accuracy: Of the float32 model, 0 to 1.
        variant: `"as it is"`, `"equalised"` or another tool's name and version.
        bits: What one step for a whole weight costs a channel on average; NaN where not measured.
        noise: The ratio of signal to noise in each of `WAYS`.
        right: The accuracy in each.
    """

    network: str
    spread: int
    accuracy: float
    variant: str
    bits: float
    noise: tuple[float, ...]
    right: tuple[float, ...]

    def cells(self) -> list[str]:
        """The row of the table."""
        scaled = f"2^±{self.spread}" if self.spread else "–"
        bits = "–" if np.isnan(self.bits) else f"{self.bits:.2f}"
        both = zip(self.noise, self.right, strict=True)
        return [
            *(self.network, scaled, f"{self.accuracy:.1%}", bits, self.variant),
            *(f"{noise:.1f} dB, {right:.1%}" for noise, right in both),
        ]


def measure(name: str, peers: Path | None, spreads: Sequence[int] = SPREADS) -> Iterator[Row]:
    """Measure one network.

    Args:
        name: Its name.
        peers: The interpreter with AIMET's package; None leaves it out.
        spreads: By which powers of two its channels are scaled.

    Raises:
        AssertionError: Equalisation changed a bit.
    """
    data = digits(NETWORKS[name].input_shape)
    folded = network(name, data)
    images, labels = data.test_images.numpy(), data.test_labels.numpy()
    for spread in spreads:
        model = imbalanced(folded, spread)
        done = equalize(model)
        before = ir.to_proto(model)
        wanted = run(before, images)
        assert run(ir.to_proto(done.model), images).tobytes() == wanted.tobytes(), "not one bit may change"
        lost = [
            np.mean(bits)
            for bits in zip(*((one.bits_before, one.bits_after) for one in done.layers), strict=True)
        ]
        variants = [("as it is", before, lost[0]), ("equalised", ir.to_proto(done.model), lost[1])]
        if not spread:
            variants += [(label, other, float("nan")) for label, other in by_others(peers, before)]
        for variant, proto, bits in variants:
            logits = quantized(proto, data)
            yield Row(
                name,
                spread,
                float((wanted.argmax(1) == labels).mean()),
                variant,
                float(bits),
                tuple(decibels(wanted, one) for one in logits),
                tuple(float((one.argmax(1) == labels).mean()) for one in logits),
            )


@dataclass(frozen=True)
class Means:
    """One network, trained with several seeds.

    Attributes:
        network: Its name.
        logits: The ratio of signal to noise of the logits, shape `(seeds, 5)`: with one step a weight as it
            is, equalised, equalised and corrected; with one step a channel as it is and corrected.
    """

    network: str
    logits: npt.NDArray[np.float64]

    def cells(self) -> list[str]:
        """The row of the table."""
        columns = [
            f"{column.mean():.1f} dB ({', '.join(f'{one:.1f}' for one in column)})"
            for column in self.logits.T
        ]
        return [self.network, *columns, f"{(self.logits[:, 2] - self.logits[:, 3]).mean():+.1f} dB"]


def by_seeds(name: str, seeds: int) -> Means:
    """Measure one network as trained with each seed."""
    data = digits(NETWORKS[name].input_shape)
    logits = np.zeros((seeds, 5))
    for seed in range(seeds):
        folded = network(name, data, seed)
        before, after = ir.to_proto(folded), ir.to_proto(equalize(folded).model)
        wanted = run(before, data.test_images.numpy())
        plain, per_channel, corrected = quantized(before, data, (WAYS[0], *WAYS[2:]))
        found = (plain, *quantized(after, data, WAYS[:2]), per_channel, corrected)
        logits[seed] = [decibels(wanted, one) for one in found]
    return Means(name, logits)


def by_others(peers: Path | None, model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """What other tools' equalisation makes of a model, each with the tool's name and version."""
    yield f"onnxsim {metadata.version('onnxsim')}", onnxsim.cross_layer_equalize(model)
    if peers is not None:
        yield by_aimet(peers, model)


def by_aimet(python: Path, model: onnx.ModelProto) -> tuple[str, onnx.ModelProto]:
    """AIMET's name and version, and what its equalisation makes of a model.

    Raises:
        CalledProcessError: It fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, before)
        done = subprocess.run(
            [python, "-c", _AIMET, before, after], stdout=subprocess.PIPE, text=True, check=True, timeout=300
        )
        return done.stdout.splitlines()[-1], onnx.load(after)


def page(rows: Sequence[Row], means: Sequence[Means]) -> str:
    """The tables with what they were measured with."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy"))
    return "\n".join(
        [
            f"Measured on {today()} by `python -m benchmarks.equalize` with {versions}, Python"
            f" {platform.python_version()}, on the 450 held-out digits; calibrated on {CALIBRATION} training"
            " digits. Signal to noise of the logits against float32, and the accuracy. In every row"
            " “equalised”, the float32 logits are those of the row above it, bit for bit.",
            "",
            *markdown_table(HEADER, [row.cells() for row in rows]),
            "",
            *(_by_seeds(means) if means else ()),
        ]
    )


def _by_seeds(means: Sequence[Means]) -> list[str]:
    return [
        "## Other seeds",
        "",
        f"The same networks, each trained with {len(means[0].logits)} seeds: the mean, and each in brackets."
        " The last column compares all that bnfold does for one step a weight with what ONNX Runtime's tool"
        " makes with one step a channel.",
        "",
        *markdown_table(SEEDS_HEADER, [one.cells() for one in means]),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equalize")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--plain", action="store_true", help="scale no channels")
    parser.add_argument("--seeds", type=int, default=3, metavar="NUMBER", help="train with so many seeds")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="an interpreter with aimet-onnx")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into this page")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    rows, means = [], []
    for name in options.networks or DEFAULT:
        for row in measure(name, options.peers, SPREADS[:1] if options.plain else SPREADS):
            print(" | ".join(row.cells()), flush=True)
            rows.append(row)
        if options.seeds > 0:
            means.append(by_seeds(name, options.seeds))
            print(" | ".join(means[-1].cells()), flush=True)
    if options.markdown:
        before = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(replaced(before, page(rows, means)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
