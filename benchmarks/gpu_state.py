"""What an NVIDIA GPU did while something was measured: clocks, temperature, power, and what held it back.

`nvidia-smi` comes with the driver and writes a line twice a second. Where there is none, nothing is recorded.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from benchmarks.page import markdown_table

EVERY_MS = 500
_SECONDS = 20.0
_QUANTITIES = {
    "SM clock, MHz": "clocks.sm",
    "memory clock, MHz": "clocks.mem",
    "temperature, °C": "temperature.gpu",
    "power, W": "power.draw",
}
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # drivers since 535, and before

REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "power cap (software)",
    0x008: "slowdown (hardware)",
    0x010: "sync boost",
    0x020: "thermal slowdown (software)",
    0x040: "thermal slowdown (hardware)",
    0x080: "power brake (hardware)",
    0x100: "display clocks",
}
"""What may hold the clocks back, by its bit: nvmlClocksEventReason… in NVML's header."""


@dataclass(frozen=True)
class Sample:
    """One line of `nvidia-smi`.

    Attributes:
        values: The quantities in their order; None for what the GPU does not say.
        reasons: What held the clocks back, as bits.
    """

    values: tuple[float | None, ...]
    reasons: int


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], list[Sample]]]:
    """Record what the first GPU does until the end; the function gives what was recorded so far."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:
        command = _command()
        if command is None:
            yield list
            return
        child = subprocess.Popen([*command, f"--loop-ms={EVERY_MS}"], stdout=lines, stderr=subprocess.DEVNULL)
        try:
            yield lambda: _read(lines)
        finally:
            child.terminate()
            child.wait(_SECONDS)


def _command() -> list[str] | None:
    """The command, with the name that this driver has for the reasons; None where there is no driver."""
    for reasons in _REASONS:
        fields = ",".join((*_QUANTITIES.values(), reasons))
        command = ["nvidia-smi", "--id=0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(command, capture_output=True, check=True, timeout=_SECONDS)
            return command
    return None


def _read(lines: IO[str]) -> list[Sample]:
    lines.seek(0)
    return [sample for line in lines.read().splitlines() if (sample := parse(line))]


def parse(line: str) -> Sample | None:
    """Read a line such as `1980, 2619, 41, 312.40, 0x0000000000000004`; None where it was cut off."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_QUANTITIES) + 1 or not words[-1].startswith("0x"):
        return None
    return Sample(tuple(map(_number, words[:-1])), int(words[-1], 16))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:  # [N/A]
        return None


def table(samples: list[Sample]) -> list[str]:
    """The lines of a page: every quantity, and how often the clocks were held back by what."""
    if not samples:
        return ["nvidia-smi recorded nothing."]
    rows = []
    for place, name in enumerate(_QUANTITIES):
        values = [value for sample in samples if (value := sample.values[place]) is not None]
        ends = (min(values), statistics.median(values), max(values)) if values else ()
        rows.append([name, *([f"{value:,.0f}" for value in ends] or ["not said"] * 3)])
    counts = Counter(name for sample in samples for bit, name in REASONS.items() if sample.reasons & bit)
    shares = [f"{name} in {count / len(samples):.0%}" for name, count in counts.most_common()]
    held = f"Read every {EVERY_MS / 1000:g} s, {len(samples)} times in all. The clocks were held back by: "
    return [
        *markdown_table(("while measuring", "lowest", "median", "highest"), rows),
        "",
        f"{held}{', '.join(shares) or 'nothing'}.",
    ]
