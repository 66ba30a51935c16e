"""What a user must know about an installation: what it has, what works, and how to repair the rest.

Every check gives findings. A check that fails is a finding too, so whatever is broken, the others are still
reported. torch is judged by its files and never imported, ONNX Runtime is tried in a separate process.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from bnfold._version import __version__
from bnfold.errors import BnfoldError
from bnfold.runtime.providers import how_to_start
from bnfold.system.environment import Environment, environment, installed
from bnfold.system.probe import Probe, probe
from bnfold.system.torch_advisories import release, weaknesses

State: TypeAlias = Literal["good", "optional", "warning", "problem"]

_EXPECTED = (
    *(OSError, ImportError, RuntimeError, subprocess.SubprocessError, BnfoldError),
    *(AttributeError, LookupError, TypeError, ValueError),  # metadata that is damaged or half removed
)
_OTHERS = frozenset({"cpu", "gpu", "dev", "docs", "release", "benchmarks"})
"""Extras that are not looked for: two have checks of their own, the rest is for work on bnfold itself."""
_ROOM = 5 * 10**9
_UNTRIED = "it was not tried."


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: `"good"`; `"optional"`: an extra that is not installed, which only its own commands need;
            `"warning"`: bnfold works, and something could be better; `"problem"`: something that a user would
            run into.
        title: What was looked at.
        found: What was found, as a sentence or two.
        fix: The command to run, or a sentence where no command helps; None if nothing needs to be done.
    """

    state: State
    title: str
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Every finding, and the environment that it was made in."""

    environment: Environment
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is a problem."""
        return all(finding.state != "problem" for finding in self.findings)


def doctor() -> Diagnosis:
    """Examine this installation, in a second or two; nothing is changed or downloaded."""
    here = environment()
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("machine", lambda: _machine(here)),
        ("bnfold", _requirements),
        ("ONNX Runtime", lambda: _packages(here)),
        ("providers", lambda: _providers(here, probe())),
        ("torch", _torch),
        ("temporary folder", _temporary_folder),
    )
    return Diagnosis(here, tuple(finding for title, check in checks for finding in _examined(title, check)))


