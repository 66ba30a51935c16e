"""Ctrl-C and `kill` end the command soon, whatever a hostile file keeps it busy with, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signals to send"),
]

SOON = 3.0  # seconds; one is what it takes on a machine that does nothing else


def huge_pickle(path: Path) -> None:
    """A list of 20 million numbers: read for minutes, without a call that takes long."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02](" + b"K\x01" * 20_000_000 + b"e.")
        archive.writestr("m/version", "3\n")


class Endless(nn.Module):
    """A loop that never ends."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = 0
        while count < 1:
            x, count = x + 1, count * 1
        return x


def endless_script(path: Path) -> None:
    """A script with a loop that never ends, in an interpreter that looks for no signals."""
    torch.jit.save(torch.jit.script(Endless().eval()), path)


def slow_layers(path: Path) -> None:
    """Layers of torch.nn's own that take a second each, a hundred times."""
    one = [nn.Upsample(scale_factor=600), nn.AvgPool2d(600)]
    torch.save(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), *one * 100).eval(), path)


@pytest.mark.parametrize(
    ("make", "sent", "command"),
    [
        (huge_pickle, signal.SIGTERM, "inspect"),
        (endless_script, signal.SIGINT, "export"),
        (slow_layers, signal.SIGINT, "export"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_signal_ends_it_soon(
    tmp_path: Path, make: Callable[[Path], None], sent: signal.Signals, command: str
) -> None:
    make(tmp_path / "m.pt")
    out = ["-o", str(tmp_path / "o.onnx"), "--no-bench"] if command == "export" else []
    words = [command, str(tmp_path / "m.pt"), "--input-shape", "1x3x8x8", *out]
    call = f"from bnfold_cli import main; main({words})"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", call],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        busy(process.pid)
        assert process.poll() is None, process.communicate()
        begun = time.monotonic()
        process.send_signal(sent)
        _, text = process.communicate(timeout=30)
        assert time.monotonic() - begun < SOON
    finally:
        process.kill()
    assert (process.returncode, text.strip()) == (128 + sent, "bnfold: interrupted.")
    assert [one.name for one in tmp_path.iterdir()] == ["m.pt"]


def busy(pid: int) -> None:
    """Wait until a process has loaded torch, and then for some seconds of its own time."""
    latest = time.monotonic() + 60
    begun = None
    while time.monotonic() < latest:
        time.sleep(0.1)
        if "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text():
            ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            begun = ticks if begun is None else begun
            if ticks - begun > 5 * os.sysconf("SC_CLK_TCK"):
                return
