"""A hand-made view of the page with everything in it, and names that try to be markup."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from bnfold.edge.ranges import NodeRange, WeightRange
from bnfold.report.page.tiles import Weights
from bnfold.report.page.view import View, view

NASTY = "<script>alert('x')</script>"

_REASON = {
    "code": "BN301",
    "title": "t",
    "sentence": f"{NASTY} is read elsewhere.",
    "remedy": "Nothing.",
    "facts": {},
}
_FILE = {"path": f"/tmp/{NASTY}.onnx", "bytes": 1_500_000, "sha256": "ab" * 32}


def site(number: int, **changes: Any) -> dict[str, Any]:
    """One entry of the document's list of sites."""
    return {
        "name": f"net.layer{number}.bn",
        "node": f"n{number}",
        "op_type": "BatchNormalization",
        "graph": "",
        "status": "folded",
        "into": [f"net.layer{number}.conv"],
        "reason": None,
        "reason_after": None,
    } | changes


def sites(total: int) -> list[dict[str, Any]]:
    """That many, of which every seventh stays and the second is merged."""
    kept = {"status": "kept", "into": [], "reason": _REASON, "reason_after": _REASON}
    found = [site(number, **(kept if number % 7 == 6 else {})) for number in range(total)]
    if total > 2:
        found[1] = site(1, status="merged", name=NASTY, graph="function local::f")
    return found


def validation(total: int) -> dict[str, Any]:
    """A comparison with the oracle, layer by layer; the fourth layer is beyond its bound."""
    check = {
        "provider": "cpu", "optimizer": "off", "output": NASTY, "type": "float32", "shapes": [[1, 10]],
        "tolerance": None, "noise": 1e-7, "max_abs": 2e-6, "max_rel": 3.4e-7, "cosine": 1.0, "top1": 1.0,
        "passed": True, "problem": None, "excused": False,
        "error": 1.9e-7, "original_error": 2.1e-7, "ratio": 0.93, "bound": 1.2e-6, "row": "",
    }  # fmt: skip
    layers = [
        {
            "name": f"relu_{number}", "depth": number, "original_error": 2e-7 * (1 + number % 3),
            "folded_error": 1e-7 * (1 + number % 4), "fold_error": 2e-3 if number == 3 else 2e-8,
            "bound": 1e-7, "site": f"net.layer{number}.bn" if number % 2 else None,
        }
        for number in range(total)
    ]  # fmt: skip
    return {
        "passed": True, "problems": [], "notes": ["A note."], "providers": ["cpu"], "threads": 1,
        "samples": 3, "seed": 0, "tolerance": 1e-6, "checks": [check, check | {"optimizer": "default"}],
        "oracle": "The original in float64.", "layers": layers, "blame": None, "faults": [],
        "unseen": {"rows": [{"sentence": f"Row {number} of {NASTY}."} for number in range(12)]},
    }  # fmt: skip


def row(optimizer: str, **changes: Any) -> dict[str, Any]:
    """One entry of a benchmark."""
    return {
        "optimizer": optimizer, "rounds": 80, "repeats": 3, "original_ms": 3.6, "original_p90_ms": 3.9,
        "folded_ms": 3.3, "folded_p90_ms": 3.6, "ratio": 1.09, "low": 1.05, "high": 1.12,
        "verdict": "faster", "folded_repeats": 3,
        "original_p99_ms": 4.4, "folded_p99_ms": 4.1, "original_load_ms": 31.0, "folded_load_ms": 28.0,
        "measures": "end to end", "batch": None,
        "control_ratio": 1.003, "control_low": 0.98, "control_high": 1.02,
    } | changes  # fmt: skip


def graphs() -> dict[str, Any]:
    """What ONNX Runtime makes of both models, with all that can be said of it."""
    before = {"nodes": 174, "extended_nodes": 160, "bytes": 32_200_000, "multiply_adds": 33_400_000}
    after = {"nodes": 158, "extended_nodes": 161, "bytes": 31_900_000, "multiply_adds": None}
    return {
        "original": before | {"whole": {"Gelu": 2}}, "folded": after | {"whole": {"LayerNormalization": 1}},
        "taken_back": [NASTY], "worse": ["1 more node", "1 fewer Gelu"], "apart": True,
    }  # fmt: skip


def record(total: int = 14) -> dict[str, Any]:
    """The document of an export with that many sites."""
    found = sites(total)
    statuses = [entry["status"] for entry in found]
    summary = {name: statuses.count(name) for name in ("folded", "merged", "kept")}
    benchmark = {
        "provider": "cpu", "threads": 1, "seed": 0, "shapes": {"x": [1, 3, 8, 8]}, "sentence": "Faster.",
        "rows": [row(name) for name in ("default", "basic", "off")],
        "original": {"parameters": 9, "multiply_adds": 2_000_000, "peak_memory": 5_000_000, "bytes": 1000},
        "folded": {"parameters": 8, "multiply_adds": 1_000_000, "peak_memory": 4_000_000, "bytes": 900},
        "notes": ["A note on conditions."], "slower": [],
    }  # fmt: skip
    return {
        "schema": "bnfold.report/1",
        "command": "export",
        "versions": {"bnfold": "0.1.0", "python": "3.11"},
        "source": _FILE | {"kind": "onnx", "was_training": False, "external_data": []},
        "output": _FILE | {"bytes": 1_400_000},
        "fold": {
            "summary": {"sites": total} | summary,
            "nodes_before": 3 * total,
            "nodes_after": 2 * total,
            "sites": found,
            "merges": [
                {"into": "m", "branches": ["a", NASTY], "multiply_adds_before": 9, "multiply_adds_after": 8}
            ],
            "apart": [_REASON],
        },
        "validation": validation(2 * total),
        "benchmarks": [benchmark],
        "environment": {"cpu": "A processor", "memory": 8_000_000_000, "gpus": [], "cpu_quota": None},
        "graphs": graphs(),
    }  # fmt: skip


def measured(total: int) -> list[NodeRange]:
    """Weight ranges; the first was merged, the second is worse after the fold."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(total):
        before = rng.lognormal(-1, 0.3, 16)
        after = before * rng.lognormal(0, 2.5 if number == 1 else 0.3, 16)
        old = None if number == 0 else WeightRange(tuple(before), 0)
        found.append(
            NodeRange(
                f"net.layer{number}.conv",
                f"n{number}",
                "Conv",
                "",
                "float32",
                old,
                WeightRange(tuple(after), 1),
            )
        )
    return found


def timings(rows: int) -> list[dict[str, list[float]]]:
    """Single timings for each row of one benchmark."""
    rng = np.random.default_rng(1)
    return [
        {name: list(3.5 * (1 + rng.gamma(2, 0.02, 60))) for name in ("original", "folded", "control")}
        for _ in range(rows)
    ]


def sample(total: int = 14, **changes: Any) -> View:
    """The whole view; `changes` replace parts of the document."""
    document = copy.deepcopy(record(total)) | changes
    return view(
        document,
        command=f"bnfold export '{NASTY}'",
        weights=(Weights(4_820_000, 19_280_000), Weights(4_700_000, 18_800_000)),
        measured=measured(total),
        times=[timings(len(benchmark["rows"])) for benchmark in document["benchmarks"]],
        threshold=0.03,
    )