def _examined(title: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; if it fails, that is a finding."""
    try:
        yield from check()
    except _EXPECTED as error:
        yield Finding("warning", title, f"It could not be examined: {type(error).__name__}: {error}")


def _machine(here: Environment) -> Iterator[Finding]:
    memory = here.memory_limit or here.memory
    size = f", {memory / 1e9:.1f} GB of memory" if memory else ""
    yield Finding("good", "machine", f"{here.cpu}, {_cpus(here)}{size}; {here.system}, Python {here.python}.")
    usable, threads = here.usable_cpus, os.environ.get("OMP_NUM_THREADS", "")
    if here.cpu_quota is not None and here.cpu_quota < usable:
        whole = max(1, math.floor(here.cpu_quota))
        yield Finding(
            "warning",
            "threads",
            f"A cgroup allows {here.cpu_quota:g} CPUs' worth of time, but {usable} threads would start. They "
            "would be stopped in every period, which affects timings.",
            f"export OMP_NUM_THREADS={whole}; bnfold bench --threads {whole} …",
        )
    if threads and not (threads.isdecimal() and 0 < int(threads) <= usable):
        yield Finding(
            "warning",
            "OMP_NUM_THREADS",
            f"It is {threads!r}, and {usable} CPUs can be used: torch would be slower than it can be.",
            f"export OMP_NUM_THREADS={usable}",
        )


def _cpus(here: Environment) -> str:
    of_them = f" of {here.cpus}" if here.usable_cpus != here.cpus else ""
    return f"{here.usable_cpus}{of_them} CPU{'s' if here.cpus != 1 else ''} usable"


def _requirements() -> Iterator[Finding]:
    """The requirements in bnfold's own metadata: the base, and every extra that a user may want."""
    wanted: dict[str, list[tuple[str, str]]] = {}
    for line in metadata.requires("bnfold") or ():
        if found := re.match(
            r'([\w.-]+)[^;>]*(?:>=([\w.]+))?[^;]*(?:; *extra == ["\']([\w-]+)["\'])?$', line
        ):
            wanted.setdefault(found[3] or "", []).append((found[1], found[2] or ""))
    for extra, packages in wanted.items():
        if extra not in _OTHERS:
            yield _requirement(extra, packages)


def _requirement(extra: str, packages: list[tuple[str, str]]) -> Finding:
    title = f"bnfold[{extra}]" if extra else "bnfold"
    there = {package: installed(package) for package, _ in packages}
    missing = [package for package, version in there.items() if version is None]
    old = [
        f"{package} {version} (at least {least})"
        for package, least in packages
        if (version := there[package]) and release(version) < release(least)
    ]
    if not missing and not old:
        shown = there if extra else {"bnfold": __version__, **there}
        return Finding("good", title, ", ".join(f"{name} {version}" for name, version in shown.items()) + ".")
    lacking = [f"not installed: {', '.join(missing)}"] if missing else []
    lacking += [f"too old: {', '.join(old)}"] if old else []
    optional: State = "optional" if missing else "warning"
    return Finding(
        optional if extra else "problem",
        title,
        "; ".join(lacking).capitalize() + ".",
        f'pip install --upgrade "{title}"' if old else f'pip install "{title}"',
    )


def _packages(here: Environment) -> Iterator[Finding]:
    """Which packages contain the module `onnxruntime`, and whether Python finds theirs."""
    title, want = "ONNX Runtime", 'pip install "bnfold[gpu]"' if here.gpus else 'pip install "bnfold[cpu]"'
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    spec = importlib.util.find_spec("onnxruntime")
    again = f"pip uninstall -y {' '.join(owners) or 'onnxruntime'} && {want}"
    names = ", ".join(f"{owner} {installed(owner)}" for owner in owners)
    if len(owners) > 1:
        found = f"{names} overwrite each other: each contains the module onnxruntime."
        yield Finding("problem", title, found, again)
    elif not owners and spec is None:
        yield Finding("problem", title, "It is not installed, so nothing can be validated or timed.", want)
    elif spec is None or spec.origin is None:
        found = "The folder onnxruntime has no module in it: it is the rest of a removed package."
        yield Finding("problem", title, found, again)
    elif not owners:
        yield Finding("warning", title, f"{spec.origin} does not belong to an installed package.", want)
    elif _shadowed(owners[0], spec.origin):
        found = f"Python finds {spec.origin} first on its path instead of {names}."
        yield Finding("problem", title, found, _unshadow(Path(spec.origin).parent))
    else:
        yield Finding("good", title, f"{names}.")


def _shadowed(owner: str, origin: str) -> bool:
    own = Path(str(metadata.distribution(owner).locate_file("onnxruntime/__init__.py")))
    return own.is_file() and own.resolve() != Path(origin).resolve()


def _unshadow(folder: Path) -> str:
    """The command that moves a folder aside, which can easily be undone."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return "unset PYTHONPATH" if str(folder.parent) in entries else f'mv "{folder}" "{folder}.aside"'


def _providers(here: Environment, tried: Probe) -> Iterator[Finding]:
    """The providers on which a model really runs."""
    if tried.version is None:
        if importlib.util.find_spec("onnxruntime") is not None:
            again = 'pip install --force-reinstall "bnfold[cpu]"'
            yield Finding("problem", "cpu", f"ONNX Runtime cannot be imported: {tried.died}.", again)
        return
    packaged = tried.package and installed(tried.package)
    if packaged is None or release(packaged) != release(tried.version):
        yield Finding(
            "problem",
            "ONNX Runtime's module",
            f"It is {tried.package} {tried.version}, but the installed package is {packaged or 'missing'}.",
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "bnfold[cpu]"',
        )
    if (complaint := tried.ran.get("cpu", tried.died or _UNTRIED)) is None:
        yield Finding("good", "cpu", f"A convolution ran on the CPU in ONNX Runtime {tried.version}.")
    else:
        again = f'pip install --force-reinstall "{tried.package}=={tried.version}"'
        yield Finding("problem", "cpu", f"A convolution did not run: {complaint}", again)
    yield from _cuda(here, tried)
    for provider, complaint in tried.ran.items():
        if provider in ("cpu", "cuda"):
            continue
        if complaint is None:
            yield Finding("good", provider, f"A convolution ran on it in ONNX Runtime {tried.version}.")
        else:
            found = f"It is in {tried.package}, and no convolution runs on it: {complaint}"
            yield Finding("warning", provider, found, how_to_start(provider))


def _cuda(here: Environment, tried: Probe) -> Iterator[Finding]:
    gpus = f"{', '.join(here.gpus)}, driver {here.gpu_driver}" if here.gpus else "no NVIDIA GPU"
    if "CUDAExecutionProvider" not in tried.available:
        if here.gpus:
            line = f'pip uninstall -y {tried.package} && pip install "bnfold[gpu]"'
            yield Finding("warning", "cuda", f"This ONNX Runtime cannot use the GPU: {gpus}.", line)
        else:
            yield Finding("good", "cuda", f"Not needed: {tried.package} has no CUDA, and there is {gpus}.")
    elif (complaint := tried.ran.get("cuda", tried.died or _UNTRIED)) is None:
        yield Finding("good", "cuda", f"A convolution ran on CUDA: {gpus}; {_libraries(tried)}.")
    elif not here.gpus:
        line = 'pip uninstall -y onnxruntime-gpu && pip install "bnfold[cpu]"'
        found = f"nvidia-smi finds no GPU, so {tried.package} only runs on the CPU; {_libraries(tried)}."
        yield Finding("warning", "cuda", found, line)
    else:
        found = f"On {gpus}, with {tried.package} {tried.version}, no convolution runs: {complaint}"
        yield Finding("problem", "cuda", f"{found} (As for CUDA, {_libraries(tried)}.)", _cuda_fix(tried))


def _libraries(tried: Probe) -> str:
    """For which CUDA this is built, and which of the libraries that it needs the loader finds."""
    built = f"it was built for CUDA {tried.built_for}"
    missing = [name for name, path in tried.libraries.items() if path is None]
    if missing:
        return f"{built}, and the loader does not find {', '.join(missing)}"
    if not tried.libraries:
        return built  # not Linux: whether it runs shows what there is
    folders = sorted({str(Path(path).parent) for path in tried.libraries.values() if path})
    return f"{built}; CUDA {tried.cuda} and cuDNN {tried.cudnn} are in {', '.join(folders)}"


def _cuda_fix(tried: Probe) -> str:
    """What to do about a GPU that is there but does not compute."""
    if tried.driver_cuda and release(tried.driver_cuda)[:1] < release(tried.built_for)[:1]:
        newer = f"a driver for CUDA {release(tried.built_for)[0]}: https://www.nvidia.com/drivers"
        return f"Install {newer} (this one goes up to {tried.driver_cuda})"
    return 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def _torch() -> Iterator[Finding]:
    version = installed("torch")
    if version is None:
        return  # bnfold[torch] says so already
    files = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
    build = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", files.read_text(encoding="utf-8"), re.MULTILINE)
    kind = f"built for CUDA {build[1]}" if build else "built without CUDA, which is enough for an export"
    weak = weaknesses(version)
    if not weak:
        yield Finding("good", "torch", f"{version}, {kind}; no known weakness in reading files.")
        return
    state: State = "problem" if any(advisory.state == "problem" for advisory in weak) else "warning"
    least = ".".join(map(str, max(advisory.below for advisory in weak)[:2]))
    reasons = "; ".join(f"{advisory.cve}: {advisory.what}" for advisory in weak)
    yield Finding(state, "torch", f"{version}, {kind}. {reasons}.", f'pip install --upgrade "torch>={least}"')


def _temporary_folder() -> Iterator[Finding]:
    """Large models are written there for ONNX Runtime."""
    title, line = "temporary folder", "export TMPDIR=/a/folder/with/room"
    try:
        with tempfile.NamedTemporaryFile(prefix="bnfold-") as file:
            folder = Path(file.name).parent
            file.write(b"bnfold")
    except OSError as error:
        yield Finding("problem", title, f"It is not writable: {error}", line)
        return
    free = shutil.disk_usage(folder).free
    found = f"{folder} has {free / 1e9:.1f} GB free"
    if free < _ROOM:
        yield Finding("warning", title, f"{found}; models above 1.6 GB are copied to it.", line)
    else:
        yield Finding("good", title, f"{found}.")
