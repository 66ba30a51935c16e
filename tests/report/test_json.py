"""Every document follows the schema, and the schema describes every key."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import onnx_ir as ir
import pytest

from bnfold.latency.footprint import Footprint
from bnfold.latency.optimized_graph import OptimizedGraph
from bnfold.latency.results import Benchmark, Row
from bnfold.pipeline.exported import Export
from bnfold.pipeline.harm import RuntimeGraphs
from bnfold.pipeline.read import Source
from bnfold.pipeline.replay import Replay
from bnfold.reasons import Rule
from bnfold.report import json as report
from bnfold.report.rules import all_rules
from bnfold.result import FoldResult, Site
from bnfold.system.doctor import Diagnosis, Finding
from bnfold.system.environment import environment
from bnfold.validation.accuracy import Accuracy, Score
from bnfold.validation.layers import Blame, Layer
from bnfold.validation.results import Fault, Request
from bnfold.validation.unseen import Gap, Unseen
from bnfold.validation.validate import Check, Validation

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
RULE = Rule("BN999", "a title", "It stops at {node}.", "Move it.")


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that a key that is not documented is an error."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        is_open = schema.get("additionalProperties", True) is True
        if "properties" in schema and schema.get("type") == "object" and is_open:
            schema["additionalProperties"] = False
        return schema
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


def check(document: dict[str, Any]) -> None:
    """A document is JSON, and says nothing that the schema does not describe."""
    again = json.loads(report.dumps(document))
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(again)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"some bytes")
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20})
    return Source(path, "onnx", False, ir.Model(graph, ir_version=10))


@pytest.fixture
def folded(source: Source) -> FoldResult[ir.Model]:
    sites = (
        Site("net.bn1", "node_1", "BatchNormalization", "", "folded", ("node_0",)),
        Site("net.bn2", "node_5", "Mul+Add", "body", "kept", (), RULE(node="node_4")),
    )
    return FoldResult(source.model, sites, 9, 8)


def validation(**changes: Any) -> Validation:
    values: dict[str, Any] = {
        "provider": "cpu", "optimizer": "off", "output": "y", "type": "float32", "shapes": ((1, 10),),
        "tolerance": 5e-5, "max_abs": 1e-6, "max_rel": 2e-7, "cosine": 1.0, "top1": 1.0, "problem": None,
    } | changes  # fmt: skip
    return Validation((Check(**values),), notes=("A note.",), samples=3, seed=0, tolerance=5e-5)


def proved() -> Validation:
    """A validation with everything in it that can be."""
    right = Layer("r", 0, 2e-8, 1e-7, 3e-8, 4e-8, site="net.bn1", nodes=("conv",), originals=("conv", "bn1"))
    wrong = replace(right, name="y", depth=1, fold_error=math.inf, original_error=None, folded_error=None)
    given = {"kind": "npz", "path": "data.npz", "count": 1, "sha256": {"data.npz": "ab" * 32}}
    return replace(
        validation(tolerance=None, error=1e-7, original_error=2e-7, ratio=math.nan, bound=1e-6, row="tf32"),
        providers=("cpu", "cuda"),
        oracle="The original in float64.",
        labels=("normal 1×3×8×8",),
        layers=(right, wrong),
        blame=Blame(wrong),
        faults=(Fault("cpu", "y", 1.0, 1e-7, math.inf, ("Some_Fusion",)),),
        repeatability=(("cpu", 0.0), ("cuda", math.nan)),
        placement=(("cuda", ("node_3",)),),
        request=Request(("cpu", "cuda"), tolerance=1e-3, threads=2, per_layer=True, inputs=given),
        accuracy=Accuracy("y", 1000, (Score(1, 0.75, 0.7, 1, 6, -0.1, 0.01),)),
        unseen=Unseen(
            rows=(Gap("emb", 3, 6, "Three.", ((0, 1), (4, 4))),), sizes=(Gap("N", 1, None, "One."),)
        ),
    )


def benchmark() -> Benchmark:
    row = Row("default", 50, 3, 1.0, 1.1, 0.9, 1.0, 1.11, 1.05, 1.2)
    off = Row("off", 50, 3, 1.5, 1.6, 0.9, 1.0, 1.66, 1.5, 1.8)
    weighs = Footprint(1000, 9, 200, None, 3_000_000)
    return Benchmark("cpu", 1, 0, {"x": (1, 3, 8, 8)}, (row, off), weighs, weighs, 4, 1.5)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_of_the_schema_is_described() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, entry in SCHEMA["$defs"].items()
        for key, value in entry.get("properties", {}).items()
        if "description" not in value
        and "description" not in SCHEMA["$defs"].get(value.get("$ref", "")[8:], {})
    ]
    assert undescribed == []


@pytest.mark.parametrize("command", ["export", "fold"])
def test_an_export_follows_the_schema(source, folded, command: str) -> None:
    check(report.export_document(command, Export(source, source.path, folded, validation(), (benchmark(),))))
    check(report.export_document(command, Export(source, None, folded)))
    undone = Export(source, source.path, folded, proved(), (), ("node_5",))
    document = report.export_document(command, undone)
    check(document)
    assert document["rolled_back"] == ["node_5"]


def test_the_runtimes_own_graphs_are_in_the_document(source, folded) -> None:
    before = OptimizedGraph(9, 8, 1000, 500, {"Gelu": 2})
    found = RuntimeGraphs(
        before, replace(before, nodes=10, multiply_adds=None), ("node_5",), ("1 more node",)
    )
    document = report.export_document("export", Export(source, None, folded, graphs=found))
    check(document)
    assert document["graphs"] == {
        "original": {
            "nodes": 9,
            "extended_nodes": 8,
            "bytes": 1000,
            "multiply_adds": 500,
            "whole": {"Gelu": 2},
        },
        "folded": document["graphs"]["original"] | {"nodes": 10, "multiply_adds": None},
        "taken_back": ["node_5"],
        "worse": ["1 more node"],
        "apart": False,
    }
    assert set(document["graphs"]) == set(SCHEMA["$defs"]["graphs"]["properties"])
    assert set(document["graphs"]["folded"]) == set(SCHEMA["$defs"]["optimized_graph"]["properties"])
    assert report.export_document("fold", Export(source, None, folded))["graphs"] is None


def test_what_is_slower_is_in_the_document() -> None:
    slow = replace(benchmark().rows[0], ratio=0.8, low=0.78, high=0.82)
    record = report.benchmark_record(replace(benchmark(), rows=(slow, benchmark().rows[1])))
    assert record["slower"] == ["Slower: the folded model takes 1.25 times as long (1.22 to 1.28) on cpu."]
    assert report.benchmark_record(benchmark())["slower"] == []
    slow_off = replace(benchmark(), rows=(benchmark().rows[0], replace(slow, optimizer="off")))
    assert report.benchmark_record(slow_off)["slower"] == [], "ONNX Runtime as it comes decides"


def test_how_a_pytorch_file_was_read_is_told(source, folded) -> None:
    told = {"input_shape": ["x=1x3x8x8"], "dtype": "x=float16", "allow": ["a.B"], "opset": 18}
    document = report.inspect_document(replace(source, kind="module", options=told), folded)
    check(document)
    assert document["source"]["options"] == told


def test_the_evidence_of_a_validation_is_in_the_document(source) -> None:
    record = report.validate_document(source, source, proved())["validation"]
    parts = {
        "validation": record, "check": record["checks"][0], "layer": record["layers"][0],
        "blame": record["blame"], "fault": record["faults"][0], "request": record["request"],
        "accuracy": record["accuracy"], "score": record["accuracy"]["scores"][0],
        "unseen": record["unseen"], "gap": record["unseen"]["rows"][0],
    }  # fmt: skip
    for name, part in parts.items():
        assert set(part) == set(SCHEMA["$defs"][name]["properties"]), name
    assert record["labels"] == ["normal 1×3×8×8"]
    assert [layer["agrees"] for layer in record["layers"]] == [True, False]
    assert record["layers"][1]["fold_error"] is None
    assert record["accuracy"]["sentence"] == proved().accuracy.sentence
    assert record["blame"]["value"] == "y"
    assert record["blame"]["sentence"] in proved().failures
    assert record["faults"][0]["optimizers"] == ["Some_Fusion"]
    assert record["repeatability"] == {"cpu": 0.0, "cuda": None}
    assert record["placement"] == {"cuda": ["node_3"]}
    assert record["unseen"]["rows"][0]["missing"] == [[0, 1], [4, 4]]
    assert record["unseen"]["sizes"][0]["total"] is None
    assert record["provider_options"]["cpu"] == {}
    assert record["provider_options"]["cuda"]["use_tf32"] == "0"
    assert record["request"] == {
        "providers": ["cpu", "cuda"], "samples": 6, "seed": 0, "tolerance": 1e-3, "threads": 2,
        "oracle": "auto", "per_layer": True, "match": "name", "strict": False, "runtimes": [],
        "cover": False, "cover_seconds": 60.0, "inputs": proved().request.inputs,
    }  # fmt: skip


def test_every_other_document_follows_the_schema(source, folded) -> None:
    check(report.inspect_document(source, folded))
    check(report.validate_document(source, source, validation()))
    check(report.validate_document(source, source, proved()))
    check(report.replay_document(Replay(source.path, proved(), ("numpy was 1 and is 2.",), True)))
    check(report.replay_document(Replay(source.path, None, ("It is gone.",), False)))
    check(report.doctor_document(Diagnosis(environment(), (Finding("problem", "cpu", "No.", "Mend it."),))))
    check(report.bench_document(source, source, [benchmark()]))
    check(report.rules_document(all_rules()))


def test_an_excuse_and_both_numbers_of_repeats_are_told() -> None:
    wrong = report.validation_record(validation(optimizer="default", problem="It is off.", excused=True))
    assert (wrong["checks"][0]["passed"], wrong["checks"][0]["excused"], wrong["passed"]) == (
        False,
        True,
        True,
    )
    row = replace(benchmark().rows[0], repeats=3, folded_repeats=7)
    record = report.benchmark_record(replace(benchmark(), rows=(row, benchmark().rows[1])))
    assert [record["rows"][0][key] for key in ("repeats", "folded_repeats")] == [3, 7]


def test_the_closed_schema_notices_a_key_that_is_not_documented(source, folded) -> None:
    document = copy.deepcopy(report.inspect_document(source, folded))
    document["fold"]["sites"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(document)
    document = report.validate_document(source, source, proved())
    document["validation"]["layers"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_a_number_that_is_not_finite_is_null(source) -> None:
    result = validation(max_abs=math.inf, max_rel=math.nan, cosine=None, problem="It is NaN.")
    document = report.validate_document(source, source, result)
    (entry,) = document["validation"]["checks"]
    assert (entry["max_abs"], entry["max_rel"], entry["cosine"]) == (None, None, None)
    assert document["validation"]["passed"] is False
    check(document)


def test_a_nan_that_slipped_through_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.dumps({"number": math.nan})


def test_a_reason_is_given_in_words_and_facts(source, folded) -> None:
    gone, kept = report.inspect_document(source, folded)["fold"]["sites"]
    assert gone["reason"] is None
    assert gone["into"] == ["node_0"]
    assert kept["reason"] == {
        "code": "BN999",
        "title": "a title",
        "sentence": "It stops at node_4.",
        "remedy": "Move it.",
        "facts": {"node": "node_4"},
    }


def test_a_file_is_identified_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert report.file_record(path) == {
        "path": str(path),
        "bytes": 3_000_000,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_the_files_of_external_data_are_identified_too(source) -> None:
    data = source.path.with_name("weights.bin")
    data.write_bytes(bytes(8))
    tensor = ir.ExternalTensor(
        data.name, 0, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="w", base_dir=str(data.parent)
    )
    source.model.graph.register_initializer(ir.Value(name="w", const_value=tensor))
    (entry,) = report.source_record(source)["external_data"]
    assert entry["path"] == str(data)


def test_versions_name_what_the_numbers_depend_on() -> None:
    assert {"bnfold", "python", "system", "numpy", "onnx", "onnx-ir"} <= set(
        report.document("fold")["versions"]
    )


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write({"number": math.inf}, path)
    assert path.read_text() == "old"
    report.write({"number": 1}, path)
    assert json.loads(path.read_text()) == {"number": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
