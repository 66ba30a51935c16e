"""Everything that needs a GPU, in one call of under eight minutes.

    python -m benchmarks.gpu [FILE ...] [--minutes NUMBER] [--page FILE] [--provider NAME]

It runs the tests that are marked gpu; compares original and folded networks on CUDA, without TF32 and with
it; and times them as `bnfold bench` does under each set of options that CUDA has: bnfold's own, the
provider's defaults, the exhaustive search for convolutions, and a captured CUDA graph on fixed addresses.
Meanwhile it records the GPU's clocks and what holds them back. FILEs are ONNX files or folders of them;
without any, the trained networks in models/ and a ResNet-50 are taken.

With `--provider cpu` the same program runs without a GPU, to try it out. Such a page says in its first line
what it is, and is not written into docs/. Exits with 1 if a test or a comparison fails, or something could
not be measured.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import onnx_ir as ir

import bnfold
from benchmarks import gpu_state
from benchmarks.networks import resnet50
from benchmarks.page import markdown_table, today
from benchmarks.processes import ROOT
from bnfold.errors import BnfoldError, ProviderError
from bnfold.files.atomic import replacing
from bnfold.latency.results import Benchmark
from bnfold.options import Reading
from bnfold.pipeline.read import read_model
from bnfold.runtime.providers import FIXED_ADDRESSES, different, full_name, import_runtime, options
from bnfold.system.environment import environment
from bnfold.system.probe import probe
from bnfold.validation.results import Validation

PROVIDER = "cuda"
MINUTES = 7.0
LEAST_SECONDS = 1.0  # for timing one network, below which nothing is measured
SAMPLES = 3
SETS = ("graph", "bnfold", "defaults", "exhaustive")  # first what a network may not be fit for
OPTIMIZERS = ("default", "off")
TRAINED = {
    "convnet.pt": "1x1x32x32",
    "cnn_with_batchnorm.pt": "1x3x32x32",
    "mobileone.pt2": None,
    "repvgg.pt2": None,
}


@dataclass(frozen=True)
class Network:
    """A network before and after the fold."""

    name: str
    original: ir.Model
    folded: ir.Model


@dataclass
class Record:
    """What was found.

    Attributes:
        provider: Where everything ran.
        seconds: For everything.
        problems: What failed or could not be measured, as sentences.
        tests: Name, outcome and, where it did not pass, why, of every test.
        proofs: The comparison of each network.
        timings: The latency of each network.
        notes: What to know besides, as sentences.
        samples: What the GPU did while the networks were timed.
    """

    provider: str
    seconds: float
    problems: list[str] = field(default_factory=list)
    tests: list[tuple[str, str, str]] = field(default_factory=list)
    proofs: dict[str, Validation] = field(default_factory=dict)
    timings: dict[str, Benchmark] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    samples: list[gpu_state.Sample] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until it has to end."""
        return self._start + self.seconds - time.monotonic()


def networks(record: Record, files: Sequence[Path]) -> list[Network]:
    """The networks that are measured; a file that cannot be read or folded is a problem."""
    if files:
        every = [one for file in files for one in (sorted(file.rglob("*.onnx")) if file.is_dir() else [file])]
        return list(filter(None, (_network(record, path) for path in every)))
    trained = [_network(record, ROOT / "models" / name, shape) for name, shape in TRAINED.items()]
    large = ir.from_proto(resnet50())
    return [*filter(None, trained), Network("resnet50", large, bnfold.fold(large).model)]


def _network(record: Record, path: Path, shape: str | None = None) -> Network | None:
    try:
        model = read_model(path, Reading(input_shape=shape)).model
        return Network(path.stem, model, bnfold.fold(model).model)
    except BnfoldError as error:
        record.problems.append(f"{path.name}: {error.problem}")
        return None


