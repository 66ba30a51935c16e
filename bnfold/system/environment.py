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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from bnfold._version import __version__

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "onnxscript", "torch")
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


def cpu_quota(proc: Path = _PROC) -> float | None:
    """How many CPUs' worth of time the cgroups allow this process; of nested ones the lowest counts.

    Args:
        proc: The kernel's folder on processes.

    Returns:
        CPUs, None without a limit or on a system without cgroups.
    """
    found: list[float] = []
    for version, folder in _cgroups("cpu", proc):
        if version == 2:  # "max 100000" or "150000 100000": microseconds, in every period of microseconds
            quota, period = _words(folder / "cpu.max", 2)
        else:
            (quota,), (period,) = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # "-1" means unlimited
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit(proc: Path = _PROC) -> int | None:
    """How many bytes the cgroups allow this process; None without a limit.

    Version 1 writes a number near 2**63 if there is no limit.
    """
    found: list[int] = []
    for version, folder in _cgroups("memory", proc):
        (limit,) = _words(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit.isdecimal() and int(limit) < 2**60:
            found.append(int(limit))
    return min(found, default=None)


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


def _cgroups(controller: str, proc: Path) -> Iterator[tuple[int, Path]]:
    """The folder of this process's cgroup and of each one around it, with the cgroup version: 1 or 2.

    `/proc/self/cgroup` has the path within a hierarchy, as `4:memory:/a/b` (version 1) or `0::/a/b` (2);
    `/proc/self/mountinfo` has where a hierarchy, or a part of it, is mounted.
    """
    mounts = list(_cgroup_mounts(proc))
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, inside = line.split(":", 2)
        version = 1 if controllers else 2
        if controllers and controller not in controllers.split(","):
            continue
        for kind, options, root, point in mounts:
            if kind == ("cgroup" if controllers else "cgroup2") and (version == 2 or controller in options):
                for part in _upwards(inside, root):
                    yield version, point / part


def _cgroup_mounts(proc: Path) -> Iterator[tuple[str, list[str], str, Path]]:
    """The kind, super options, root and mount point of every mounted cgroup hierarchy.

    A line is `32 31 0:29 /root /sys/fs/cgroup/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu`, with a
    number of optional fields before the dash.
    """
    for line in _lines(proc / "self" / "mountinfo"):
        before, dash, after = line.partition(" - ")
        kind, _, options = [*after.split(" "), "", ""][:3]
        if dash and kind.startswith("cgroup"):
            root, point = before.split(" ")[3:5]
            yield kind, options.split(","), root, Path(point.replace("\\040", " "))


def _upwards(inside: str, root: str) -> Iterator[str]:
    """The path of a group below a mount of `root`, then of each group around it, last the mount itself."""
    try:
        part = PurePosixPath(inside).relative_to(root)
    except ValueError:  # mounted from elsewhere, as in a container that sees its own group as the root
        part = PurePosixPath()
    yield from dict.fromkeys(str(one) for one in (part, *part.parents))


def _words(path: Path, count: int = 1) -> list[str]:
    """The first `count` words of a small file, with empty ones for what it does not have."""
    words = " ".join(_lines(path)).split()
    return (words + [""] * count)[:count]


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; empty where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; others may lack a name
        return None


def _cpu_name(proc: Path = _PROC) -> str:
    """The processor's name as its maker writes it, or the best substitute."""
    text = "\n".join(_lines(proc / "cpuinfo"))
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
