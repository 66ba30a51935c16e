"""Every fault of an installation that the doctor knows is brought about and found, with a line to type."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from bnfold.system import doctor as module
from bnfold.system.doctor import Finding, doctor
from bnfold.system.environment import Environment
from bnfold.system.probe import Probe
from bnfold.system.torch_advisories import ADVISORIES

HERE = Environment(
    "A CPU", "x86_64", 8, 8, None, 16 * 10**9, None, (), None, "Linux", "3.12.1", {"bnfold": "1.0"}
)
WITH_GPU = replace(HERE, gpus=("NVIDIA H100",), gpu_driver="580.65")
CPU = Probe("1.31.1", "onnxruntime", available=("CPUExecutionProvider",), ran={"cpu": None})
CUDA = Probe(
    "1.31.1",
    "onnxruntime-gpu",
    "13.0",
    ("CUDAExecutionProvider", "CPUExecutionProvider"),
    {"cpu": None, "cuda": None},
    {"libcudart.so.13": "/opt/cuda/libcudart.so.13.0.1", "libcudnn.so.9": "/opt/cudnn/libcudnn.so.9"},
    "13.0",
    "9.10.2",
    "13.0",
)
BROKEN_CUDA = replace(CUDA, ran={"cpu": None, "cuda": "It did not start."})

Installed = Callable[[dict[str, str | None]], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Pretend that packages have certain versions, or are not there."""
    real = module.installed

    def pretend(versions: dict[str, str | None]) -> None:
        monkeypatch.setattr(module, "installed", lambda name: versions.get(name, real(name)))

    return pretend


def only(findings: Iterable[Finding], title: str) -> Finding:
    (finding,) = (one for one in findings if one.title == title)
    return finding


def test_this_installation_can_run_on_the_cpu() -> None:
    diagnosis = doctor()
    assert only(diagnosis.findings, "cpu").state == "good"
    assert only(diagnosis.findings, "torch" if module.installed("torch") else "bnfold").found
    assert diagnosis.healthy == all(finding.state != "problem" for finding in diagnosis.findings)
    assert all((finding.fix is None) == (finding.state == "good") for finding in diagnosis.findings)


@pytest.mark.parametrize("error", [OSError("disk"), ImportError("gone"), KeyError("k"), RuntimeError("r")])
def test_a_check_that_fails_is_a_finding_and_the_others_go_on(monkeypatch, error: Exception) -> None:
    def broken() -> Probe:
        raise error

    monkeypatch.setattr(module, "probe", broken)
    findings = doctor().findings
    assert type(error).__name__ in only(findings, "providers").found
    assert only(findings, "temporary folder")


def test_a_quota_below_the_cpus_is_told_with_the_threads_to_use(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    finding = only(module._machine(replace(HERE, cpu_quota=2.5)), "threads")
    assert finding.state == "warning"
    assert "2.5 CPUs" in finding.found
    assert "OMP_NUM_THREADS=2" in finding.fix
    tight = only(module._machine(replace(HERE, cpu_quota=0.5)), "threads")
    assert "--threads 1" in tight.fix
    for enough in (None, 8.0, 16.0):
        assert len(list(module._machine(replace(HERE, cpu_quota=enough)))) == 1


@pytest.mark.parametrize(
    ("value", "wrong"), [("4", False), ("8", False), ("9", True), ("0", True), ("x", True)]
)
def test_omp_num_threads(monkeypatch, value: str, wrong: bool) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    found = [finding.title for finding in module._machine(HERE)]
    assert ("OMP_NUM_THREADS" in found) == wrong


REQUIREMENTS = [
    "numpy>=1.26", 'onnxruntime>=1.20; extra == "cpu"', 'pytest>=8; extra == "dev"',
    'torch>=2.9; extra == "torch"', "onnxscript>=0.5 ; extra == 'torch'", 'jinja2 ; extra == "report"',
    'mkdocs>=1.6 ; extra == "docs"', 'twine>=6 ; extra == "release"', 'onnxsim>=9 ; extra == "benchmarks"',
]  # fmt: skip


@pytest.mark.parametrize(
    ("versions", "title", "state", "fix"),
    [
        ({"numpy": "1.26.0"}, "bnfold", "good", None),
        ({"numpy": "1.9"}, "bnfold", "problem", 'pip install --upgrade "bnfold"'),
        ({"torch": None}, "bnfold[torch]", "optional", 'pip install "bnfold[torch]"'),
        ({"torch": "2.8.0+cu128"}, "bnfold[torch]", "warning", 'pip install --upgrade "bnfold[torch]"'),
        ({"torch": "2.10.0", "onnxscript": "0.5"}, "bnfold[torch]", "good", None),
        ({"jinja2": None}, "bnfold[report]", "optional", 'pip install "bnfold[report]"'),
    ],
)
def test_requirements(monkeypatch, installed: Installed, versions, title, state, fix) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: REQUIREMENTS)
    installed({"numpy": "2.0", "torch": "2.13", "onnxscript": "1.0", "jinja2": "3.1", **versions})
    findings = list(module._requirements())
    assert [finding.title for finding in findings] == ["bnfold", "bnfold[torch]", "bnfold[report]"]
    finding = only(findings, title)
    assert (finding.state, finding.fix) == (state, fix)
    assert all(name in finding.found for name in versions)


