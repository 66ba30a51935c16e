"""The figures under the verdict, each before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.report.page.words import SPEED, number, provider, short
from bnfold.report.terminal.tables import size

View = dict[str, Any]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Weights:
    """How much a model's constants are.

    Attributes:
        elements: Their number.
        bytes: Their size in bytes.
    """

    elements: int
    bytes: int


def of_export(record: Record, weights: tuple[Weights, Weights]) -> list[View]:
    """Count BatchNorms, nodes, weights, files and latencies before and after."""
    fold = record["fold"]
    norms = [site for site in fold["sites"] if site["op_type"] == "BatchNormalization"]
    chains = [site for site in fold["sites"] if _is_chain(site)]
    tiles = [_tile("BatchNorms", len(norms), _kept(norms))]
    if chains:
        tiles.append(_tile("Per-channel scalings", len(chains), _kept(chains)))
    tiles.append(_tile("Nodes", fold["nodes_before"], fold["nodes_after"]))
    tiles.append(_tile("Parameters", weights[0].elements, weights[1].elements, short))
    weighed = _weighed(record["benchmarks"])
    tiles += _cost(weighed)
    return [*tiles, _file_tile(record, weighed, weights), *_latency(record["benchmarks"])]


def of_pair(record: Record) -> list[View]:
    """Compare the sizes of two ONNX files, and what was measured of them."""
    benchmarks, validation = record.get("benchmarks", ()), record.get("validation")
    weighed = _weighed(benchmarks)
    tiles = _latency(benchmarks)
    if validation:
        tiles += _agreement(validation)
    if all(weighed):
        tiles.append(_tile("Nodes", weighed[0]["nodes"], weighed[1]["nodes"]))
        tiles.append(_tile("Parameters", weighed[0]["parameters"], weighed[1]["parameters"], short))
    sizes = (_bytes(record["original"]), _bytes(record["folded"]))
    return [*tiles, *_cost(weighed), _tile("File size", *sizes, size)]


def columns(tiles: Sequence[View]) -> int:
    """In how many columns they stand where there is room: in one row, or in rows of the same length."""
    return len(tiles) if len(tiles) <= 5 else math.ceil(len(tiles) / math.ceil(len(tiles) / 4))


def alone(label: str, value: str, note: str = "", state: str = "") -> View:
    """A figure with nothing before it."""
    return {"label": label, "before": "", "after": value, "note": note, "state": state}


def _agreement(validation: Record) -> list[View]:
    """How many outputs and inner values agree."""
    checks = [check for check in validation["checks"] if not check.get("row")]
    names = dict.fromkeys(check["output"] for check in checks)
    wrong = {check["output"] for check in checks if not check["passed"] and not check["excused"]}
    good = sum(name not in wrong for name in names)
    state = "bad" if wrong else ""
    tiles = [alone("Outputs that agree", f"{good:,} of {len(names):,}", state=state)] if names else []
    if layers := validation.get("layers"):
        agree = sum(layer["agrees"] for layer in layers)
        note = "in float64, up to one rounding of the weights"
        state = "" if agree == len(layers) else "bad"
        tiles.append(alone("Inner values that agree", f"{agree:,} of {len(layers):,}", note, state))
    return [*tiles, alone("Inputs", f"{validation['samples']:,}")]


def _cost(weighed: tuple[Record, Record]) -> list[View]:
    """Multiply-adds and memory, where they were measured of both."""
    kinds = (("Multiply-adds", "multiply_adds", short), ("Peak memory", "peak_memory", size))
    return [
        _tile(label, weighed[0][key], weighed[1][key], write)
        for label, key, write in kinds
        if all(model.get(key) is not None for model in weighed)
    ]


def _weighed(benchmarks: Sequence[Record]) -> tuple[Record, Record]:
    """The sizes of original and folded, from the first benchmark that has measured them."""
    found = next((one for one in benchmarks if one.get("original") and one.get("folded")), None)
    return (found["original"], found["folded"]) if found else ({}, {})


def _file_tile(record: Record, weighed: tuple[Record, Record], weights: tuple[Weights, Weights]) -> View:
    """Sizes of the files; for a PyTorch file that of its ONNX export, which was folded.

    A PyTorch file holds other things than weights, so it is not compared with an ONNX file.
    """
    source, output = record["source"], record["output"]
    if source["kind"] != "onnx":
        if "bytes" in weighed[0]:
            return _tile("File size, as ONNX", weighed[0]["bytes"], weighed[1]["bytes"], size)
        return _tile("Weights, as ONNX", weights[0].bytes, weights[1].bytes, size)
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


def _latency(benchmarks: Sequence[Record]) -> list[View]:
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
