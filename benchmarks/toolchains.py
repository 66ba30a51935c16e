"""The command lines of docs/targets, typed as they stand, and what comes of them run.

    python -m benchmarks.toolchains --path TOOLS/bin [--path MORE/bin] [TARGET ...]

The first block of a target's page and its blocks of Python are run in an empty folder in which the files that
they name are small trained networks of models/, then what `bnfold targets` says to type next. Only sizes are
put in: the networks read pictures of 32×32. What the tool wrote is run on one digit in the tool's own
runtime and compared with ONNX Runtime, which runs the same network folded for no target.

The tools are taken from the folders of `--path`, whose first `python` runs the results; `bnfold` is that of
the interpreter that runs this. Targets whose tools are not on that path are named and left out. Exits with 1
if a line fails, or an output is off by more than 1 % of the largest. MNN is not tried: its converter installs
a package for logs with pip, wherever it finds pip, which can change an environment that others use.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

import bnfold
from bnfold.files.load import load_onnx
from bnfold.options import Reading
from bnfold.pipeline.read import read_model
from bnfold.runtime.interface import interface
from bnfold.targets.profile import load
from models.digits import digits

Array = npt.NDArray[np.float32]
ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "targets"
FILES = {"net.pt": "convnet.pt", "net.pt2": "mobileone.pt2"}
SHAPE = (1, 1, 32, 32)
SIZES = {"1x3x224x224": "1x1x32x32", "1,3,224,224": "1,1,32,32"}  # what pages say, and what is put in
SECONDS = 600
ALLOWED = 0.01  # pnnx stores weights in float16

_READ = "import sys, numpy as np\nx = np.load('x.npy')\n"
_WRITE = "\nnp.save('y.npy', np.asarray(y))\n"


@dataclass(frozen=True)
class Tool:
    """How the results of a target's tools are run.

    Attributes:
        needs: Programs and modules of Python that have to be there.
        run: Python that makes `y`, the output, of `x`.
        short: What is added to lines that would take long, by their first word.
    """

    needs: tuple[str, ...]
    run: str
    short: tuple[tuple[str, str], ...] = ()


TOOLS = {
    "openvino": Tool(
        ("ovc", "benchmark_app"),
        "import openvino\nwide = {'INFERENCE_PRECISION_HINT': 'f32'}  # it may choose bfloat16\n"
        "y = openvino.Core().compile_model('net.xml', 'CPU', wide)(x)[0]",
        (("benchmark_app", "-t 1"),),
    ),
    "ncnn": Tool(
        ("pnnx", "import ncnn"),
        "import ncnn\nnet = ncnn.Net()\nnet.opt.num_threads = 1\n"
        "assert net.load_param('net.ncnn.param') == 0 and net.load_model('net.ncnn.bin') == 0\n"
        "run = net.create_extractor()\nassert run.input('in0', ncnn.Mat(x[0])) == 0\n"
        "code, out = run.extract('out0')\nassert code == 0\ny = np.array(out)[None]",
    ),
    "onnxruntime-mobile": Tool(
        ("import onnxruntime",),
        "import onnxruntime\nnet = onnxruntime.InferenceSession('net.ort')\n"
        "y = net.run(None, {net.get_inputs()[0].name: x})[0]",
    ),
    "executorch": Tool(
        ("import executorch.runtime",),
        "import torch\nfrom executorch.runtime import Runtime\n"
        "net = Runtime.get().load_program('net.pte').load_method('forward')\n"
        "y = net.execute([torch.from_numpy(x)])[0].numpy()",
    ),
    "litert": Tool(
        ("onnx2tf", "import ai_edge_litert"),
        "from pathlib import Path\nfrom ai_edge_litert.interpreter import Interpreter\n"
        "net = Interpreter(str(next(Path('net').glob('*float32.tflite'))))\nnet.allocate_tensors()\n"
        "given, made = net.get_input_details()[0], net.get_output_details()[0]\n"
        "net.set_tensor(given['index'], x.reshape(given['shape']))\nnet.invoke()\n"
        "y = net.get_tensor(made['index'])",
    ),
}


def typed(page: str) -> Iterator[list[str]]:
    """The commands of a page up to its first heading: lines of its blocks, and its Python as a script."""
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```", page.split("\n## ")[0], re.DOTALL | re.MULTILINE
    ):
        for said, put in SIZES.items():
            block = block.replace(said, put)
        if language == "python":
            yield ["python", "-c", block]
        elif not language:
            yield from (shlex.split(line) for line in block.splitlines())


class Place:
    """An empty folder with the networks and one digit, and the path that programs are looked for on.

    Args:
        folder: Where it is.
        path: Folders with the tools.
    """

    def __init__(self, folder: Path, path: Sequence[Path]) -> None:
        self.folder = folder
        # without the folder of this interpreter, whose environment is not for tools to change
        self.path = os.pathsep.join([*(str(one.resolve()) for one in path), os.environ["PATH"]])
        for name, source in FILES.items():
            shutil.copy(ROOT / "models" / source, folder / name)
        self.image = digits(SHAPE[1:]).test_images[:1].numpy()
        np.save(folder / "x.npy", self.image)

    def run(self, words: Sequence[str]) -> None:
        """Run a command.

        Raises:
            CalledProcessError: It fails.
            TimeoutExpired: It takes too long.
        """
        own = Path(sys.executable).parent / words[0] if words[0] == "bnfold" else None
        program = own or shutil.which(words[0], path=self.path) or words[0]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run(
            [program, *words[1:]],
            cwd=self.folder,
            env={**variables, "PATH": self.path, "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=SECONDS,
        )

    def lacks(self, tool: Tool) -> str:
        """What of a tool is not there; empty if all is."""
        for need in tool.needs:
            if need.startswith("import "):
                try:
                    self.run(["python", "-c", need])
                except subprocess.CalledProcessError:
                    return need.removeprefix("import ")
            elif shutil.which(need, path=self.path) is None:
                return need
        return ""


@functools.cache
def plain(source: str) -> onnx.ModelProto:
    """A network of `FILES`, folded for no target."""
    reading = Reading(input_shape="x".join(map(str, SHAPE))) if source.endswith(".pt") else Reading()
    return ir.to_proto(bnfold.fold(read_model(ROOT / "models" / FILES[source], reading).model).model)


def expected(source: str, image: Array) -> Array:
    """The output of a network in ONNX Runtime."""
    session = ort.InferenceSession(plain(source).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def tried(name: str, place: Place) -> str:
    """What came of a target's page.

    Raises:
        CalledProcessError: A line fails.
        AssertionError: The result is another.
    """
    tool = TOOLS[name]
    lines, source, written = [], "", ""
    short = dict(tool.short)

    def run(words: list[str]) -> None:
        place.run([*words, *shlex.split(short.get(words[0], ""))])
        lines.append(words[0])

    for words in typed((PAGES / f"{name}.md").read_text(encoding="utf-8")):
        if words[:2] == ["bnfold", "check"]:
            continue  # of a file that the next line writes
        if words[:2] == ["bnfold", "export"]:
            source, written = words[2], words[words.index("-o") + 1]
            words = [*words, "--no-bench"]
        run(words)
    file = place.folder / written
    ports = interface(load_onnx(file)).inputs if file.suffix == ".onnx" else ()
    for line in load(name).commands(Path(written), ports):
        run(shlex.split(line))
    place.run(["python", "-c", f"{_READ}{tool.run}{_WRITE}"])
    wanted, found = expected(source, place.image), np.load(place.folder / "y.npy")
    off = float(np.abs(wanted.ravel() - found.ravel()).max() / np.abs(wanted).max())
    assert off <= ALLOWED, f"{name}: an output is off by {off:.2%} of the largest"
    return f"{', '.join(lines)}; the output is off by {off:.1e} of the largest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the targets, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toolchains")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TOOLS))
    parser.add_argument(
        "--path", action="append", type=Path, default=[], metavar="FOLDER", help="has the tools"
    )
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.targets or TOOLS:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), options.path)
            if missing := place.lacks(TOOLS[name]):
                print(f"{name}: not tried, there is no {missing}", flush=True)
                continue
            try:
                print(f"{name}: {tried(name, place)}", flush=True)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired, AssertionError) as error:
                failed += 1
                said = (getattr(error, "output", None) or "")[-1500:]
                print(f"{name}: FAILED, {error}\n{said}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
