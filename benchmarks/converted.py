"""Small models as converters write them, made here where the converter is installed.

    python converted.py CONVERTER FOLDER

runs one of them, in a Python that has it; it imports nothing of this project, so that Python may be any.
Each writes files into the folder; an ImportError means that it is not installed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.corpus import Network

ABSENT = 3  # the exit status where a converter is not installed
SECONDS = 300.0


def _data() -> tuple[Any, Any]:
    import numpy as np

    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)


def _skl2onnx(folder: Path) -> None:
    """Classifiers that end in a ZipMap, with numbers and names as classes."""
    import onnx
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = _data()
    for name, model in {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "named": make_pipeline(StandardScaler(), LogisticRegression()),
        "network": make_pipeline(PCA(4), StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0)),
        "forest": RandomForestClassifier(5, random_state=0),
    }.items():
        model.fit(x, [f"class {one}" for one in y] if name == "named" else y)
        onnx.save(to_onnx(model, x[:1]), folder / f"{name}.onnx")


def _onnxmltools(folder: Path) -> None:
    """The trees of two boosters."""
    import lightgbm
    import onnx
    import xgboost
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    x, y = _data()
    types = [("x", FloatTensorType([None, 6]))]
    model = xgboost.XGBClassifier(n_estimators=3).fit(x, y)
    onnx.save(convert_xgboost(model, initial_types=types), folder / "trees.onnx")
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y)
    onnx.save(convert_lightgbm(model, initial_types=types), folder / "leaves.onnx")


def _catboost(folder: Path) -> None:
    """A classifier, which the library itself writes, without a version of ONNX's own operators."""
    import catboost

    x, y = _data()
    model = catboost.CatBoostClassifier(iterations=5, depth=3, verbose=False, allow_writing_files=False)
    model.fit(x, y)
    model.save_model(str(folder / "classifier.onnx"), format="onnx")


def _onnxscript(folder: Path) -> None:
    """A function of Python, with a function of ONNX in it that has the BatchNorm."""
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from onnxscript import FLOAT, script
    from onnxscript import opset18 as op
    from onnxscript.values import Opset

    @script(Opset("own", 1))
    def Norm(x, scale, bias, mean, var):  # type: ignore[no-untyped-def]  # noqa: N802 - an operator's name
        return op.Relu(op.BatchNormalization(x, scale, bias, mean, var))

    @script()
    def network(x, w, scale, bias, mean, var):  # type: ignore[no-untyped-def]
        return Norm(op.Conv(x, w), scale, bias, mean, var)

    shapes = [(4, 3, 3, 3), (4,), (4,), (4,), (4,)]
    types = [FLOAT["N", 3, 8, 8], *(FLOAT[shape] for shape in shapes)]
    model = network.to_model_proto(input_types=types, output_types=[FLOAT["N", 4, 6, 6]])
    draw = np.random.default_rng(0)
    for port, shape in zip(list(model.graph.input)[1:], shapes, strict=True):
        values = draw.uniform(0.5, 1.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, port.name))
        model.graph.input.remove(port)
    onnx.save(model, folder / "network.onnx")


def _spox(folder: Path) -> None:
    """A convolution and the scale and shift after it."""
    import numpy as np
    import onnx
    import spox.opset.ai.onnx.v17 as op
    from spox import Tensor, argument, build

    draw = np.random.default_rng(0)
    x = argument(Tensor(np.float32, ("N", 3, 8, 8)))
    weight, scale, shift = (
        op.const(draw.uniform(0.5, 1.5, shape).astype(np.float32))
        for shape in ((4, 3, 3, 3), (1, 4, 1, 1), (1, 4, 1, 1))
    )
    y = op.relu(op.add(op.mul(op.conv(x, weight), scale), shift))
    onnx.save(build({"x": x}, {"y": y}), folder / "convolution.onnx")


def _jax2onnx(folder: Path) -> None:
    """A network of flax, channels last, with its BatchNorm."""
    import jax.numpy as jnp
    import onnx
    from flax import nnx
    from jax2onnx import to_onnx

    class Net(nnx.Module):  # type: ignore[misc]  # of no known type where flax is not installed
        def __init__(self, rngs: Any) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs, use_running_average=True)
            self.linear = nnx.Linear(4, 5, rngs=rngs)
            self.norm.mean.value = jnp.array([0.3, -0.2, 0.1, 0.5], jnp.float32)
            self.norm.var.value = jnp.array([0.6, 1.7, 1.1, 0.8], jnp.float32)

        def __call__(self, x: Any) -> Any:
            return self.linear(jnp.mean(nnx.relu(self.norm(self.conv(x))), axis=(1, 2)))

    onnx.save(to_onnx(Net(nnx.Rngs(0)), [("B", 8, 8, 3)], model_name="network"), folder / "network.onnx")


MAKERS: dict[str, Callable[[Path], None]] = {
    "skl2onnx": _skl2onnx,
    "onnxmltools": _onnxmltools,
    "catboost": _catboost,
    "onnxscript": _onnxscript,
    "spox": _spox,
    "jax2onnx": _jax2onnx,
}


def converted(folder: Path, python: Path) -> tuple[list[Network], list[str]]:
    """The files of all converters that a Python has, and a sentence for each that it has not.

    Args:
        folder: Where they are kept; what is there is not made again.
        python: The interpreter.
    """
    from benchmarks.corpus import Network

    found, skipped = [], []
    for name in MAKERS:
        target = folder / name
        if not target.is_dir():
            target.mkdir(parents=True)
            command = [str(python), str(Path(__file__).resolve()), name, str(target.resolve())]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            if done.returncode:
                target.rmdir() if not any(target.iterdir()) else None
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                why = "is not installed" if done.returncode == ABSENT else f"failed: {last}"
                skipped.append(f"{name} {why}; nothing of it is tried.")
                continue
        found += [Network(f"made by {name}", path.name, path) for path in sorted(target.glob("*.onnx"))]
    return found, skipped


def main(name: str, folder: str) -> int:
    """Run one converter."""
    try:
        MAKERS[name](Path(folder))
    except ImportError as error:
        print(error, file=sys.stderr)
        return ABSENT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
