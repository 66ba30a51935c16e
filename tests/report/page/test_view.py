"""The view says what the document says, and says of what is missing that it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from bnfold.report.page import plots
from tests.report.sample_page import record, row, sample, site, validation


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_both", lambda *_: plots.Plot("wide", "narrow"))


def tile(view: dict[str, Any], label: str) -> dict[str, Any]:
    return next(tile for tile in view["tiles"] if tile["label"] == label)


def test_before_and_after_are_counted() -> None:
    view = sample(14)
    assert [tile(view, "BatchNorms")[key] for key in ("before", "after", "note")] == ["14", "2", "−86%"]
    assert [tile(view, "Nodes")[key] for key in ("before", "after")] == ["42", "28"]
    assert [tile(view, "Parameters")[key] for key in ("before", "after")] == ["4.82", "4.7 M"]
    assert [tile(view, "File size")[key] for key in ("before", "after")] == ["1.5", "1.4 MB"]
    assert tile(view, "Speed on CPU")["after"] == "1.09×"


def test_arithmetic_and_what_no_tool_can_fold_are_no_batchnorms() -> None:
    fold = record(3)["fold"]
    fold["sites"] = [
        site(0),
        site(1, op_type="Mul+Add"),
        site(2, op_type="LayerNormalization", status="kept", into=[]),
    ]
    view = sample(3, fold=fold)
    assert tile(view, "BatchNorms")["before"] == "1"
    assert tile(view, "Per-channel scalings")["before"] == "1"
    assert len(view["sites"]["rows"]) == 3


def test_what_was_weighed_is_shown() -> None:
    view = sample(3)
    assert [tile(view, "Multiply-adds")[key] for key in ("before", "after", "note")] == ["2", "1 M", "−50%"]
    assert [tile(view, "Peak memory")[key] for key in ("before", "after")] == ["5.0", "4.0 MB"]
    unknown = record(3)["benchmarks"][0] | {"original": None, "folded": None}
    labels = {tile["label"] for tile in sample(3, benchmarks=[unknown])["tiles"]}
    assert not labels & {"Multiply-adds", "Peak memory"}


def test_a_pytorch_file_is_weighed_as_onnx() -> None:
    source = record(3)["source"] | {"kind": "module"}
    assert [tile(sample(3, source=source), "File size, as ONNX")[key] for key in ("before", "after")] == [
        "1.0 kB",
        "900 bytes",
    ]
    untimed = sample(3, source=source, benchmarks=[])
    assert [tile(untimed, "Weights, as ONNX")[key] for key in ("before", "after")] == ["19.3", "18.8 MB"]
    assert all("File size" not in entry["label"] for entry in untimed["tiles"]), "a .pt file is another thing"


def test_rows_of_several_batches_and_measures_are_told_apart() -> None:
    benchmark = record(3)["benchmarks"][0]
    benchmark["rows"] = [row("off", batch=4), row("off", batch=4, measures="on the device")]
    rows = sample(3, benchmarks=[benchmark])["latency"][0]["rows"]
    assert [one["setting"] for one in rows] == ["off, batch 4, end to end", "off, batch 4, on the device"]


def test_nothing_compared_and_nothing_timed_is_said() -> None:
    view = sample(3, validation=None, benchmarks=[], output=None)
    assert view["verdict"]["state"] == "none"
    assert (view["outputs"], view["layers"]) == (None, None)
    assert [(one["provider"], one["rows"]) for one in view["latency"]] == [("cpu", None), ("cuda", None)]
    assert tile(view, "File size")["note"] == "nothing was written"


def test_cuda_is_marked_as_not_run_unless_it_was() -> None:
    view = sample(3)
    assert view["outputs"]["missing"] == ["cuda"]
    assert view["latency"][-1] == {"provider": "cuda", "rows": None}
    both = record(3)["benchmarks"] + [record(3)["benchmarks"][0] | {"provider": "cuda"}]
    view = sample(3, benchmarks=both, validation=validation(3) | {"providers": ["cpu", "cuda"]})
    assert view["outputs"]["missing"] == []
    assert all(one["rows"] for one in view["latency"])
    assert tile(view, "Speed on CUDA")["after"] == "1.09×"


def test_agreement_is_told_in_the_strictest_terms_known() -> None:
    assert "1.9×10⁻⁷; that of the original is 2.1×10⁻⁷" in sample(3)["verdict"]["sentence"]
    plain = validation(3)
    for check in plain["checks"]:
        for key in ("error", "original_error", "ratio", "bound"):
            del check[key]
    view = sample(
        3, validation={key: value for key, value in plain.items() if key not in ("oracle", "layers")}
    )
    assert "3.4×10⁻⁷ of an output’s scale" in view["verdict"]["sentence"]
    assert not view["outputs"]["against_oracle"]
    assert {row["bound"] for row in view["outputs"]["rows"]} == {"–"}
    plain["checks"][0] |= {"max_rel": None, "type": "int64"}
    assert sample(3, validation=plain)["outputs"]["rows"][0]["bound"] == "equal"


def test_a_disagreement_names_the_fold_and_every_failure() -> None:
    wrong = validation(3) | {"passed": False, "problems": ["The model does not run."]}
    wrong["blame"] = {"sentence": "It comes from the fold of bn2."}
    wrong["checks"][0] |= {"passed": False, "problem": "It is off."}
    wrong["checks"][1] |= {"passed": False, "problem": "Off, too.", "excused": True}
    view = sample(3, validation=wrong)
    assert view["verdict"]["state"] == "bad"
    assert view["verdict"]["sentence"] == "It comes from the fold of bn2."
    assert view["verdict"]["details"][0] == "The model does not run."
    assert [line.rsplit(": ", 1)[1] for line in view["verdict"]["details"][1:]] == ["It is off."]
    assert [row["verdict"] for row in view["outputs"]["rows"]] == ["disagrees", "excused"]
    wrong["checks"][1] |= {"passed": True, "compared": False}
    assert sample(3, validation=wrong)["outputs"]["rows"][1]["verdict"] == "not compared"


def test_accuracy_and_what_callers_meet_otherwise_are_shown() -> None:
    sentence = "Accuracy on 1,000 labelled rows: top-1 70.00%."
    wrong = validation(3) | {"passed": False, "differences": ["The opset is 20 instead of 17."]}
    view = sample(3, validation=wrong | {"accuracy": {"sentence": sentence}})
    assert view["accuracy"] == sentence
    assert view["verdict"]["details"] == ["The opset is 20 instead of 17."]
    assert sample(3)["accuracy"] is None


def test_everything_that_was_not_seen_is_listed() -> None:
    gaps = [{"sentence": f"Row {number}."} for number in range(20)]
    unseen = {"branches": gaps[:1], "rows": gaps, "not_known": "Not all is known.", "cover": "It drew."}
    view = sample(3, validation=validation(3) | {"unseen": unseen})
    sentences = [gap["sentence"] for gap in gaps]
    assert view["outputs"]["unseen"] == ["It drew.", "Not all is known.", "Row 0.", *sentences]
    old = {key: value for key, value in validation(3).items() if key != "unseen"}
    assert sample(3, validation=old)["outputs"]["unseen"] == []


def test_layers_stand_in_order_and_the_wrong_one_is_named() -> None:
    shuffled = validation(6)
    shuffled["layers"].reverse()
    view = sample(3, validation=shuffled)["layers"]
    assert [row["name"] for row in view["rows"]] == [f"relu_{number}" for number in range(6)]
    assert view["beyond"] == ["relu_3"]
    assert view["measured"]


def test_a_verdict_on_latency_is_marked() -> None:
    benchmark = record(3)["benchmarks"][0]
    benchmark["rows"] = [row("default", verdict="too noisy to say"), row("off", verdict="slower")]
    states = [one["state"] for one in sample(3, benchmarks=[benchmark])["latency"][0]["rows"]]
    assert states == ["warn", "bad"]


def test_what_is_slower_comes_first() -> None:
    assert sample(3)["slower"] == []
    slow = record(3)["benchmarks"][0] | {"slower": ["Slower: it is."]}
    assert sample(3, benchmarks=[slow, slow | {"slower": ["Slower: so is that."]}])["slower"] == [
        "Slower: it is.",
        "Slower: so is that.",
    ]


def test_the_runtimes_own_graphs_are_a_table() -> None:
    view = sample(3)["graphs"]
    assert [(row["what"], row["before"], row["after"]) for row in view["rows"]] == [
        ("Nodes", "174", "158"),
        ("Nodes before layouts are chosen", "160", "161"),
        ("Bytes read and written", "32.2 MB", "31.9 MB"),
        ("Gelu", "2", "0"),
        ("LayerNormalization", "0", "1"),
    ]
    assert (view["worse"], view["apart"]) == ("1 more node and 1 fewer Gelu", True)
    assert sample(3, graphs=None)["graphs"] is None


def test_weights_that_quantise_worse_are_named() -> None:
    view = sample(5)["ranges"]
    assert view["worse"] == ["net.layer1.conv"]
    assert (view["rows"][0]["before"], view["rows"][0]["change"]) == ("merged", "–")
    assert view["subnormals"] == 5


def test_a_reason_begins_with_its_name_as_it_is() -> None:
    reason = {
        "code": "BN301",
        "title": "",
        "sentence": "max_pool is read.",
        "remedy": "Nothing.",
        "facts": {},
    }
    fold = record(1)["fold"]
    fold["sites"] = [site(0, status="kept", into=[], reason=reason)]
    (one,) = sample(1, fold=fold)["sites"]["rows"][0]["reasons"]
    assert (one["code"], one["direction"], one["sentence"]) == ("BN301", "", "max_pool is read.")
    fold["sites"] = [site(0, status="kept", into=[], reason=reason, reason_after=reason)]
    both = sample(1, fold=fold)["sites"]["rows"][0]["reasons"]
    assert [entry["direction"] for entry in both] == [", towards its producers", ", towards its consumers"]


def test_the_machine_is_told_in_words() -> None:
    evidence = sample(3)["evidence"]
    assert evidence["machine"] == [("CPU", "A processor"), ("memory", "8.0 GB"), ("GPUs", "none")]
    assert [name for name, _ in evidence["seeds"]] == ["comparison", "timing on CPU"]
    assert [file["role"] for file in evidence["files"]] == ["Original", "Folded"]
