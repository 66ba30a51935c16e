"""What each command prints, character by character: at widths, without colours, and in a pipe.

After a change that is meant: GOLDEN=1 python -m pytest tests/report/test_snapshots.py
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from rich.console import RenderableType

from bnfold.api.validate import validate as validate_files
from bnfold.gate import run as gate
from bnfold.latency.footprint import Footprint
from bnfold.latency.optimized_graph import OptimizedGraph
from bnfold.latency.results import Benchmark, Row
from bnfold.pipeline.export import export as export_file
from bnfold.pipeline.exported import Export
from bnfold.pipeline.fold_file import fold_file
from bnfold.pipeline.harm import RuntimeGraphs
from bnfold.pipeline.progress import WORDS
from bnfold.pipeline.read import Source
from bnfold.reasons import Rule
from bnfold.report.terminal import comparison, text
from bnfold.result import FoldResult, Site
from bnfold.validation.layers import Layer
from bnfold.validation.results import Check, Validation
from bnfold.validation.unseen import Gap, Unseen
from bnfold_cli import _terminal, main
from tests.cli.conftest import save
from tests.gate.models import BATCHNORM, answering, layers
from tests.gate.models import save as save_in

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (60, 80, 120)
ESCAPE = "\N{SYMBOL FOR ESCAPE}"
SHOWN_ESCAPE = re.compile(ESCAPE + r"\[([0-9;]*)m")


class Screen(io.TextIOWrapper):
    """Standard output that is a terminal, or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def received(self) -> str:
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that no path is in what is printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "BNFOLD_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return tmp_path


def printed(act: Callable[[], None], *, width: int | None = None, colour: bool = True) -> str:
    """What it prints on a terminal of this width; without a width, in a pipe."""
    with pytest.MonkeyPatch.context() as patch:
        screen = Screen(terminal=width is not None)
        patch.setattr(sys, "stdout", screen)
        if width is not None:
            patch.setenv("COLUMNS", str(width))
        if not colour:
            patch.setenv("NO_COLOR", "1")
        act()
    return screen.received.replace("\x1b", ESCAPE)


def snapshot(name: str, act: Callable[[], None]) -> dict[str, str]:
    """Compare all that it prints with the file of this name.

    Returns:
        What is printed, by the kind of place.
    """
    found = {f"{width} columns": printed(act, width=width) for width in WIDTHS}
    found["80 columns, NO_COLOR"] = printed(act, width=80, colour=False)
    found["pipe"] = printed(act)
    written = "".join(f"======== {place}\n{shown}" for place, shown in found.items())
    assert written == golden(name, written)
    return found


