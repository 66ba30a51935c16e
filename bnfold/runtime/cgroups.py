"""What a container's control groups allow this process: CPUs' worth of time, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")


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


def lines_of(path: Path) -> list[str]:
    """The lines of a file of the kernel; empty where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _cgroups(controller: str, proc: Path) -> Iterator[tuple[int, Path]]:
    """The folder of this process's cgroup and of each one around it, with the cgroup version: 1 or 2.

    `/proc/self/cgroup` has the path within a hierarchy, as `4:memory:/a/b` (version 1) or `0::/a/b` (2);
    `/proc/self/mountinfo` has where a hierarchy, or a part of it, is mounted.
    """
    mounts = list(_cgroup_mounts(proc))
    for line in lines_of(proc / "self" / "cgroup"):
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
    for line in lines_of(proc / "self" / "mountinfo"):
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
    words = " ".join(lines_of(path)).split()
    return (words + [""] * count)[:count]
