"""The folder that the pages of the documentation speak of: models of a repository, and data for them.

    python -m tests.docs.workplace tour

makes it, for those who want to type what the pages show.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx

from tests.graphs import build, statistics, weight

ROOT = Path(__file__).parents[2]


def prepare(folder: Path) -> Path:
    """Fill an empty folder: five models under models/, a second version of one under new/, and samples."""
    (folder / "models").mkdir()
    (folder / "new").mkdir()
    for target in (folder, folder / "models"):
        shutil.copy(ROOT / "models" / "convnet.pt", target)
    (folder / "models" / "convnet.pt").rename(folder / "trained.pt")
    onnx.save(_classifier(), folder / "models" / "classifier.onnx")
    onnx.save(_detector("scale, bias, mean, var"), folder / "models" / "detector.onnx")
    onnx.save(_detector(""), folder / "models" / "clean.onnx")
    onnx.save(_classifier(channels=4), folder / "models" / "small.onnx")
    whole = _detector("").SerializeToString()
    (folder / "models" / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(_detector("scale, bias, mean, var", note="exported again"), folder / "new" / "detector.onnx")
    samples = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples)
    return folder


def _classifier(channels: int = 8) -> onnx.ModelProto:
    """Two convolutions, each with a BatchNorm, and a linear layer."""
    norms = [f"BatchNormalization({value}, {p}scale, {p}bias, {p}mean, {p}var)" for value, p in ("cp", "dq")]
    text = f"""g (float[N,3,16,16] x) => (float[N,10] logits) {{
        [conv1] c = Conv<pads=[1,1,1,1]>(x, w1)
        [bn1] b1 = {norms[0]}
        [relu1] r1 = Relu(b1)
        [conv2] d = Conv<strides=[2,2]>(r1, w2)
        [bn2] b2 = {norms[1]}
        [relu2] r2 = Relu(b2)
        [pool] g = GlobalAveragePool(r2)
        [flatten] f = Flatten(g)
        [fc] logits = Gemm<transB=1>(f, w3, b3) }}"""
    constants = {
        "w1": weight(channels, 3, 3, 3, seed=1),
        "w2": weight(channels, channels, 3, 3, seed=2),
        "w3": weight(10, channels, seed=3),
        "b3": weight(10, seed=4),
        **statistics(channels, 5, "p"),
        **statistics(channels, 6, "q"),
    }
    return build(text, constants)


def _detector(norm: str, note: str = "") -> onnx.ModelProto:
    """A convolution, a BatchNorm if it is given numbers, and another convolution."""
    middle = f"[bn] n = BatchNormalization(c, {norm})" if norm else "[tanh] n = Tanh(c)"
    text = f"""g (float[N,3,16,16] x) => (float[N,5,14,14] boxes) {{
        [stem] c = Conv(x, w1)
        {middle}
        [head] boxes = Conv(n, w2) }}"""
    held = {"w1": weight(6, 3, 3, 3, seed=1), "w2": weight(5, 6, 1, 1, seed=2)}
    model = build(text, {**held, **(statistics(6, 3) if norm else {})})
    model.doc_string = note
    return model


def main() -> int:
    """Make the folder that is named."""
    folder = Path(sys.argv[1])
    try:
        folder.mkdir()
    except FileExistsError:
        print(f"{folder} is there already: name a new folder.", file=sys.stderr)
        return 2
    prepare(folder)
    print(f"Made {folder} with five models; now type: cd {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