def golden(name: str, now: str) -> str:
    """What the file of this name holds; with GOLDEN in the environment, what it holds from now on."""
    path = SNAPSHOTS / f"{name}.txt"
    if "GOLDEN" in os.environ:
        path.write_text(now, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def holds(found: dict[str, str], answers: list[str], rows: list[str]) -> None:
    """No line is too long, no colour is where none may be, and nothing is lost anywhere.

    Args:
        found: What `snapshot` gives.
        answers: What the first four lines say, wherever they end.
        rows: What stands in one line each in a pipe.
    """
    for place, shown in found.items():
        plain = SHOWN_ESCAPE.sub("", shown)
        lines = plain.splitlines()
        if "columns" in place:
            assert max(map(len, lines)) <= int(place.split()[0]), place
        if place == "pipe":
            assert ESCAPE not in shown
            assert all(row in lines for row in rows), [row for row in rows if row not in lines]
        if "NO_COLOR" in place:
            codes = {int(code) for sent in SHOWN_ESCAPE.findall(shown) for code in sent.split(";")}
            assert codes <= {0, 1, 2}, "bold and dim are not colours"
        assert not any(line != line.rstrip() for line in lines if place == "pipe")
        start = " ".join(plain.split("\n\n")[0].split())
        assert all(answer in start for answer in answers), f"{place}: {start}"
        assert "…" not in plain.replace("… and ", ""), f"something is cut off: {place}"
    whole = found["pipe"].split("\n\n")[0].splitlines()
    assert len(whole) <= 4, "the answer is longer than four lines"


RULE = Rule("BN999", "a title", "It stops at {node}, whose output is read elsewhere.", "Remove the reader.")
SITES = (
    Site("stem.bn", "n0", "BatchNormalization", "", "folded", ("stem.conv",)),
    Site("stages.0.blocks.0.norm1", "n1", "BatchNormalization", "", "folded",
         ("stages.0.blocks.0.conv1", "stages.0.blocks.0.downsample.conv", "stages.0.blocks.0.conv3")),
    Site("scale", "n2", "Mul+Add", "", "folded", ("head",)),
    Site("stages.0.blocks.1.norm2", "n3", "BatchNormalization", "then_branch of If_7", "kept", (),
         RULE(node="Sigmoid_4")),
)  # fmt: skip
FOLD = FoldResult(ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10), SITES, 20, 17)
CHECK = Check(
    "cpu", "off", "logits", "float32", ((1, 10),), None, 2e-6, 2e-7, 0.9999999, 1.0, None,
    error=4.7e-7, original_error=2.2e-7, ratio=0.96, bound=1.6e-6,
)  # fmt: skip
LAYERS = tuple(
    Layer(f"relu_{number}", number, 2e-8, 1e-7, 2e-7, 3e-7, site="stages.0.blocks.0.norm1")
    for number in range(14)
)
AGREES = Validation(
    (CHECK, replace(CHECK, optimizer="default", ratio=0.83)), samples=6, seed=0, layers=LAYERS, is_fold=True,
    proved_on=("a",) * 6, oracle="The reference is the original, evaluated in float64.",
    unseen=Unseen(rows=tuple(
        Gap(f"relu_{n}", 0, 1, f"{n} of 120 channels of the value 'relu_{n}' were zero throughout.")
        for n in range(6)
    )),
)  # fmt: skip
DIFFERS = replace(
    AGREES,
    checks=tuple(
        replace(CHECK, output=f"boxes_{n}", error=0.02, ratio=9e4, problem=f"'boxes_{n}' is off by {n + 1}%.")
        for n in range(5)
    ),
    layers=(),
)
DEFAULT = Row(
    "default", 50, 3, 7.41, 8.0, 6.754, 7.0, 1.097, 1.061, 1.131,
    original_p99_ms=9.2, folded_p99_ms=8.9, control_low=0.982, control_high=1.015,
    original_load_ms=227.0, folded_load_ms=189.0,
)  # fmt: skip
OFF = replace(
    DEFAULT, optimizer="off", original_ms=22.252, folded_ms=22.489, ratio=0.989, low=0.95, high=1.04
)
SIZES = (
    Footprint(14_600_000, 152, 3_556_114, 25_728_512, 53_200_000),
    Footprint(14_200_000, 100, 3_487_890, 25_728_512, 52_000_000),
)
LATENCY = Benchmark("cpu", 1, 0, {"image": (1, 3, 64, 64)}, (DEFAULT, OFF), *SIZES)
GRAPHS = RuntimeGraphs(
    OptimizedGraph(14, 14, 325_400, 416_520), OptimizedGraph(10, 10, 318_800, 416_520), ("n9",)
)


def source(suffix: str, **changes: object) -> Source:
    return replace(Source(Path(f"model.{suffix}"), "onnx", False, FOLD.model), **changes)  # type: ignore[arg-type]


def export(given: Source) -> Export:
    """An export into a file of 261.5 kB."""
    Path("out.onnx").write_bytes(bytes(261_500))
    return Export(given, Path("out.onnx"), FOLD, AGREES, (LATENCY,), graphs=GRAPHS)


def shows(renderable: RenderableType) -> Callable[[], None]:
    """What a command does with its report."""
    return lambda: _terminal.show(renderable, quiet=False, json_path=None)


def runs(*arguments: str) -> Callable[[], None]:
    """The command itself."""

    def act() -> None:
        with pytest.raises(SystemExit):
            main(list(arguments), prog_name="bnfold")

    return act


@pytest.mark.usefixtures("here")
def test_an_export_of_onnx() -> None:
    found = snapshot("export", shows(text.export_report(export(source("onnx")))))
    answers = [
        "2 of 3 BatchNorms folded, and arithmetic at 1 other place; 20 → 17 nodes. Kept: 1 for BN999.",
        "The models compute the same, on 6 inputs.",
        "On cpu, 1 thread: the folded model is 1.10 times as fast (1.06 to 1.13).",
        "Wrote out.onnx (261.5 kB).",
    ]
    lines = found["pipe"].splitlines()
    (nested,) = [line.split() for line in lines if line.startswith("stages.0.blocks.1.norm2 (")]
    assert nested[1:] == ["(in", "then_branch", "of", "If_7)", "kept", "BN999", "BatchNormalization"]
    timed = (
        "default    faster                               1.097×  1.061 to 1.131     7.410   6.754"
        "     0.982 to 1.015"
    )
    holds(found, answers, [timed])


