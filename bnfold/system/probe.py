"""What the installed ONNX Runtime can do, found out in a separate process, which may crash.

A broken installation does not always raise an error: mixed libraries end the process. So a child process
imports ONNX Runtime, runs one convolution on each provider, and after each step writes what it found as one
line of JSON, which remains valid even if the next step kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnfold.runtime.providers import short_name

_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from bnfold.system.probe import report
report()
"""
_SECONDS = 60.0

_CUDA_LIBRARIES = {
    # The libraries that ONNX Runtime's CUDA provider needs, by CUDA's major version; both need cuDNN 9 too.
    "12": ("libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12", "libcufft.so.11", "libcurand.so.10"),
    "13": ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcufft.so.12", "libcurand.so.10"),
}
_CUDNN = "libcudnn.so.9"


@dataclass(frozen=True)
class Probe:
    """What the child process has written.

    Attributes:
        version: Version of the imported module; None where the import failed.
        package: The package that this module says it was built as.
        built_for: The CUDA version that it was built for, as `"12.8"`; empty for a build without CUDA.
        available: The full names of the providers that it lists.
        ran: For the short name of every provider that is listed, except Azure's, which calls services: None
            if a convolution ran there with the right result, otherwise what went wrong.
        libraries: For a CUDA build on Linux, each library that it needs and the path from which it was
            loaded; None where it was not found.
        cuda: Version of the CUDA runtime that was loaded.
        cudnn: Version of cuDNN that was loaded.
        driver_cuda: The newest CUDA version that the GPU's driver can run.
        died: How the child process failed; None where it did not.
    """

    version: str | None = None
    package: str | None = None
    built_for: str = ""
    available: tuple[str, ...] = ()
    ran: dict[str, str | None] = field(default_factory=dict)
    libraries: dict[str, str | None] = field(default_factory=dict)
    cuda: str | None = None
    cudnn: str | None = None
    driver_cuda: str | None = None
    died: str | None = None


def probe() -> Probe:
    """Start the child process and collect what it writes.

    Raises:
        OSError: The process could not be started.
    """
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        try:
            written, complaints = child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            written, complaints = child.communicate()
            complaints = f"it did not end within {_SECONDS:.0f} seconds"
    return parse(written, complaints, child.returncode)


def parse(written: str, complaints: str = "", code: int = 0) -> Probe:
    """Read the standard output and error of the child process, and its exit code."""
    known: dict[str, Any] = {"ran": {}}
    for line in written.splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # another output, or a line that was cut off
            facts = json.loads(line)
            known = known | facts | {"ran": known["ran"] | facts.get("ran", {})}
    if code:
        signal = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
        known["died"] = (complaints.strip().splitlines() or [signal])[-1].strip()
    return Probe(**{**known, "available": tuple(known.get("available", ()))})


def report() -> None:
    """Run as the child process."""
    for facts in _facts():
        print(json.dumps(facts), flush=True)


def _facts() -> Iterator[dict[str, Any]]:
    ort = importlib.import_module("onnxruntime")
    built_for = str(getattr(ort, "cuda_version", "") or "")
    package = getattr(ort, "package_name", None)
    yield {"version": ort.__version__, "package": package, "built_for": built_for}
    yield {"available": list(ort.get_available_providers())}
    yield {"ran": {"cpu": _trial("cpu")}}
    if built_for and sys.platform == "linux":
        if hasattr(ort, "preload_dlls"):
            with contextlib.redirect_stdout(sys.stderr):
                ort.preload_dlls()
        yield _cuda_facts(built_for)
    others = {short_name(full) for full in ort.get_available_providers()} - {"cpu", "azure"}
    for provider in sorted(others):
        yield {"ran": {provider: _trial(provider)}}


def _trial(provider: str) -> str | None:
    """Run a convolution on a provider; returns what is wrong, or None."""
    import numpy as np
    from onnx import parser

    from bnfold.errors import BnfoldError
    from bnfold.runtime.placement import elsewhere, placements, sentence
    from bnfold.runtime.sessions import run, session

    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1, 2, 4, 4] x, float[3, 2, 3, 3] w) => '
        "(float[1, 3, 2, 2] y) { y = Conv(x, w) }"
    )
    draw = np.random.default_rng(0)
    feeds = {name: draw.normal(size=size).astype(np.float32) for name, size in _SIZES.items()}
    windows = np.lib.stride_tricks.sliding_window_view(feeds["x"][0], (3, 3), axis=(1, 2))
    expected = np.einsum("cijuv,ocuv->oij", windows.astype(np.float64), feeds["w"])
    try:
        (actual,) = run(session(model, provider=provider, optimized="off", threads=1), feeds)
        placed = placements(model, feeds, provider=provider, optimized="off")
    except BnfoldError as error:
        return error.problem
    if not np.allclose(actual[0], expected, rtol=1e-4, atol=1e-4):
        return "A convolution gave wrong numbers."
    return sentence(placed, provider) if elsewhere(placed, provider) else None


_SIZES = {"x": (1, 2, 4, 4), "w": (3, 2, 3, 3)}


def _cuda_facts(built_for: str) -> dict[str, Any]:
    """Which of the libraries that CUDA needs the loader finds, and their versions."""
    needed = (*_CUDA_LIBRARIES.get(built_for.split(".", 1)[0], ()), _CUDNN)
    loaded = {name: _load(name) for name in (*needed, "libcuda.so.1")}
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = [Path(line[73:].strip()) for line in maps.splitlines()]
    return {
        "libraries": {name: _mapped(name, paths) if loaded[name] else None for name in needed},
        "cuda": _version_by_reference(loaded[needed[0]], "cudaRuntimeGetVersion"),
        "driver_cuda": _version_by_reference(loaded["libcuda.so.1"], "cuDriverGetVersion"),
        "cudnn": _cudnn_version(loaded[_CUDNN]),
    }


def _mapped(name: str, paths: list[Path]) -> str:
    """The file that a library was loaded from; its name is longer if the library is a link to it."""
    return next((str(path) for path in paths if path.name.startswith(name)), name)


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _version_by_reference(library: ctypes.CDLL | None, function: str) -> str | None:
    """A version of CUDA, which is 1000·major + 10·minor and written through a pointer."""
    number = ctypes.c_int(0)
    if library is None or not hasattr(library, function) or getattr(library, function)(ctypes.byref(number)):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _cudnn_version(library: ctypes.CDLL | None) -> str | None:
    """The version of cuDNN, which is 10000·major + 100·minor + patch."""
    if library is None or not hasattr(library, "cudnnGetVersion"):
        return None
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"
