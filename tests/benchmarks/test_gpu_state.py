"""A GPU's clocks and what held them back, from what nvidia-smi writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks import gpu_state
from benchmarks.gpu_state import Sample, parse, table, watched

LINES = [
    "1980, 2619, 41, 312.40, 0x0000000000000004",
    "1410, 2619, 71, 350.00, 0x0000000000000024",
    "345, 2619, 33, [N/A], 0x0000000000000001",
]


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program `nvidia-smi` first on the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_line_is_read() -> None:
    assert parse(LINES[0]) == Sample((1980.0, 2619.0, 41.0, 312.4), 4)
    assert parse(LINES[2]) == Sample((345.0, 2619.0, 33.0, None), 1)


@pytest.mark.parametrize("line", ["", "1980, 2619, 41", "1980, 2619, 41, 312.40, [Not Supported]"])
def test_a_line_that_says_nothing_is_left_out(line: str) -> None:
    assert parse(line) is None


def test_the_table_has_the_range_and_how_often_what_held_the_clocks_back() -> None:
    text = "\n".join(table([sample for line in LINES if (sample := parse(line))]))
    assert "| SM clock, MHz | 345 | 1,410 | 1,980 |" in text
    assert "| power, W | 312 | 331 | 350 |" in text
    assert "Read every 0.5 s, 3 times in all." in text
    assert "power cap (software) in 67%" in text
    assert "thermal slowdown (software) in 33%, " in text or text.endswith(
        "thermal slowdown (software) in 33%."
    )
    assert "hardware" not in text


def test_what_a_gpu_does_not_say() -> None:
    text = "\n".join(table([Sample((1.0, 2.0, 3.0, None), 0)]))
    assert "| power, W | not said | not said | not said |" in text
    assert text.endswith("held back by: nothing.")


def test_it_watches_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of before 2023 knows the reasons by their old name alone."""
    install(
        tmp_path,
        f"""case "$*" in *clocks_event_reasons*) exit 2;; *--id=0*) ;; *) exit 3;; esac
        echo "{LINES[0]}"
        case "$*" in *--loop-ms=*) while true; do sleep 0.05; echo "{LINES[1]}"; done;; esac""",
        monkeypatch,
    )
    with watched() as samples:
        until = time.monotonic() + 20
        while len(samples()) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        seen = samples()
    assert [parse(line) for line in LINES[:2]] == seen[:2]


@pytest.mark.parametrize("script", ["exit 9", None])
def test_without_a_driver_nothing_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        install(tmp_path, script, monkeypatch)
    with watched() as samples:
        assert samples() == []
    assert gpu_state.table([]) == ["nvidia-smi recorded nothing."]
