"""What a person reads: tables and sentences."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from rich.console import Console, RenderableType

from bnfold.bench import Benchmark, Row
from bnfold.pipeline import Export
from bnfold.reasons import Rule
from bnfold.report import text
from bnfold.result import FoldResult, Merge, Site
from bnfold.sources import Source
from bnfold.stopwatch.footprint import Footprint
from bnfold.validate import Check, Validation

RULE = Rule("BN999", "a title", "It stops at {node}.", "Move [it].")
GONE = Site("net.bn1", "node_1", "BatchNormalization", "", "folded", ("conv_0",))
STAYS = Site("net.bn2", "node_5", "BatchNormalization", "body", "kept", (), RULE(node="node[4]"))
CHAIN = Site("scale", "node_9", "Mul+Add", "", "folded", ("conv_8",))
CHECK = Check("cpu", "off", "y", "float32", ((1, 10),), 5e-5, 1e-6, 2e-7, 0.9999999, 1.0, None)


def shown(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def result(*sites: Site) -> FoldResult[Any]:
    return FoldResult(None, sites, 9, 8)  # type: ignore[type-var]


def words(renderable: RenderableType) -> str:
    return " ".join(shown(renderable).split())


def test_a_folded_site_shows_where_it_went() -> None:
    line = next(line for line in shown(text.sites(result(GONE))).splitlines() if "net.bn1" in line)
    assert line.split() == ["net.bn1", "BatchNormalization", "folded", "conv_0"]


def test_a_site_that_stays_shows_code_sentence_remedy_and_scope() -> None:
    page = words(text.sites(result(STAYS)))
    for part in ("BN999 It stops at node[4].", "Move [it].", "(in body)", "bnfold explain BN999"):
        assert part in page, "brackets in a name are no markup" if "[" in part else part


@pytest.mark.parametrize(
    ("sites", "foreseen", "sentence"),
    [
        ((GONE,), False, "1 of 1 site folded; none stays. 9 nodes before, 8 after."),
        ((GONE, STAYS), True, "1 of 2 sites can be folded; 1 stays. 9 nodes before, 8 after."),
        ((STAYS, STAYS), False, "0 of 2 sites folded; 2 stay."),
        ((GONE, CHAIN), False, "2 of 2 sites folded (1 of 1 BatchNorm); none stays."),
    ],
)
def test_the_summary_counts(sites, foreseen: bool, sentence: str) -> None:
    assert sentence in text.fold_summary(result(*sites), foreseen=foreseen).plain


def test_a_model_without_batchnorms_says_so() -> None:
    page = words(text.sites(result()))
    assert page == (
        "There is no BatchNorm and no per-channel arithmetic to fold in this model. 9 nodes before, 8 after."
    )


@pytest.mark.parametrize(("foreseen", "verb"), [(False, "became"), (True, "can become")])
def test_branches_without_batchnorms_are_something_to_fold(foreseen: bool, verb: str) -> None:
    merged = replace(result(), merges=(Merge("sum", ("conv3", "conv1", "identity"), 90, 81),))
    page = words(text.sites(merged, foreseen=foreseen))
    assert page.startswith("parallel branches became multiply-adds now conv3, conv1, identity sum 90 81")
    assert f"3 parallel branches {verb} 1 convolution; there is no BatchNorm. 9 nodes before, 8" in page
    for part in ("to fold", "0 of 0", "operator"):
        assert part not in page


def test_branches_that_stay_apart_are_told_without_batchnorms_too() -> None:
    assert "apart: BN999 It stops at sum." in words(text.sites(replace(result(), apart=(RULE(node="sum"),))))


def source(path: Path, **changes: Any) -> Source:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20})
    return replace(Source(path, "onnx", False, ir.Model(graph, ir_version=10)), **changes)


def test_train_mode_is_said() -> None:
    given = source(Path("a.pt"), kind="module")
    assert "train mode" not in words(text.source_note(given))
    assert "saved in train mode" in words(text.source_note(replace(given, was_training=True)))


def test_agreement_names_its_data_and_its_reference() -> None:
    page = words(text.validation(Validation((CHECK,), samples=3, seed=0)))
    assert "y cpu off 1.0e-06 2.0e-07 5.0e-05 0.9999999 100.00% agrees" in page
    assert "agrees with the original on 3 random inputs" in page
    assert "on given inputs" in words(text.validation(Validation((CHECK,), samples=1, seed=None)))


def test_a_check_that_is_excused_says_so_and_spoils_nothing():
    excused = replace(CHECK, optimizer="default", max_rel=0.1, problem="It is off.", excused=True)
    page = words(text.validation(Validation((CHECK, excused), notes=("The optimizer did it.",), samples=3)))
    assert "excused" in page
    assert "disagrees" not in page
    assert "The optimizer did it." in page


def test_disagreement_says_what_is_wrong() -> None:
    wrong = replace(CHECK, max_rel=float("nan"), cosine=None, top1=None, problem="It holds NaN.")
    page = words(text.validation(Validation((wrong,), notes=("Batch 1 only.",))))
    for part in ("disagrees", "nan", "It holds NaN.", "Batch 1 only."):
        assert part in page
    assert "agrees with the original" not in page.replace("disagrees", "")


def test_models_that_cannot_be_compared_need_no_table() -> None:
    page = words(text.validation(Validation((), ("Another input.",))))
    assert page == "The folded model disagrees with the original. Another input."


def test_latency_shows_its_conditions_its_interval_and_its_verdict() -> None:
    default = Row(
        "default", 50, 3, 1.0, 1.1, 0.999, 1.0, 1.001, 0.99, 1.01,
        original_p99_ms=1.3, folded_p99_ms=1.2, control_low=0.98, control_high=1.02,
        original_load_ms=9.0, folded_load_ms=7.0, loads=8, pinned=5,
    )  # fmt: skip
    off = Row("off", 50, 3, 1.5, 1.6, 1.0, 1.1, 1.5, 1.4, 1.6)
    weighs = Footprint(1200, 8, 1000, None, 2_000_000)
    result = Benchmark("cpu", 2, 0, {"x": (1, 3)}, (default, off), weighs, weighs)
    page = words(text.benchmarks([result]))
    assert "Latency on cpu, 2 threads" in page
    assert "x 1×3" in page
    assert "default 1.000 ms 0.999 ms 1.001× 0.990 to 1.010 0.980 to 1.020 no measurable difference" in page
    assert "off 1.500 ms 1.000 ms 1.500× 1.400 to 1.600 1.000 to 1.000 faster" in page
    assert "default 1.000 1.100 1.300 0.999 1.000 1.200 9.0 / 7.0 ms" in page
    assert "folded 1.2 kB 8 1,000 – 2.0 MB" in page
    assert "CPUs of their own in 5 of 9 loads" in page
    assert result.sentence in page


def test_rows_of_several_batches_and_kinds_are_told_apart() -> None:
    default = Row("default", 50, 3, 1.0, 1.1, 0.999, 1.0, 1.001, 0.99, 1.01, batch=8)
    rows = (default, replace(default, measures="on the device"))
    rows += tuple(replace(row, optimizer="off") for row in rows)
    page = words(text.benchmarks([Benchmark("cuda", 1, 0, {"x": (8, 3)}, rows)]))
    assert "default, batch 8, end to end 1.000 ms" in page
    assert "off, batch 8, on the device 1.000 ms" in page
    assert "peak memory" not in page


def test_an_export_ends_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(bytes(1234))
    page = words(text.export_report(Export(source(path), path, result(GONE), Validation((CHECK,)))))
    assert page.endswith("out.onnx (1.2 kB).")


def test_an_export_that_was_not_compared_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(bytes(1))
    page = words(text.export_report(Export(source(Path("in.onnx")), path, result(GONE))))
    assert "The outputs were not compared. To compare them: bnfold validate in.onnx" in page


def test_the_hint_can_be_pasted_whatever_the_files_are_called(tmp_path: Path) -> None:
    path = tmp_path / "out put.onnx"
    path.write_bytes(bytes(1))
    page = words(text.export_report(Export(source(Path("my $model.onnx")), path, result(GONE))))
    assert shlex.split(page.partition("To compare them: ")[2]) == [
        "bnfold", "validate", "my $model.onnx", str(path)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "words_for_it"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3_210_000_000, "3.2 GB")],
)
def test_sizes(count: int, words_for_it: str) -> None:
    assert text.size(count) == words_for_it
