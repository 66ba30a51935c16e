"""The limits of a container are read from what a kernel writes; whatever is missing is None and no error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnfold.runtime.cgroups import cpu_quota, memory_limit


class Kernel:
    """A `/proc` and cgroup hierarchies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.groups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.mounts = ""

    def mount(self, kind: str, name: str, options: str = "rw", root: str = "/") -> None:
        point = self.groups / name
        self.mounts += f"31 23 0:28 {root} {point} rw,relatime shared:1 - {kind} {kind} {options}\n"
        (self.proc / "self" / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + self.mounts)

    def member(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def write(self, path: str, text: str) -> None:
        (self.groups / path).parent.mkdir(parents=True, exist_ok=True)
        (self.groups / path).write_text(text + "\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_version_2_takes_the_tightest_of_nested_groups(kernel: Kernel) -> None:
    kernel.mount("cgroup2", "unified")
    kernel.member("0::/pod/container")
    kernel.write("unified/pod/container/cpu.max", "max 100000")
    kernel.write("unified/pod/cpu.max", "150000 100000")
    kernel.write("unified/cpu.max", "400000 100000")
    kernel.write("unified/pod/container/memory.max", "2000000000")
    kernel.write("unified/pod/memory.max", "max")
    assert cpu_quota(kernel.proc) == 1.5
    assert memory_limit(kernel.proc) == 2_000_000_000


def test_version_1_has_a_hierarchy_a_controller(kernel: Kernel) -> None:
    kernel.mount("cgroup", "cpu", "rw,cpu,cpuacct")
    kernel.mount("cgroup", "memory", "rw,memory")
    kernel.member("5:memory:/a", "4:cpu,cpuacct:/a/b", "1:name=systemd:/a/b")
    kernel.write("cpu/a/b/cpu.cfs_quota_us", "50000")
    kernel.write("cpu/a/b/cpu.cfs_period_us", "100000")
    kernel.write("cpu/a/cpu.cfs_quota_us", "-1")
    kernel.write("cpu/a/cpu.cfs_period_us", "100000")
    kernel.write("memory/a/memory.limit_in_bytes", "1073741824")
    kernel.write("memory/memory.limit_in_bytes", "9223372036854771712")  # version 1's "none"
    assert cpu_quota(kernel.proc) == 0.5
    assert memory_limit(kernel.proc) == 2**30


def test_a_controller_of_another_name_is_no_cpu_controller(kernel: Kernel) -> None:
    kernel.mount("cgroup", "cpuset", "rw,cpuset")
    kernel.mount("cgroup", "cpu", "rw,cpu,cpuacct")
    kernel.member("3:cpuset:/", "4:cpu,cpuacct:/")
    kernel.write("cpuset/cpu.cfs_quota_us", "1000")
    kernel.write("cpuset/cpu.cfs_period_us", "100000")
    assert cpu_quota(kernel.proc) is None


@pytest.mark.parametrize(("root", "inside"), [("/pod", "/pod/c"), ("/pod/c", "/pod/c"), ("/", "/../../host")])
def test_a_container_sees_its_own_part_of_the_hierarchy(kernel: Kernel, root: str, inside: str) -> None:
    kernel.mount("cgroup2", "unified", root=root)
    kernel.member(f"0::{inside}")
    kernel.write("unified/cpu.max", "200000 100000")
    assert cpu_quota(kernel.proc) == 2.0


def test_without_limits_or_cgroups_there_is_none(kernel: Kernel, tmp_path: Path) -> None:
    kernel.mount("cgroup2", "unified")
    kernel.member("0::/")
    for proc in (kernel.proc, tmp_path / "nowhere"):
        assert cpu_quota(proc) is None
        assert memory_limit(proc) is None
