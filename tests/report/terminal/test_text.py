"""What a person reads: tables and sentences."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.files.save import save_onnx
from bnfold.latency.footprint import Footprint
from bnfold.latency.results import Benchmark, Row
from bnfold.pipeline.exported import Export
from bnfold.pipeline.read import Source
from bnfold.pipeline.replay import Replay
from bnfold.report.terminal import comparison, headline, tables, text, timings
from bnfold.validation.accuracy import Accuracy, Score
from bnfold.validation.layers import Blame, Layer
from bnfold.validation.results import Fault, Request
from bnfold.validation.unseen import Gap, Unseen
from bnfold.validation.validate import Check, Validation
from tests.graphs import build
from tests.report.shown import GONE, STAYS, result, shown, words

fold_of = partial(Validation, is_fold=True)
CHECK = Check("cpu", "off", "y", "float32", ((1, 10),), 5e-5, 1e-6, 2e-7, 0.9999999, 1.0, None)


def source(path: Path, **changes: Any) -> Source:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20})
    return replace(Source(path, "onnx", False, ir.Model(graph, ir_version=10)), **changes)


def test_train_mode_is_said() -> None:
    given = source(Path("a.pt"), kind="module")
    assert "train mode" not in words(text.source_note(given))
    assert "saved in train mode" in words(text.source_note(replace(given, was_training=True)))


def test_agreement_names_its_data_and_its_reference() -> None:
    page = words(comparison.validation(fold_of((CHECK,), samples=3, seed=0, oracle="The reference is X.")))
    assert "output verdict provider optimizer max abs max rel bound top-1" in page
    assert "y agrees cpu off 1.0e-06 2.0e-07 5.0e-05 100.00%" in page
    assert "computes what the original computes, on 3 random inputs. The reference is X." in page
    assert "on 1 given input." in words(comparison.validation(fold_of((CHECK,), samples=1, seed=None)))


def test_of_two_files_of_anybodys_no_fold_is_spoken_of() -> None:
    good = words(comparison.validation(Validation((CHECK,), samples=3, seed=0, layers=(LAYER,))))
    assert "The second model computes what the original computes, on 3 random inputs." in good
    assert "1 of 1 value that has the same name in both models" in good
    bad = words(
        comparison.validation(Validation((CHECK,), ("It is wrong.",), blame=Blame(LAYER, is_fold=False)))
    )
    assert "The second model does not compute what the original computes. It is wrong." in bad
    assert "the first that differs in float64 is 'r[1]'" in bad
    for page in (good, bad):
        assert "fold" not in page.replace("folded", "")


def test_accuracy_is_the_first_line_and_differences_for_callers_follow_the_verdict() -> None:
    scored = Accuracy("y", 1000, (Score(1, 0.75, 0.7, 1, 6, -0.1, 0.01),))
    result = Validation((CHECK,), samples=3, seed=0, accuracy=scored, differences=("It is named 'b'.",))
    page = words(comparison.validation(result))
    assert page.startswith(scored.sentence)
    assert page.index("computes what the original computes, on 3") < page.index("It is named 'b'.")
    strict = words(comparison.validation(replace(result, request=Request(strict=True))))
    assert "computes what the original computes, but its callers meet something else. It is named" in strict
    assert strict.count("It is named 'b'.") == 1


def test_what_was_not_seen_follows_under_its_own_heading_and_is_cut() -> None:
    gaps = tuple(Gap(str(number), 0, 1, f"Gap {number}.") for number in range(6))
    result = Validation((CHECK,), samples=3, seed=0, notes=("A note.",))
    page = words(comparison.validation(replace(result, unseen=Unseen(rows=gaps, cover="It drew."))))
    assert page.endswith("A note. Not seen It drew. Gap 0. Gap 1. Gap 2. … and 3 more (-v shows them)")
    whole = words(comparison.validation(replace(result, unseen=Unseen(rows=gaps)), verbose=True))
    assert whole.endswith("Gap 3. Gap 4. Gap 5.")
    assert "Not seen" not in words(comparison.validation(result))


def test_what_could_not_be_compared_is_said_in_those_words() -> None:
    nothing = words(comparison.validation(Validation((replace(CHECK, compared=False),), samples=3, seed=0)))
    assert "Nothing could be compared" in nothing
    undecided = words(comparison.validation(Validation((replace(CHECK, bound=math.inf),), samples=3, seed=0)))
    assert "Nothing could be decided" in undecided


def test_beside_the_oracle_stand_both_errors_and_their_ratio() -> None:
    true = replace(CHECK, tolerance=None, error=2e-7, original_error=1.6e-7, ratio=0.75, bound=4e-6)
    equal = replace(true, output="top", error=0.0, original_error=0.0, ratio=None, bound=0.0, top1=None)
    wrong = replace(true, optimizer="default", error=3e-2, problem="It is off.")
    tf32 = replace(wrong, provider="cuda", row="tf32")
    page = words(comparison.validation(fold_of((true, equal, wrong, tf32), samples=3, seed=0)))
    assert "output verdict provider optimizer error original's RMS ratio bound top-1" in page
    assert "y agrees cpu off 2.0e-07 1.6e-07 0.75 4.0e-06 100.00%" in page
    assert "top agrees cpu off 0 0 – 0 –" in page
    assert "y disagrees cpu default 3.0e-02 1.6e-07 0.75 4.0e-06 100.00%" in page
    assert "y for comparison cuda default, TF32 3.0e-02 1.6e-07 0.75 4.0e-06 100.00%" in page
    assert page.count("It is off.") == 1, "the row for comparison is held against nobody"


LAYER = Layer("r[1]", 0, 2e-8, 1e-7, site="net.bn1", nodes=("conv",), originals=("conv", "bn1"))


def test_the_proof_says_how_far_it_went_and_how_near_to_its_bound() -> None:
    nearer = replace(LAYER, name="z", depth=1, fold_error=9e-8, bound=2e-7)
    page = words(comparison.validation(fold_of((CHECK,), layers=(LAYER, nearer), samples=3, seed=0)))
    assert (
        "In float64, on 0 inputs, 2 of 2 values that both models compute are the same up to one rounding"
        in page
    )
    assert "(at most 9.0e-08, where 2.0e-07 is allowed)" in page
    assert "fold of" not in page, "no layer was measured in ONNX Runtime"


def test_measured_layers_are_listed_the_worst_in_their_order() -> None:
    layers = tuple(
        replace(
            LAYER, name=f"r{n}", depth=n, fold_error=1e-9 * (n + 1), original_error=1e-7, folded_error=2e-7
        )
        for n in range(30)
    )
    wrong = replace(layers[3], name="r[3]", fold_error=math.inf, site=None)
    page = shown(
        comparison.validation(fold_of((CHECK,), layers=(*layers[:3], wrong, *layers[4:]), samples=1))
    )
    rows = [line.split() for line in page.splitlines() if "net.bn1" in line or "  inf  " in line]
    assert [row[0] for row in rows] == ["r[3]", *(f"r{n}" for n in range(19, 30))]
    assert rows[0][1:] == ["–", "inf", "1.0e-07", "2.0e-07", "1.0e-07"]
    assert rows[1][1:] == ["net.bn1", "2.0e-08", "1.0e-07", "2.0e-07", "1.0e-07"]
    assert "29 of 30 values" in " ".join(page.split())
    assert "(at most 3.0e-08, where 1.0e-07" in " ".join(page.split()), "of those that are the same"


def test_a_fault_of_the_runtime_is_told_and_spoils_nothing() -> None:
    fault = Fault("cpu", "y", 1.0, 1e-7, 1e-7, ("MatMul_BatchNormalization_Fusion",))
    page = words(comparison.validation(fold_of((CHECK,), faults=(fault,), samples=3, seed=0)))
    assert "computes what the original computes" in page
    assert fault.sentence in page
    assert "MatMul_BatchNormalization_Fusion" in page


def test_a_disagreement_names_the_value_and_its_fold() -> None:
    wrong = replace(LAYER, fold_error=0.02)
    page = words(
        comparison.validation(fold_of((CHECK,), ("It is wrong.",), layers=(wrong,), blame=Blame(wrong)))
    )
    assert (
        "does not compute what the original computes. It is wrong. The first value that differs is 'r[1]'"
        in page
    )
    assert "It comes from the fold of net.bn1." in page
    assert "0 of 1 value that both models compute are the same up to one rounding of the weights." in page


@pytest.mark.parametrize("holds", [True, False])
def test_a_replay_says_whether_it_holds_and_what_has_changed(holds: bool) -> None:
    again = fold_of((CHECK,), samples=3, seed=0) if holds else None
    page = words(text.replay(Replay(Path("r.json"), again, ("numpy was 1 and is 2.",), holds)))
    said = "still holds" if holds else "does not hold any more"
    assert page.startswith(f"What r.json says {said}. numpy was 1 and is 2.")
    assert ("computes what the original computes" in page) == holds


def test_what_was_rolled_back_is_said(tmp_path: Path) -> None:
    done = Export(source(tmp_path), None, result(STAYS), fold_of((CHECK,)), (), ("bn[2]", "conv_4"))
    assert "Rolled back, because the fold was wrong: bn[2], conv_4." in words(text.export_report(done))
    assert "Rolled back" not in words(text.export_report(replace(done, rolled_back=())))


def test_a_check_that_is_excused_says_so_and_spoils_nothing():
    excused = replace(CHECK, optimizer="default", max_rel=0.1, problem="It is off.", excused=True)
    page = words(
        comparison.validation(fold_of((CHECK, excused), notes=("The optimizer did it.",), samples=3))
    )
    assert "excused" in page
    assert "disagrees" not in page
    assert "The optimizer did it." in page


def test_an_output_that_was_not_compared_does_not_agree():
    page = words(
        comparison.validation(Validation((CHECK, replace(CHECK, output="z", compared=False)), seed=0))
    )
    assert "y agrees cpu off 1.0e-06 2.0e-07 5.0e-05 100.00% z not compared cpu" in page
    assert "z was not compared; all else of the second model computes what the original computes" in page


def test_what_an_operator_that_was_not_run_computes_is_not_said_to_agree():
    page = words(comparison.validation(fold_of((CHECK,), not_run=("b", "c"), seed=0)))
    assert "b, c were not compared; all else of the folded model computes" in page


def test_disagreement_says_what_is_wrong() -> None:
    wrong = replace(CHECK, max_rel=float("nan"), cosine=None, top1=None, problem="It holds NaN.")
    page = words(comparison.validation(fold_of((wrong,), notes=("Batch 1 only.",))))
    for part in ("disagrees", "nan", "It holds NaN.", "Batch 1 only."):
        assert part in page
    assert "computes what the original computes" not in page.replace("disagrees", "")


def test_models_that_cannot_be_compared_need_no_table() -> None:
    page = words(comparison.validation(fold_of((), ("Another input.",))))
    assert page == "The folded model does not compute what the original computes. Another input."


def test_latency_shows_its_conditions_its_interval_and_its_verdict() -> None:
    default = Row(
        "default", 50, 3, 1.0, 1.1, 0.999, 1.0, 1.001, 0.99, 1.01,
        original_p99_ms=1.3, folded_p99_ms=1.2, control_low=0.98, control_high=1.02,
        original_load_ms=9.0, folded_load_ms=7.0, loads=8, pinned=5,
    )  # fmt: skip
    off = Row("off", 50, 3, 1.5, 1.6, 1.0, 1.1, 1.5, 1.4, 1.6)
    weighs = Footprint(1200, 8, 1000, None, 2_000_000)
    result = Benchmark("cpu", 2, 0, {"x": (1, 3)}, (default, off), weighs, weighs)
    page = words(timings.benchmarks([result]))
    assert "Latency on cpu, 2 threads" in page
    assert "x 1×3" in page
    assert "default no measurable difference 1.001× 0.990 to 1.010 1.000 0.999 0.980 to 1.020" in page
    assert "off faster 1.500× 1.400 to 1.600 1.500 1.000 1.000 to 1.000" in page
    assert "default 1.000 1.100 1.300 0.999 1.000 1.200 9.0 / 7.0" in page
    assert "folded 1.2 kB 8 1,000 – 2.0 MB" in page
    assert "pinned to free CPUs in 5 of 9 loads" in page
    assert result.sentence in page


def test_rows_of_several_batches_and_kinds_are_told_apart() -> None:
    default = Row("default", 50, 3, 1.0, 1.1, 0.999, 1.0, 1.001, 0.99, 1.01, batch=8)
    rows = (default, replace(default, measures="on the device"))
    rows += tuple(replace(row, optimizer="off") for row in rows)
    page = words(timings.benchmarks([Benchmark("cuda", 1, 0, {"x": (8, 3)}, rows)]))
    assert "default, batch 8, end to end no measurable difference" in page
    assert "off, batch 8, on the device no measurable difference" in page
    assert "peak memory" not in page


def test_what_is_slower_is_the_first_line_for_every_setting_that_is_slower() -> None:
    slow = Row("default", 50, 3, 1.0, 1.1, 1.25, 1.3, 0.8, 0.78, 0.82)
    cpu = Benchmark("cpu", 1, 0, {"x": (1, 3)}, (slow, replace(slow, optimizer="off")))
    rows = (
        replace(slow, batch=8),
        replace(slow, batch=8, measures="on the device", ratio=2.0, low=1.9, high=2.1),
    )
    cuda = Benchmark("cuda", 1, 0, {"x": (8, 3)}, (*rows, *(replace(row, optimizer="off") for row in rows)))
    first = "Slower: the folded model takes 1.25 times as long (1.22 to 1.28) on cpu."
    second = first.replace("on cpu", "on cuda, batch 8, end to end")
    for shows in (
        text.bench_report([cpu, cuda]),
        text.export_report(Export(source(Path("in.onnx")), None, result(GONE), benchmarks=(cpu, cuda))),
    ):
        lines = shown(shows).splitlines()
        assert [line.rstrip() for line in lines[:2]] == [first, second]
        assert not any("Slower" in line for line in lines[2:])


def test_an_export_begins_with_the_answer_and_all_files(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    model = build("g (float[400] x) => (float[400] y) { y = Add (x, w) }", {"w": np.ones(400, np.float32)})
    save_onnx(ir.from_proto(model), path, external_data=True)
    page = words(text.export_report(Export(source(path), path, result(GONE), fold_of((CHECK,)))))
    first = page.partition(" holds ")[0]
    assert first.startswith("1 of 1 BatchNorm folded; ")
    assert "The models compute the same, on " in first
    assert re.search(r"Wrote \S*out\.onnx \(\d+ bytes\) and out\.onnx\.\w{16}\.data \(1\.6 kB\)\.", first)


def test_of_very_many_files_the_first_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    names = {f"out.onnx.{number:02}.data" for number in range(12)}
    for file in (path, *map(path.with_name, names)):
        file.write_bytes(bytes(1000))
    monkeypatch.setattr(headline, "own_files", lambda _: names)
    line = headline.written(path).plain
    assert line.endswith("out.onnx.06.data (1.0 kB) … and 5 more files, 5.0 kB (-v shows them).")
    assert headline.written(path, verbose=True).plain.count("1.0 kB") == 13


def test_of_very_many_comparisons_those_that_disagree_are_shown() -> None:
    checks = [replace(CHECK, output=f"y{number:02}") for number in range(60)]
    checks[50] = replace(checks[50], problem="It is off.", max_rel=0.5)
    page = words(comparison.validation(fold_of(tuple(checks), samples=1)))
    assert "y19 agrees" in page
    assert "y20 agrees" not in page
    assert "y50 disagrees" in page
    assert "… and 39 others (-v shows them)" in page
    assert "y59 agrees" in words(comparison.validation(fold_of(tuple(checks), samples=1), verbose=True))


def test_the_answer_of_a_comparison_takes_four_lines_at_most() -> None:
    wrong = [replace(CHECK, output=f"y{number}", problem=f"It is off by {number}.") for number in range(9)]
    page = shown(comparison.validation(fold_of(tuple(wrong), samples=1)))
    lines = page.split("\n\n")[0].splitlines()
    assert len(lines) == 4
    assert "does not compute" in lines[0]
    assert lines[3].strip() == "… and 7 more (-v shows them)"


@pytest.mark.parametrize("no_graphs", ["", "it is not installed"])
def test_why_the_runtimes_graph_was_not_compared_is_said(no_graphs: str) -> None:
    export = Export(source(Path("in.onnx")), None, result(GONE), no_graphs=no_graphs)
    page = words(text.export_report(export))
    assert ("ONNX Runtime's own graph was not compared: it is not installed." in page) == bool(no_graphs)


def test_an_export_that_was_not_compared_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(bytes(1))
    page = words(text.export_report(Export(source(Path("in.onnx")), path, result(GONE))))
    assert "The outputs were not compared. To compare them: bnfold validate in.onnx" in page


def test_the_hint_can_be_pasted_whatever_the_files_are_called(tmp_path: Path) -> None:
    path = tmp_path / "out put.onnx"
    path.write_bytes(bytes(1))
    page = shown(text.export_report(Export(source(Path("my $model.onnx")), path, result(GONE))), 10_000)
    line = next(line for line in page.splitlines() if "To compare them: " in line)
    assert shlex.split(line.partition("To compare them: ")[2]) == [
        "bnfold", "validate", "my $model.onnx", str(path)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "words_for_it"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3_210_000_000, "3.2 GB")],
)
def test_sizes(count: int, words_for_it: str) -> None:
    assert tables.size(count) == words_for_it