def pretend_owners(monkeypatch, *owners: str) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": list(owners)})


def test_two_distributions_are_a_conflict(monkeypatch, installed: Installed) -> None:
    pretend_owners(monkeypatch, "onnxruntime-gpu", "onnxruntime", "onnxruntime-gpu")
    installed({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"})
    (finding,) = module._packages(HERE)
    assert finding.state == "problem"
    assert "onnxruntime 1.31.1, onnxruntime-gpu 1.30.0" in finding.found
    assert finding.fix == 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "bnfold[cpu]"'
    (finding,) = module._packages(WITH_GPU)
    assert finding.fix.endswith('&& pip install "bnfold[gpu]"')


def spec(monkeypatch, origin: str | None, *, found: bool = True) -> None:
    made = importlib.util.spec_from_loader("onnxruntime", None, origin=origin) if found else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: made)


def test_no_distribution(monkeypatch) -> None:
    pretend_owners(monkeypatch)
    spec(monkeypatch, None, found=False)
    (finding,) = module._packages(HERE)
    assert (finding.state, finding.fix) == ("problem", 'pip install "bnfold[cpu]"')
    assert list(module._providers(HERE, Probe(died="no module"))) == []


def test_what_is_left_of_a_package(monkeypatch) -> None:
    pretend_owners(monkeypatch, "onnxruntime")
    spec(monkeypatch, None)
    (finding,) = module._packages(HERE)
    assert finding.state == "problem"
    assert finding.fix.startswith("pip uninstall -y onnxruntime && ")


def test_a_module_of_no_package(monkeypatch) -> None:
    pretend_owners(monkeypatch)
    spec(monkeypatch, "/src/onnxruntime/__init__.py")
    (finding,) = module._packages(HERE)
    assert finding.state == "warning"
    assert "/src/onnxruntime/__init__.py" in finding.found


def test_a_module_that_stands_before_the_package(monkeypatch, tmp_path: Path) -> None:
    own = tmp_path / "site" / "onnxruntime" / "__init__.py"
    own.parent.mkdir(parents=True)
    own.touch()
    place = type("Distribution", (), {"locate_file": lambda _self, _path: own, "version": "1.31.1"})()
    monkeypatch.setattr(metadata, "distribution", lambda _name: place)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pretend_owners(monkeypatch, "onnxruntime")
    spec(monkeypatch, str(own))
    assert [finding.state for finding in module._packages(HERE)] == ["good"]
    other = tmp_path / "work" / "onnxruntime"
    spec(monkeypatch, str(other / "__init__.py"))
    (finding,) = module._packages(HERE)
    assert (finding.state, finding.fix) == ("problem", f'mv "{other}" "{other}.aside"')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "work"))
    (finding,) = module._packages(HERE)
    assert finding.fix == "unset PYTHONPATH"


def providers(here: Environment, tried: Probe) -> list[tuple[str, str]]:
    return [(finding.title, finding.state) for finding in module._providers(here, tried)]


@pytest.fixture
def as_probed(installed: Installed) -> None:
    installed({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})


@pytest.mark.usefixtures("as_probed")
@pytest.mark.parametrize(
    ("here", "tried", "expected"),
    [
        (HERE, CPU, [("cpu", "good"), ("cuda", "good")]),
        (WITH_GPU, CPU, [("cpu", "good"), ("cuda", "warning")]),
        (WITH_GPU, CUDA, [("cpu", "good"), ("cuda", "good")]),
        (HERE, CUDA, [("cpu", "good"), ("cuda", "good")]),
        (WITH_GPU, BROKEN_CUDA, [("cpu", "good"), ("cuda", "problem")]),
        (HERE, BROKEN_CUDA, [("cpu", "good"), ("cuda", "warning")]),
        (HERE, replace(CPU, ran={"cpu": "It failed."}), [("cpu", "problem"), ("cuda", "good")]),
        (HERE, replace(CPU, ran={}), [("cpu", "problem"), ("cuda", "good")]),
        (
            WITH_GPU,
            replace(CUDA, ran={"cpu": None}, died="signal 11"),
            [("cpu", "good"), ("cuda", "problem")],
        ),
        (HERE, Probe(died="ImportError: numpy"), [("cpu", "problem")]),
        (
            HERE,
            replace(CPU, ran={"cpu": None, "openvino": None, "tensorrt": "No libnvinfer."}),
            [("cpu", "good"), ("cuda", "good"), ("openvino", "good"), ("tensorrt", "warning")],
        ),
    ],
)
def test_providers(here: Environment, tried: Probe, expected: list[tuple[str, str]]) -> None:
    assert providers(here, tried) == expected


