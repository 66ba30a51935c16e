"""Eight bits on the handwritten digits: the trained networks quantised before and after equalisation.

    python -m benchmarks.quantize [-o docs/quantize.md]

Every network of models/ is folded. It is calibrated on 300 training images and judged on the 450 images that
were held out, once as ONNX Runtime's tool quantises it, once after bnfold's equalisation by powers of two and
with its correction of biases, with one scale for a weight and with one for each of its channels. The same is
done with channels that are out of balance by powers of two at random, as training leaves them in depthwise
networks.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import click
import onnx_ir as ir
import onnxruntime

import bnfold
from benchmarks.eight_bits import imbalanced
from bnfold.edge.equalize import equalize
from bnfold.edge.fidelity import Fidelity, fidelity
from bnfold.edge.quantize import Calibrated, Scheme, named
from bnfold.edge.rows import split
from bnfold.inputs.samples import Samples
from bnfold.options import Reading
from bnfold.pipeline.read import read_model
from bnfold.runtime.interface import interface
from models.digits import digits

ROOT = Path(__file__).parent.parent
CALIBRATED_ON = 300
NETWORKS = {
    "mobileone.pt2": None,
    "repvgg.pt2": None,
    "preact_resnet.pt2": None,
    "densenet.pt2": None,
    "convnet.pt": "1x1x32x32",
    "cnn_with_batchnorm.pt": "1x3x32x32",
}
BOTH = {"tensor": Scheme(), "channel": Scheme(per_channel=True)}
SCHEMES = {
    **BOTH,
    "tensor, powers of two": Scheme(pow2_scales=True),
    "tensor, symmetric int8": Scheme(symmetric=True, signed=True),
}


def folded(name: str, shape: str | None) -> ir.Model:
    """A network of models/, folded; its batch size is open, or 1."""
    reading = Reading(input_shape=shape, dynamic="batch") if shape else Reading()
    return named(bnfold.fold(read_model(ROOT / "models" / name, reading).model).model)


def data(model: ir.Model) -> tuple[Samples, Samples]:
    """Training images to calibrate on, and held out ones with their classes."""
    ports = interface(model).inputs
    shape = tuple(int(size) for size in (ports[0].shape or ())[1:] if isinstance(size, int))
    found, name = digits(shape), ports[0].name
    train = Samples(({name: found.train_images[:CALIBRATED_ON].numpy()},), labels=("train",))
    held_out = Samples(
        ({name: found.test_images.numpy()},), labels=("held out",), classes=found.test_labels.numpy()
    )
    return split(train, ports), split(held_out, ports)


def rows(name: str, network: ir.Model) -> list[str]:
    """One line for each scheme and each imbalance: before and after equalisation."""
    train, held_out = data(network)
    lines = []
    for most, schemes in ((0, SCHEMES), (2, BOTH), (4, BOTH)):
        model = imbalanced(network, most)
        after = equalize(model)
        with Calibrated(model, train) as plain, Calibrated(after.model, train) as equal:
            for label, scheme in schemes.items():
                bare = plain.quantize(replace(scheme, correct_biases=False)).model
                found = [fidelity(network, one, held_out) for one in (bare, equal.quantize(scheme).model)]
                lines.append(f"| {name} | {f'2^±{most}' if most else '–'} | {label} | {_cells(found)} |")
                print(lines[-1], flush=True)
    return lines


def _cells(found: list[Fidelity]) -> str:
    scores = [one.accuracy.scores[0] for one in found if one.accuracy is not None]
    cells = [f"{100 * scores[0].original:.2f} %"]
    for one, score in zip(found, scores, strict=True):
        cells += [f"{one.sqnr:.1f} dB".replace("-", "−"), f"{100 * score.folded:.2f} %"]
    gained = round(100 * (scores[1].folded - scores[1].original), 2)
    return " | ".join([*cells, f"{gained:+.2f}".replace("-", "−") if gained else "0"])


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "quantize.md")
@click.option("--only", multiple=True, help="Names of networks.")
def main(output: Path, only: tuple[str, ...]) -> None:
    """Measure and write the page."""
    lines = []
    for name, shape in NETWORKS.items():
        if not only or name in only:
            lines += rows(name, folded(name, shape))
    date = datetime.datetime.now(datetime.UTC).date()
    output.write_text(PAGE.format(date=date, version=onnxruntime.__version__, rows="\n".join(lines)))


PAGE = """\
# Eight bits

Written by `python -m benchmarks.quantize` on {date}, with ONNX Runtime {version} on a CPU.

The trained networks of `models/` are folded, calibrated on 300 training images of the handwritten digits and
judged on the 450 that were held out; one image is 0.22 percentage points. dB is the signal to quantisation
noise of the output. "Before" is the folded network as ONNX Runtime's tool quantises it; "after" is what
`export --equalize --int8` writes: the float outputs after equalisation are equal bit for bit, and biases are
corrected. "Imbalance" means that channels between layers were first scaled by such powers of two at random,
which changes no bit of a float output either. Activations are uint8 and weights int8 with one scale for a
tensor, if not said otherwise. The last column is the accuracy after less that in float32, in points.

| network | imbalance | scales | float32 | before | accuracy | after | accuracy | points |
|---|---|---|---|---|---|---|---|---|
{rows}
"""

if __name__ == "__main__":
    main()