def run_tests(record: Record, paths: Sequence[str]) -> None:
    """Run the tests marked gpu, for a third of the time or five seconds; on a GPU none may be left out."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *paths]
        command = [sys.executable, "-m", "pytest", *words]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=max(record.left / 3, 5))
        except subprocess.TimeoutExpired as error:
            record.problems.append(f"The tests were stopped after {error.timeout:.0f} seconds.")
            return
        if not report.is_file():
            record.problems.append(f"The tests could not be run: pytest ended with {done.returncode}.")
            return
        for case in ElementTree.parse(report).iter("testcase"):
            record.tests.append(_outcome(case))
    for name, outcome, why in record.tests:
        if outcome == "failed" or (outcome == "skipped" and record.provider == PROVIDER):
            record.problems.append(f"The test {name} {outcome}: {why}")
    if not record.tests:
        record.problems.append("There are no tests that need a GPU.")


def _outcome(case: ElementTree.Element) -> tuple[str, str, str]:
    """The name of a test, what became of it, and why."""
    name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            why = (child.get("message") or "").strip().splitlines() or ["no message"]
            return name, "skipped" if child.tag == "skipped" else "failed", why[0]
    return name, "passed", ""


def prove(record: Record, made: Sequence[Network]) -> None:
    """Compare every network with its fold, for at most half of the time that is left."""
    until = record.left / 2
    for network in made:
        if record.left < until:
            record.problems.append(f"{network.name} was not compared: the time was over.")
            continue
        try:
            found = bnfold.validate(
                network.original, network.folded, providers=(record.provider,), samples=SAMPLES
            )
        except BnfoldError as error:
            record.problems.append(f"{network.name} could not be compared: {error.problem}")
            continue
        record.proofs[network.name] = found
        record.problems += [f"{network.name}: {failure}" for failure in found.failures]


def measure(record: Record, made: Sequence[Network]) -> None:
    """Time every network under every set of options; the networks share the time that is left."""
    sets = different(record.provider, SETS)
    with gpu_state.watched() as samples:
        for place, network in enumerate(made):
            seconds = record.left / (len(made) - place)
            if seconds < LEAST_SECONDS:
                record.problems.append(f"{network.name} was not timed: the time was over.")
                continue
            try:
                record.timings[network.name] = _timed(record, network, sets, seconds)
            except BnfoldError as error:
                record.problems.append(f"{network.name} could not be timed: {error.problem}")
        record.samples = samples()
    if record.provider == PROVIDER and not record.samples:
        record.problems.append("The GPU's clocks were not recorded: nvidia-smi said nothing.")


def _timed(record: Record, network: Network, sets: Sequence[str], seconds: float) -> Benchmark:
    """The latency of one network; without a captured graph where that cannot be."""
    share = 0.7 * seconds  # loading and weighing the models comes on top of what is asked for
    try:
        return bnfold.benchmark(
            network.original, network.folded, provider=record.provider, provider_options=sets, seconds=share
        )
    except ProviderError as error:
        if FIXED_ADDRESSES not in sets:
            raise
        record.notes.append(f"{network.name}, options {FIXED_ADDRESSES}: {error.problem}")
        return _timed(record, network, [one for one in sets if one != FIXED_ADDRESSES], seconds / 2)


def page(record: Record, command: str) -> str:
    """What was found, dated; the first line says whether there was a GPU."""
    return "\n".join(
        [
            *_head(record, command),
            *_section("Problems", [f"- {problem}" for problem in record.problems]),
            *_section("Conditions", _conditions(record.provider)),
            *_section("Tests", _tests(record)),
            *_section("Comparison", _proofs(record)),
            *_section("Latency", _timings(record)),
            *_section("The GPU meanwhile", gpu_state.table(record.samples)),
            "",
        ]
    )


def _head(record: Record, command: str) -> list[str]:
    here, tried = environment(), probe()
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    machine = f"{here.cpu}, {here.usable_cpus} CPUs usable"
    if record.provider == PROVIDER:
        gpu = here.gpus[0] if here.gpus else "A GPU that nvidia-smi does not name"
        title = "Measured on a GPU"
        where = f"{gpu}, driver {here.gpu_driver}; CUDA {tried.cuda}, cuDNN {tried.cudnn}; {machine}"
    else:
        title = f"A trial on the provider {record.provider}: no figure here is a GPU's"
        where = machine
    return [f"# {title}", "", f"{today()}. {where}. {versions}.", "", f"```console\n$ {command}\n```"]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _conditions(provider: str) -> list[str]:
    """What each set of options sets, or that this provider does not have it."""
    rows = []
    for name in (*SETS, "tf32"):
        if name not in different(provider, (name,)):
            sets = "not on this provider"
        else:
            sets = ", ".join(f"`{key}={value}`" for key, value in options(provider, name).items())
        rows.append((name, sets or "nothing"))
    return [
        *markdown_table(("options", f"set on {provider}"), rows),
        "",
        "`tf32` is only compared, and what sets the same as another is timed once. Sessions, rounds and "
        "intervals are those of [bnfold bench](latency.md).",
    ]


def _tests(record: Record) -> list[str]:
    rows = [(f"`{name}`", f"{outcome}{': ' if why else ''}{why}") for name, outcome, why in record.tests]
    return markdown_table(("test", "outcome"), rows) if rows else []


def _proofs(record: Record) -> list[str]:
    """How far original and fold are from the original in float64."""
    rows = [
        (
            name,
            check.output,
            f"{check.optimizer}{', TF32' if check.row == 'tf32' else ''}",
            *(_small(value) for value in (check.original_error, check.error, check.bound)),
            "agrees" if check.passed else "differs" if check.row else "disagrees",
        )
        for name, found in record.proofs.items()
        for check in found.checks
    ]
    header = ("network", "output", "optimizer", "original's error", "folded's error", "bound", "verdict")
    note = (
        "Errors are to the original in float64, relative to the scale of the output. Rows with TF32 decide "
        "nothing: they show what the provider's default costs."
    )
    return [*markdown_table(header, rows), "", note] if rows else []


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _timings(record: Record) -> list[str]:
    rows = [
        (
            name,
            row.provider_options,
            row.measures,
            row.optimizer,
            f"{row.original_ms:.3f} ms",
            f"{row.folded_ms:.3f} ms",
            f"{row.ratio:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{row.control_low:.3f} to {row.control_high:.3f}",
            row.verdict,
        )
        for name, found in record.timings.items()
        for row in found.rows
        if row.optimizer in OPTIMIZERS
    ]
    header = (
        *("network", "options", "measured", "optimizer", "original", "folded", "original / folded"),
        *("95 % interval", "original / itself", "verdict"),
    )
    notes = [f"{name}: {note}" for name, found in record.timings.items() for note in found.notes]
    bullets = [f"- {note}" for note in (*record.notes, *notes)]
    return [*markdown_table(header, rows), "", *bullets] if rows else bullets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure on a GPU.")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="an ONNX file or a folder of them"
    )
    parser.add_argument("--provider", default=PROVIDER, metavar="NAME", help="another, to try this out")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="NUMBER", help="for everything")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="where the tests are")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables there, dated")
    chosen = parser.parse_args(arguments)
    if chosen.page and chosen.provider != PROVIDER and ROOT / "docs" in chosen.page.resolve().parents:
        parser.error("docs/ is for figures of a GPU: write this page elsewhere")
    try:
        full_name(import_runtime(), chosen.provider)
    except BnfoldError as error:
        parser.error(f"{error.problem} {error.fix}")
    record = Record(chosen.provider, 60 * chosen.minutes)
    run_tests(record, chosen.tests)
    made = networks(record, chosen.files)
    prove(record, made)
    measure(record, made)
    given = sys.argv[1:] if arguments is None else arguments
    text = page(record, shlex.join(["python", "-m", "benchmarks.gpu", *given]))
    print(text)
    if chosen.page:
        with replacing(chosen.page) as stream:
            stream.write(text.encode())
    for problem in record.problems:
        print(problem, file=sys.stderr)
    return int(bool(record.problems))


if __name__ == "__main__":
    sys.exit(main())
