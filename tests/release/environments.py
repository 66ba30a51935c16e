"""New environments that hold the wheel and what one extra brings, and a small job for each extra to do there.

    python -m tests.release.environments dist/*.whl
    python -m tests.release.environments dist/*.whl cpu report

The first tries the wheel alone, as continuous integration does; names after it are extras. Exits with 0 if
all could be done, and prints what could not. The environments are made by uv, with the versions of
constraints.txt.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.docs.workplace import ROOT, prepare

MODELS = ("models/classifier.onnx", "models/detector.onnx", "models/small.onnx")
BASE = (
    ["python", "-W", "error", "-c", "import bnfold; assert bnfold.__version__"],
    ["bnfold", "--version"],
    ["bnfold", "--help"],
    ["bnfold", "explain", "BN301"],
    ["bnfold", "inspect", "models/classifier.onnx"],
    *(["bnfold", "fold", model, "-o", f"folded-{Path(model).name}"] for model in MODELS),
)
"""What the wheel alone has to do: none of it needs a runtime."""

_EXPORT = ["bnfold", "export", "models/small.onnx", "-o", "small.onnx"]
_FLEET = ["bnfold", "fleet", "check", "models", "--exit-zero"]
_LITERT = "import ai_edge_litert.interpreter"
_S3 = "import fsspec, bnfold.fleet; assert 's3' in fsspec.filesystem('s3', anon=True).protocol"
JOBS: dict[str, list[list[str]]] = {
    "cpu": [[*_EXPORT, "--seconds", "0.2"], [*_EXPORT, "--no-bench", "--equalize"]],
    "ci": [
        [
            "bnfold",
            "check",
            "models",
            "--exit-zero",
            "--output-format",
            "sarif=a.sarif",
            "--output-format",
            "junit=a.xml",
        ]
    ],
    "report": [[*_EXPORT, "--no-bench", "--html", "page.html"]],
    "images": [[*_EXPORT, "--no-bench", "--inputs", "images", "--mean", "0", "--std", "1"]],
    "torch": [
        ["bnfold", "export", "convnet.pt", "--input-shape", "1x1x32x32", "-o", "net.onnx", "--no-bench"],
        ["bnfold", "export", "convnet.pt", "--input-shape", "1x1x32x32", "--to", "module", "-o", "net.pt"],
    ],
    "simplify": [[*_EXPORT, "--no-bench", "--simplify"]],
    "openvino": [
        ["bnfold", "validate", "models/detector.onnx", "new/detector.onnx", "--runtime", "openvino"]
    ],
    "mnn": [["bnfold", "validate", "models/detector.onnx", "new/detector.onnx", "--runtime", "mnn"]],
    "ncnn": [["bnfold", "validate", "models/detector.onnx", "new/detector.onnx", "--runtime", "ncnn"]],
    "litert": [["python", "-c", _LITERT]],  # onnx2tf is not installed with it
    "fleet": [[*_FLEET, "--out", "fleet"]],
    "dask": [[*_FLEET, "--out", "dask", "--engine", "dask", "--jobs", "1"]],
    "ray": [[*_FLEET, "--out", "ray", "--engine", "ray", "--jobs", "1"]],
    "s3": [["python", "-c", _S3]],  # there is no store to ask
    "gpu": [["bnfold", "validate", "models/detector.onnx", "new/detector.onnx"]],
}
NEEDS_RUNTIME = {
    *("ci", "report", "images", "torch", "openvino", "mnn", "ncnn", "simplify"),
    *("fleet", "dask", "ray"),
}
"""Extras whose jobs run models too, so that their environments have `cpu` as well."""


class Environment:
    """A new environment with the wheel in it.

    Args:
        folder: Where it is made.
        wheel: The wheel.
        extras: Of the wheel.
        python: The interpreter, as uv names it: a version or a path.
        constrained: Whether to take the versions of constraints.txt; otherwise the newest.
    """

    def __init__(
        self,
        folder: Path,
        wheel: Path,
        extras: Sequence[str] = (),
        *,
        python: str = sys.executable,
        constrained: bool = True,
    ) -> None:
        self.folder = folder
        where = f"{wheel.resolve()}[{','.join(extras)}]" if extras else str(wheel.resolve())
        limits = ["--constraints", str(ROOT / "constraints.txt")] if constrained else []
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--python", python, folder / "venv"], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", *limits, where],
            check=True,
            env={**os.environ, "VIRTUAL_ENV": str(folder / "venv")},
        )
        self.work = folder / "work"
        self.work.mkdir()
        prepare(self.work)

    def run(self, command: Sequence[str] | str) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would who has activated the environment, in its work folder."""
        path = f"{self.folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            command,
            cwd=self.work,
            env={**variables, "PATH": path, "OMP_NUM_THREADS": "1"},
            shell=isinstance(command, str),
            capture_output=True,
            text=True,
            check=False,
        )

    def failures(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """What could not be done of these, each with the end of what it printed."""
        found = []
        for command in commands:
            done = self.run(command)
            if done.returncode:
                found.append(
                    f"{' '.join(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"
                )
        return found

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of every model that the jobs of BASE have folded."""
        names = [f"folded-{Path(model).name}" for model in MODELS]
        return {name: hashlib.sha256((self.work / name).read_bytes()).hexdigest() for name in names}


def images(folder: Path) -> None:
    """Two pictures, for the extra `images`."""
    from PIL import Image

    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def tried(
    wheel: Path, extras: Sequence[str], *, python: str = sys.executable, constrained: bool = True
) -> list[str]:
    """What cannot be done in a new environment with these extras."""
    with tempfile.TemporaryDirectory() as folder:
        needed = {*extras, *(("cpu",) if NEEDS_RUNTIME & set(extras) else ())}
        made = Environment(Path(folder), wheel, sorted(needed), python=python, constrained=constrained)
        if "images" in extras:
            images(made.work / "images")
        return made.failures([*BASE, *(job for extra in extras for job in JOBS[extra])])


def main() -> int:
    """Try the wheel that the first argument names with the extras that the others name."""
    wheel, *extras = sys.argv[1:]
    found = tried(Path(wheel), extras)
    print(
        "\n".join(found)
        or f"{Path(wheel).name} works in a new environment with {', '.join(extras) or 'no extra'}."
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