@pytest.mark.usefixtures("as_probed")
def test_missing_libraries_are_named() -> None:
    tried = replace(BROKEN_CUDA, libraries={"libcudart.so.13": "/a/libcudart.so.13", "libcudnn.so.9": None})
    finding = only(module._providers(WITH_GPU, tried), "cuda")
    assert "CUDA 13.0, and the loader does not find libcudnn.so.9" in finding.found
    assert "NVIDIA H100, driver 580.65" in finding.found
    assert finding.fix == 'pip install "onnxruntime-gpu[cuda,cudnn]"'


@pytest.mark.usefixtures("as_probed")
def test_a_driver_that_is_too_old_is_the_cause() -> None:
    finding = only(module._providers(WITH_GPU, replace(BROKEN_CUDA, driver_cuda="12.4")), "cuda")
    assert "driver for CUDA 13" in finding.fix
    assert "up to 12.4" in finding.fix


@pytest.mark.usefixtures("as_probed")
def test_what_was_found_of_cuda_is_told() -> None:
    finding = only(module._providers(WITH_GPU, CUDA), "cuda")
    assert "CUDA 13.0 and cuDNN 9.10.2 are in /opt/cuda, /opt/cudnn" in finding.found


@pytest.mark.parametrize("version", ["1.30.0", None])
def test_a_module_of_another_version_than_its_package(installed: Installed, version: str | None) -> None:
    installed({"onnxruntime": version})
    finding = only(module._providers(HERE, CPU), "ONNX Runtime's module")
    assert finding.state == "problem"
    assert (version or "missing") in finding.found


@pytest.mark.parametrize(
    ("version", "state", "cves", "least"),
    [
        ("2.5.1", "problem", {"CVE-2025-32434", "CVE-2026-24747", "CVE-2026-4538"}, "2.11"),
        ("2.6.0+cu124", "problem", {"CVE-2026-24747", "CVE-2026-4538"}, "2.11"),
        ("2.9.1", "problem", {"CVE-2026-24747", "CVE-2026-4538"}, "2.11"),
        ("2.10.0", "warning", {"CVE-2026-4538"}, "2.11"),
        ("2.11.0", "good", set(), None),
    ],
)
def test_known_weaknesses_of_torch(monkeypatch, tmp_path, version, state, cves, least) -> None:
    finding = torch_finding(monkeypatch, tmp_path, version, "cuda: Optional[str] = None")
    assert finding.state == state
    assert {advisory.cve for advisory in ADVISORIES if advisory.cve in finding.found} == cves
    assert finding.fix == (f'pip install --upgrade "torch>={least}"' if least else None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cuda: Optional[str] = '12.8'", "built for CUDA 12.8"),
        ("cuda = '11.8'", "built for CUDA 11.8"),
        ("cuda: Optional[str] = None", "built without CUDA"),
    ],
)
def test_the_build_of_torch_is_read_and_not_imported(monkeypatch, tmp_path, line, words) -> None:
    assert words in torch_finding(monkeypatch, tmp_path, "2.13.0", line).found


def torch_finding(monkeypatch, folder: Path, version: str, line: str) -> Finding:
    text = f"from typing import Optional\n__version__ = '{version}'\n{line}\nhip: Optional[str] = '9'\n"
    (folder / "version.py").write_text(text)
    place = type("Distribution", (), {"locate_file": lambda _self, _path: folder / "version.py"})()
    monkeypatch.setattr(metadata, "distribution", lambda _name: place)
    monkeypatch.setattr(module, "installed", lambda _name: version)
    (finding,) = module._torch()
    return finding


def test_no_torch_is_told_with_its_extra(installed: Installed) -> None:
    installed({"torch": None})
    assert list(module._torch()) == []


def test_a_temporary_folder_that_is_full_or_closed(monkeypatch) -> None:
    assert only(module._temporary_folder(), "temporary folder").state in ("good", "warning")
    monkeypatch.setattr(module, "_ROOM", 10**18)
    assert only(module._temporary_folder(), "temporary folder").state == "warning"

    def closed(**_options: object) -> None:
        raise PermissionError(13, "Permission denied", "/tmp")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", closed)
    finding = only(module._temporary_folder(), "temporary folder")
    assert (finding.state, finding.fix) == ("problem", "export TMPDIR=/a/folder/with/room")
