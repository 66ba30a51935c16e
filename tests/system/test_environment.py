"""What a machine is and has; whatever is missing is None and no error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bnfold.system import environment as module
from bnfold.system.environment import environment, installed, nvidia, versions


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: AMD EPYC 9654\nprocessor\t: 1\nmodel name\t: other\n",
            "AMD EPYC 9654",
        ),
        ("processor\t: 0\nBogoMIPS\t: 108\n\nModel\t\t: Raspberry Pi 5 Model B\n", "Raspberry Pi 5 Model B"),
    ],
)
def test_the_name_of_the_processor(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert module._cpu_name(tmp_path) == name


def test_a_processor_without_a_name_is_called_something(tmp_path: Path) -> None:
    assert module._cpu_name(tmp_path)


def answer(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    def run(command, **_options):
        done = subprocess.CompletedProcess(command, code, text, "")
        done.check_returncode()
        return done

    monkeypatch.setattr(subprocess, "run", run)


def test_gpus_and_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "NVIDIA H100, 80GB, 580.65.06\nNVIDIA L4, 580.65.06\n")
    assert nvidia() == (("NVIDIA H100, 80GB", "NVIDIA L4"), "580.65.06")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "NVIDIA-SMI has failed because it couldn't communicate with the driver.\n", 9)
    assert nvidia() == ((), None)
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: (_ for _ in ()).throw(FileNotFoundError()))
    assert nvidia() == ((), None)


def test_this_machine() -> None:
    here = environment()
    assert 1 <= here.usable_cpus <= here.cpus
    assert here.memory is None or here.memory > 10**8
    assert {"bnfold", "numpy", "onnx", "onnx-ir"} <= set(here.versions)


def test_a_limit_above_the_machine_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_memory", lambda: 8)
    for limit, expected in ((7, 7), (8, None), (None, None)):
        monkeypatch.setattr(module, "memory_limit", lambda limit=limit: limit)
        assert environment().memory_limit == expected


def test_versions_name_what_is_installed() -> None:
    assert {"bnfold", "python", "system", "numpy", "onnx", "onnx-ir"} <= set(versions())
    assert installed("numpy") == versions()["numpy"]
    assert installed("no-such-package-as-this") is None
