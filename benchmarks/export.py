"""How long `bnfold export` takes compared with a bare `torch.onnx.export`, both as whole processes.

    python -m benchmarks.export [--rounds N] [--limit RATIO]

The network is ResNet-18 at 224×224, from a `.pt`. The bare process loads it, calls `torch.onnx.export`, and
makes one ONNX Runtime session of the file. bnfold's exports it, compares the export with the module, folds
and saves, with `--no-validate --no-bench`. The processes take turns, and the order of a turn changes from one
to the next. Each kind's time is its fastest run: whatever else the machine does only adds. Exits with 1 where
the ratio is above the limit.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.resnet18 import random_resnet18

ROOT = Path(__file__).parent.parent
SHAPE = (1, 3, 224, 224)
LIMIT = 1.3
_BARE = """
import sys, torch, onnxruntime
model = torch.load(sys.argv[1], weights_only=False)
torch.onnx.export(model, (torch.randn({shape}),), sys.argv[2], dynamo=True)
onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
"""


def commands(source: Path, folder: Path) -> dict[str, list[str]]:
    """The two command lines, by what they are called."""
    bare, ours = folder / "bare.onnx", folder / "folded.onnx"
    allowed = [f"benchmarks.resnet18.{name}" for name in ("ResNet18", "BasicBlock")]
    return {
        "torch.onnx.export and a session": [
            *(sys.executable, "-c", _BARE.format(shape=", ".join(map(str, SHAPE))), str(source), str(bare))
        ],
        "bnfold export": [
            *(sys.executable, "-m", "bnfold", "export", str(source), "-o", str(ours), "--quiet"),
            *("--input-shape", "x".join(map(str, SHAPE)), "--no-validate", "--no-bench"),
            *(word for name in allowed for word in ("--allow", name)),
        ],
    }


def measure(rounds: int) -> dict[str, list[float]]:
    """Run both in turns and give their times in seconds, after one turn that fills the caches of files.

    Raises:
        subprocess.CalledProcessError: One of them failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "resnet18.pt"
        torch.save(random_resnet18(), source)
        lines = commands(source, folder)
        times: dict[str, list[float]] = {kind: [] for kind in lines}
        for turn in range(rounds + 1):
            kinds = list(lines) if turn % 2 else list(reversed(lines))
            for kind in kinds:
                took = _seconds(lines[kind])
                if turn:
                    times[kind].append(took)
    return times


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - start


def table(times: dict[str, list[float]]) -> Table:
    """The times for a terminal."""
    made = Table("process", "fastest (s)", "median (s)", "runs", box=None, pad_edge=False)
    for kind, runs in times.items():
        made.add_row(kind, f"{min(runs):.2f}", f"{sorted(runs)[len(runs) // 2]:.2f}", str(len(runs)))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit code whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest ratio that passes")
    options = parser.parse_args(arguments)
    times = measure(options.rounds)
    bare, ours = (min(runs) for runs in times.values())
    console = Console()
    console.print(table(times))
    console.print(
        f"bnfold export takes {ours / bare:.2f} times as long (limit {options.limit:g}); "
        f"torch {metadata.version('torch')}, {platform.processor() or platform.machine()}."
    )
    return int(ours / bare > options.limit)


if __name__ == "__main__":
    sys.exit(main())
