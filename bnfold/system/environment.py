"""What every measured number depends on besides the model: the machine, its limits, and the versions.

A container may use less than its machine has. There are two limits: how many CPUs a process may be scheduled
on (affinity) and how much of their time it gets (cgroup quota). ONNX Runtime and PyTorch size their thread
pools by the first and are throttled by the second. Nothing here imports torch or ONNX Runtime.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bnfold._version import __version__
from bnfold.runtime.cgroups import cpu_quota, lines_of, memory_limit

PACKAGES = (
    *("ai-edge-litert", "MNN", "ncnn", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    *("onnxscript", "openvino", "pnnx", "torch"),
)
"""The distributions whose versions a report names."""

_PROC = Path("/proc")
_GPU_SECONDS = 10.0


@dataclass(frozen=True)
class Environment:
    """The machine and the software, in plain values.

    Attributes:
        cpu: The processor's name.
        architecture: `"x86_64"`, `"arm64"` …
        cpus: Logical CPUs of the machine.
        usable_cpus: CPUs that this process may be scheduled on.
        cpu_quota: CPUs' worth of time that a cgroup allows, as 1.5; None without a limit.
        memory: Bytes of the machine; None where the system does not say.
        memory_limit: Bytes that a cgroup allows; None without a limit below the machine's.
        gpus: Names of the NVIDIA GPUs, in their order.
        gpu_driver: Version of their driver; None without one.
        system: The operating system and its version.
        python: Python's version.
        versions: Versions of bnfold and of the packages that numbers depend on; only what is installed.
    """

    cpu: str
    architecture: str
    cpus: int
    usable_cpus: int
    cpu_quota: float | None
    memory: int | None
    memory_limit: int | None
    gpus: tuple[str, ...]
    gpu_driver: str | None
    system: str
    python: str
    versions: dict[str, str]


def environment() -> Environment:
    """Describe this machine; what cannot be found out is None, empty, or `"unknown"`."""
    memory = _memory()
    limit = memory_limit()
    gpus, driver = nvidia()
    return Environment(
        cpu=_cpu_name(),
        architecture=platform.machine(),
        cpus=os.cpu_count() or 1,
        usable_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_quota=cpu_quota(),
        memory=memory,
        memory_limit=limit if limit is not None and (memory is None or limit < memory) else None,
        gpus=gpus,
        gpu_driver=driver,
        system=platform.platform(),
        python=platform.python_version(),
        versions={"bnfold": __version__} | _packages(),
    )


def versions() -> dict[str, str]:
    """Name the versions that the numbers depend on; a package that is not installed has no entry."""
    here = {"bnfold": __version__, "python": platform.python_version(), "system": platform.platform()}
    return here | _packages()


def installed(package: str) -> str | None:
    """The version of a distribution, from its metadata; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def nvidia() -> tuple[tuple[str, ...], str | None]:
    """The names of the NVIDIA GPUs and the version of their driver, from `nvidia-smi`."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GPU_SECONDS, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):  # there is no such program, no driver or no answer
        return (), None
    rows = [line.rsplit(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    return tuple(name for name, _ in rows), rows[0][1] if rows else None


def _packages() -> dict[str, str]:
    return {package: version for package in PACKAGES if (version := installed(package))}


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; others may lack a name
        return None


def _cpu_name(proc: Path = _PROC) -> str:
    """The processor's name as its maker writes it, or the best substitute."""
    text = "\n".join(lines_of(proc / "cpuinfo"))
    if found := re.search(r"^model name\s*: *(\S.*)$", text, re.MULTILINE):
        return found[1].strip()
    if found := re.search(r"^(?:Model|Hardware|cpu model)\s*: *(\S.*)$", text, re.MULTILINE):
        return found[1].strip()  # boards with ARM or MIPS give their own name
    return _registered_name() or platform.processor() or platform.machine() or "unknown"


def _registered_name() -> str | None:
    """The processor's name from where macOS and Windows keep it."""
    if sys.platform == "darwin":
        try:
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None
    if sys.platform == "win32":
        import winreg

        place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            return None
    return None
