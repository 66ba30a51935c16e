"""The machine's limits are read from what a kernel writes; whatever is missing is None and no error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bnfold.system import environment as module
from bnfold.system.environment import cpu_quota, environment, installed, memory_limit, nvidia, versions


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