@pytest.mark.usefixtures("here")
def test_an_export_of_a_pytorch_file_says_what_was_read_and_that_it_is_in_eval_mode() -> None:
    given = source("pt", kind="module", was_training=True, notes=("The input is 1×3×64×64.",))
    found = snapshot("export_module", shows(text.export_report(export(given), verbose=True)))
    assert "model.pt holds a PyTorch module.\nIt was saved in train mode and put in eval" in found["pipe"]
    assert found["pipe"].count("were zero throughout") == 6, "-v shows them all"
    assert "-v" not in found["pipe"]


@pytest.mark.usefixtures("here")
def test_a_comparison() -> None:
    answers = ["The folded model computes what the original computes, on 6 random inputs."]
    row = "logits  agrees   cpu       default    4.7e-07     2.2e-07       0.83  1.6e-06  100.00%"
    holds(snapshot("validate", shows(comparison.validation(AGREES))), answers, [row])


@pytest.mark.usefixtures("here")
def test_a_comparison_that_fails() -> None:
    answers = ["The folded model does not compute what the original computes.", "'boxes_0' is off by 1%."]
    row = "boxes_4  disagrees  cpu       off        2.0e-02     2.2e-07   90000.00  1.6e-06  100.00%"
    holds(snapshot("validate_differs", shows(comparison.validation(DIFFERS))), answers, [row])


@pytest.mark.usefixtures("here")
def test_a_latency() -> None:
    found = snapshot("bench", shows(text.bench_report((LATENCY,))))
    answers = ["On cpu, 1 thread: the folded model is 1.10 times as fast (1.06 to 1.13)."]
    row = (
        "off        no measurable difference             0.989×  0.950 to 1.040    22.252  22.489"
        "     0.982 to 1.015"
    )
    holds(found, answers, [row])


def test_a_fold(here: Path) -> None:
    save(here / "model.onnx", ["Conv", "BatchNormalization"])
    found = snapshot("fold", runs("fold", "model.onnx", "-o", "out.onnx"))
    answers = ["1 of 1 BatchNorm folded; 2 → 1 nodes.", "The outputs were not compared.", "Wrote out.onnx ("]
    row = "batchnormalization_1  folded  conv_0"
    holds(found, answers, [row])
    assert "ONNX Runtime's own graph was not compared: a fold alone runs nothing;" in found["pipe"]


def test_an_inspection_of_two_models(here: Path) -> None:
    save(here / "model.onnx", ["Conv", "BatchNormalization"])
    save(here / "other.onnx", ["Conv", "Tanh", "BatchNormalization"])
    found = snapshot("inspect", runs("inspect", "model.onnx", "other.onnx"))
    answers = ["model.onnx: 1 of 1 site can be folded; none stays. 2 nodes before, 1 after."]
    holds(
        found, answers, ["batchnormalization_1  folded  conv_0", "batchnormalization_2  kept    BN201, BN302"]
    )


def test_a_check(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a finding, as linters write them, wherever it is shown."""
    monkeypatch.setattr(gate, "_answers", answering([]))
    save_in(layers(f"y = {BATCHNORM}"), here / "models" / "net.onnx")
    save_in(layers("y = Relu(a)"), here / "models" / "good.onnx")
    found = snapshot("check", runs("check", "models", "--no-cache"))
    assert len(set(found.values())) == 1
    assert found["pipe"].splitlines()[-1] == "1 finding in 2 models, 1 fixable with --fix."


def test_the_stages_of_each_command(here: Path) -> None:
    """In the words of the bar, in their order."""
    model, folded = save(here / "model.onnx", ["Conv", "BatchNormalization"]), here / "folded.onnx"
    stages: dict[str, list[str]] = {}

    def noted(command: str) -> Callable[[str, int, int], None]:
        return lambda stage, *_: stages.setdefault(command, []).append(WORDS[stage])

    fold_file(model, folded, progress=noted("fold"))
    validate_files(model, folded, progress=noted("validate"))
    export_file(model, here / "out.onnx", samples=1, oracle="off", seconds=0.01, progress=noted("export"))
    said = "".join(f"{command}: {', '.join(dict.fromkeys(words))}\n" for command, words in stages.items())
    assert said == golden("stages", said)


def test_every_snapshot_is_of_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.stem}"' in text for path in SNAPSHOTS.iterdir())
