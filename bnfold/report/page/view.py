"""What the page shows, as plain lists and dictionaries of text; the template only sets it out.

The figures come from the JSON document of the same run, so both say the same. A part that it lacks (nothing
was compared, nothing was timed) is None here, and a sentence on the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, get_args

from bnfold.edge.ranges import NodeRange
from bnfold.report.page import figures
from bnfold.report.page.words import SPEED, count, number, place, provider, short
from bnfold.report.terminal.tables import size
from bnfold.result import Status

View = dict[str, Any]
Record = Mapping[str, Any]

_LABELS = {"cpu": "CPU", "cpus": "CPUs", "usable_cpus": "usable CPUs", "cpu_quota": "CPU quota"}
_LABELS |= {"gpus": "GPUs", "gpu_driver": "GPU driver"}


def view(
    record: Record,
    *,
    command: str,
    parameters: tuple[int, int],
    measured: Sequence[NodeRange],
    times: Sequence[Sequence[Mapping[str, Sequence[float]]]],
    threshold: float,
) -> View:
    """Make the view of one export.

    Args:
        record: The JSON document of the export.
        command: The command line that made it.
        parameters: How many elements the constants of both models have.
        measured: Weight ranges.
        times: For each benchmark and each of its rows the single timings in milliseconds per run, under
            `"original"`, `"folded"` and `"control"`; any of them may be empty.
        threshold: The relative difference from which on the models differ, as 0.03.
    """
    validation, benchmarks = record["validation"], record["benchmarks"]
    tiles = _tiles(record, parameters)
    return {
        "title": PurePath(record["source"]["path"]).name,
        "version": record["versions"]["bnfold"],
        "slower": [sentence for benchmark in benchmarks for sentence in benchmark["slower"]],
        "verdict": _verdict(validation),
        "accuracy": ((validation or {}).get("accuracy") or {}).get("sentence"),
        "tiles": tiles,
        "columns": len(tiles) if len(tiles) <= 5 else math.ceil(len(tiles) / math.ceil(len(tiles) / 4)),
        "sites": _sites(record["fold"]),
        "outputs": figures.outputs(validation) if validation else None,
        "layers": figures.layers(validation) if validation and validation.get("layers") else None,
        "latency": [
            *(figures.latency(*one, threshold) for one in zip(benchmarks, times, strict=True)),
            *({"provider": name, "rows": None} for name in figures.missing(benchmarks)),
        ],
        "not_timed": record.get("not_timed"),
        "graphs": figures.graphs(record["graphs"]) if record["graphs"] else None,
        "ranges": figures.ranges(measured) if measured else None,
        "steps": [figures.step(one) for one in record.get("steps", ())],
        "evidence": _evidence(record, command),
    }


def _verdict(validation: Record | None) -> View:
    if validation is None:
        return {
            "state": "none",
            "heading": "Not compared",
            "sentence": "The outputs of the two models were not compared. To compare them, run bnfold"
            " validate ORIGINAL FOLDED.",
            "details": [],
        }
    if not validation["passed"]:
        problems = [
            f"{check['output']} ({place(check)}): {check['problem']}"
            for check in validation["checks"]
            if check["problem"] and not check["excused"]
        ]
        return {
            "state": "bad",
            "heading": "Disagrees with the original",
            "sentence": (validation.get("blame") or {}).get(
                "sentence", "The folded model does not compute the same as the original."
            ),
            "details": [*validation["problems"], *validation.get("differences", ()), *problems],
        }
    data = "the given inputs" if validation["seed"] is None else count(validation["samples"], "random input")
    where = " and ".join(provider(name) for name in validation["providers"])
    left = validation.get("not_compared") or ()
    return {
        "state": "warn" if left else "good",
        "heading": "Agrees with the original as far as compared" if left else "Agrees with the original",
        "sentence": f"Compared on {data} on {where}. {_closest(validation['checks'])}",
        "details": [f"The output {name!r} was not compared." for name in left],
    }


def _closest(checks: Sequence[Record]) -> str:
    """The largest error of the folded model, against the strictest reference there is."""
    errors = [check["error"] for check in checks if check.get("error") is not None]
    if errors:
        originals = [check["original_error"] for check in checks if check.get("original_error") is not None]
        other = f"; that of the original is {number(max(originals))}" if originals else ""
        return f"Its largest error against the float64 reference is {number(max(errors))}{other}."
    differences = [check["max_rel"] for check in checks if check["max_rel"] is not None]
    if differences:
        return f"The largest difference is {number(max(differences))} of an output’s scale."
    return "All outputs are equal."


def _tiles(record: Record, parameters: tuple[int, int]) -> list[View]:
    fold = record["fold"]
    norms = [site for site in fold["sites"] if site["op_type"] == "BatchNormalization"]
    chains = [site for site in fold["sites"] if _is_chain(site)]
    tiles = [_tile("BatchNorms", len(norms), _kept(norms))]
    if chains:
        tiles.append(_tile("Per-channel scalings", len(chains), _kept(chains)))
    tiles.append(_tile("Nodes", fold["nodes_before"], fold["nodes_after"]))
    tiles.append(_tile("Parameters", parameters[0], parameters[1], short))
    weighed = _weighed(record["benchmarks"])
    for label, key, write in (
        ("Multiply-adds", "multiply_adds", short),
        ("Peak memory", "peak_memory", size),
    ):
        if all(model.get(key) is not None for model in weighed):
            tiles.append(_tile(label, weighed[0][key], weighed[1][key], write))
    return [*tiles, _file_tile(record, weighed), *_latency_tiles(record["benchmarks"])]


def _weighed(benchmarks: Sequence[Record]) -> tuple[Record, Record]:
    """The sizes of original and folded, from the first benchmark that has measured them."""
    found = next((one for one in benchmarks if one.get("original") and one.get("folded")), None)
    return (found["original"], found["folded"]) if found else ({}, {})


def _file_tile(record: Record, weighed: tuple[Record, Record]) -> View:
    """Sizes of the files; for a PyTorch file that of its ONNX export, which was folded, if it is known."""
    source, output = record["source"], record["output"]
    if source["kind"] != "onnx" and "bytes" in weighed[0]:
        return _tile("File size, as ONNX", weighed[0]["bytes"], weighed[1]["bytes"], size)
    tile = _tile("File size", _bytes(source), _bytes(output) if output else _bytes(source), size)
    return tile if output else tile | {"before": "", "note": "nothing was written"}


def _tile(label: str, before: int, after: int, write: Callable[[int], str] = "{:,}".format) -> View:
    if before == after:
        note = "unchanged" if before else ""
    elif after == 0:
        note = "all gone"
    else:
        note = _change((after - before) / before) if before else ""
    # a unit that both have is written once
    first, last = (write(amount).partition(" ") for amount in (before, after))
    shown = first[0] if first[2] == last[2] else "".join(first)
    return {"label": label, "before": shown, "after": "".join(last), "note": note, "state": ""}


def _change(share: float) -> str:
    return f"{share:+.{0 if abs(share) >= 0.01 else 2}%}".replace("-", "−")


def _latency_tiles(benchmarks: Sequence[Record]) -> list[View]:
    tiles = []
    for benchmark in benchmarks:
        row = next((row for row in benchmark["rows"] if row["optimizer"] == "default"), benchmark["rows"][0])
        tiles.append(
            {
                "label": f"Speed on {provider(benchmark['provider'])}",
                "before": "",
                "after": f"{number(row['ratio'], 3)}×",
                "note": f"{row['verdict']} ({number(row['low'], 3)} to {number(row['high'], 3)})",
                "state": SPEED.get(row["verdict"], ""),
            }
        )
    return tiles


def _is_chain(site: Record) -> bool:
    return set(site["op_type"].split("+")) <= {"Add", "Sub", "Mul", "Div"}


def _kept(sites: Iterable[Record]) -> int:
    return sum(site["status"] == "kept" for site in sites)


def _bytes(file: Record) -> int:
    return int(file["bytes"] + sum(entry["bytes"] for entry in file.get("external_data", ())))


def _sites(fold: Record) -> View:
    counts = [{"status": status, "count": fold["summary"].get(status, 0)} for status in get_args(Status)]
    return {
        "rows": [_site(at, site) for at, site in enumerate(fold["sites"], start=1)],
        "counts": [entry for entry in counts if entry["count"]],
        "merges": [
            {
                "into": merge["into"],
                "branches": merge["branches"],
                "before": f"{merge['multiply_adds_before']:,}",
                "after": f"{merge['multiply_adds_after']:,}",
            }
            for merge in fold["merges"]
        ],
        "apart": [_reason("", reason) for reason in fold["apart"]],
    }


def _site(at: int, site: Record) -> View:
    before, after = site["reason"], site["reason_after"]
    reasons = []
    if before:
        reasons.append(_reason(", towards its producers" if after else "", before))
    if after:
        reasons.append(_reason(", towards its consumers", after))
    return {
        "place": at,
        "name": site["name"],
        "graph": site["graph"],
        "op_type": site["op_type"],
        "status": site["status"],
        "into": site["into"],
        "reasons": reasons,
    }


def _reason(direction: str, reason: Record) -> View:
    return {
        "code": reason["code"],
        "direction": direction,
        "sentence": reason["sentence"],  # may begin with a name, so it is not capitalised
        "remedy": reason["remedy"],
    }


def _evidence(record: Record, command: str) -> View:
    source, output, validation = record["source"], record["output"], record["validation"]
    files = [{"role": "Original", **source}]
    files += [{"role": "Original’s data", **entry} for entry in source["external_data"]]
    files += [{"role": "Folded", **output}] if output else []
    seeds = []
    if validation:
        drawn = "given inputs" if validation["seed"] is None else f"seed {validation['seed']}"
        seeds.append(("comparison", f"{drawn}, {count(validation['samples'], 'input')}"))
    for benchmark in record["benchmarks"]:
        conditions = f"seed {benchmark['seed']}, {count(benchmark['threads'], 'thread')}"
        seeds.append((f"timing on {provider(benchmark['provider'])}", conditions))
    return {
        "command": command,
        "files": [
            {"role": f["role"], "path": str(f["path"]), "size": size(f["bytes"]), "sha256": f["sha256"]}
            for f in files
        ],
        "seeds": seeds,
        "versions": list(record["versions"].items()),
        "machine": list(_flat(record.get("environment") or {})),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Every entry of nested dictionaries as a label and a text; null entries are left out."""
    for key, value in values.items():
        label = prefix + _LABELS.get(key, key.replace("_", " "))
        if key in ("versions", "system", "python") or value is None:
            continue  # the document itself has the versions
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        elif isinstance(value, list | tuple):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, size(value) if key.startswith("memory") else str(value)
