"""The child tells what it can, and the parent survives whatever becomes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from bnfold.system import probe as module
from bnfold.system.probe import Probe, parse, probe


def fake_runtime(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module `onnxruntime` of this text before the real one, for the child alone."""
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "__init__.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_the_real_runtime_runs_on_the_cpu() -> None:
    found = probe()
    assert (found.version, found.died) == (ort.__version__, None)
    assert found.available == tuple(ort.get_available_providers())
    assert found.ran["cpu"] is None


@pytest.mark.parametrize(
    ("text", "died"),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", "numpy.core.multiarray failed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("x = 1", "__version__"),
    ],
)
def test_a_runtime_that_does_not_import(tmp_path, monkeypatch, text: str, died: str) -> None:
    fake_runtime(tmp_path, text, monkeypatch)
    found = probe()
    assert found.version is None
    assert died in (found.died or "")


def test_what_was_told_before_the_end_holds(tmp_path, monkeypatch) -> None:
    text = "__version__ = '9.9'\ndef get_available_providers():\n    import os; os._exit(1)"
    fake_runtime(tmp_path, text, monkeypatch)
    found = probe()
    assert (found.version, found.available) == ("9.9", ())
    assert found.died == "it ended with code 1"


def test_a_runtime_that_hangs_is_ended(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    fake_runtime(tmp_path, "import time; time.sleep(60)", monkeypatch)
    assert "did not end within" in (probe().died or "")


def test_lines_are_put_together_and_others_passed_over() -> None:
    lines = [
        {"version": "1.2"},
        {"ran": {"cpu": None}},
        {"ran": {"cuda": "It failed."}},
        {"available": ["A"]},
    ]
    written = "\n".join(["a library that talks", *map(json.dumps, lines), '{"cut'])
    ran = {"cpu": None, "cuda": "It failed."}
    assert parse(written) == Probe(version="1.2", available=("A",), ran=ran)
    assert parse("", "", -11).died == "it was killed by signal 11"
    assert parse("", "Traceback\n  File\nImportError: no\n", 1).died == "ImportError: no"


def test_a_provider_that_is_not_there_is_a_sentence() -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    assert "does not have the requested cuda provider" in (module._trial("cuda") or "")


def test_wrong_numbers_are_noticed(monkeypatch) -> None:
    import numpy as np

    from bnfold.runtime import sessions

    monkeypatch.setattr(sessions, "run", lambda *_arguments: [np.zeros((1, 3, 2, 2), np.float32)])
    assert module._trial("cpu") == "A convolution gave wrong numbers."


def test_a_node_that_ran_elsewhere_is_told(monkeypatch) -> None:
    from bnfold.runtime import placement

    elsewhere = {"cuda": (placement.PlacedNode("c", "Conv", True),)}
    monkeypatch.setattr(placement, "placements", lambda *_arguments, **_options: elsewhere)
    assert "elsewhere: c (Conv)" in (module._trial("cpu") or "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's libraries")
@pytest.mark.parametrize("built_for", ["12.8", "13.0", "99.1"])
def test_libraries_that_the_loader_does_not_find(monkeypatch, built_for: str) -> None:
    monkeypatch.setattr(module, "_load", lambda _name: None)
    facts = module._cuda_facts(built_for)
    assert set(facts["libraries"].values()) == {None}
    assert "libcudnn.so.9" in facts["libraries"]
    major = built_for.split(".")[0]
    assert (f"libcublas.so.{major}" in facts["libraries"]) == (major != "99")
    assert (facts["cuda"], facts["cudnn"], facts["driver_cuda"]) == (None, None, None)


class Library:
    """What ctypes gives for a library of CUDA's."""

    def __init__(self, number: int) -> None:
        self.number = number

        def count() -> int:
            return number

        self.cudnnGetVersion = count

    def cudaRuntimeGetVersion(self, pointer) -> int:  # noqa: N802 - CUDA's name
        pointer._obj.value = self.number
        return 0


def test_versions_of_libraries() -> None:
    assert module._version_by_reference(Library(12080), "cudaRuntimeGetVersion") == "12.8"
    assert module._version_by_reference(Library(12080), "cuDriverGetVersion") is None
    assert module._cudnn_version(Library(91002)) == "9.10.2"
    assert module._mapped("libx.so.1", [Path("/a/liby.so"), Path("/a/libx.so.1.4")]) == "/a/libx.so.1.4"
    assert module._mapped("libx.so.1", []) == "libx.so.1"
