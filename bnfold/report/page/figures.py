"""The measured parts of the page: errors, latency and weight ranges, each its plots and a table's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnfold.edge.balance import held
from bnfold.edge.ranges import NodeRange, WeightRange
from bnfold.report.page import plots
from bnfold.report.page.words import PROVIDERS, SPEED, count, number, place
from bnfold.report.terminal.half import holds, outcome, reach
from bnfold.report.terminal.tables import size

View = dict[str, Any]
Record = Mapping[str, Any]


def outputs(validation: Record) -> View:
    """Show how far every output is from the truth, or without a reference, from the original."""
    rows = [
        {
            "output": check["output"],
            "type": check["type"],
            "place": place(check),
            "original": number(check.get("original_error")),
            "folded": number(check.get("error")),
            "ratio": number(check.get("ratio"), 3),
            "difference": number(check["max_rel"] if check["max_rel"] is not None else check["max_abs"]),
            "bound": _bound(check),
            **_verdict(check),
            "problem": check["problem"],
        }
        for check in validation["checks"]
    ]
    return {
        "rows": rows,
        "against_oracle": any(check.get("error") is not None for check in validation["checks"]),
        "oracle": validation.get("oracle") or "",
        "notes": validation["notes"],
        "unseen": list(_unseen(validation.get("unseen") or {})),
        "faults": [fault["sentence"] for fault in validation.get("faults") or ()],
        "missing": [name for name in PROVIDERS if name not in validation["providers"]],
    }


def _unseen(unseen: Record) -> Iterator[str]:
    """Everything that was not seen, as sentences."""
    yield from filter(None, (unseen.get("cover"), unseen.get("not_known")))
    for gaps in unseen.values():
        yield from (gap["sentence"] for gap in gaps if isinstance(gaps, list))


def _verdict(check: Record) -> View:
    if check["passed"] and not check.get("compared", True):
        return {"state": "warn", "verdict": "not compared"}
    if check["passed"]:
        return {"state": "good", "verdict": "agrees"}
    excused = check["excused"]
    return {"state": "warn" if excused else "bad", "verdict": "excused" if excused else "disagrees"}


def _bound(check: Record) -> str:
    """The bound of the error against the oracle, or without one of the difference from the original."""
    bound = check["tolerance"] if check.get("bound") is None else check["bound"]
    return "equal" if bound is None and check["max_rel"] is None else number(bound)


def layers(validation: Record) -> View:
    """Show both errors along the depth."""
    found = sorted(validation["layers"], key=lambda layer: layer["depth"])
    drawn = [
        plots.LayerError(
            layer["original_error"],
            layer["folded_error"],
            layer["fold_error"],
            layer["bound"],
            bool(layer["site"]),
        )
        for layer in found
    ]
    beyond = [layer["name"] for layer, error in zip(found, drawn, strict=True) if error.beyond]
    return {
        "plot": plots.errors(drawn, "errors"),
        "rows": [
            {
                "place": at,
                "name": layer["name"],
                "site": layer["site"] or "",
                "original": number(layer["original_error"]),
                "folded": number(layer["folded_error"]),
                "fold": number(layer["fold_error"]),
                "bound": number(layer["bound"]),
                "state": "bad" if error.beyond else "",
            }
            for at, (layer, error) in enumerate(zip(found, drawn, strict=True), start=1)
        ],
        "beyond": beyond,
        "measured": any(layer["folded_error"] is not None for layer in found),
    }


def latency(benchmark: Record, times: Sequence[Mapping[str, Sequence[float]]], threshold: float) -> View:
    """Show the latency on one provider; the arguments are those of [`view`][bnfold.report.page.view.view]."""
    rows = benchmark["rows"]
    drawn = [
        plots.Latency(
            _setting(row, rows),
            taken["original"],
            taken["folded"],
            taken["control"],
            plots.Ratio(row["ratio"], row["low"], row["high"]),
            _control(row),
        )
        for row, taken in zip(rows, times, strict=True)
    ]
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in benchmark["shapes"].items())
    return {
        "provider": benchmark["provider"],
        "sentence": benchmark["sentence"],
        "conditions": f"{count(benchmark['threads'], 'thread')}; inputs {shapes}; seed {benchmark['seed']}",
        "notes": benchmark.get("notes", ()),
        "times": plots.latency(drawn, f"times-{benchmark['provider']}"),
        "ratios": plots.ratios(drawn, threshold, f"ratios-{benchmark['provider']}"),
        "threshold": f"{100 * threshold:g} %",
        "has_control": any(row.control_ratio for row in drawn),
        "rows": [_latency_row(row, one) for row, one in zip(rows, drawn, strict=True)],
    }


def _setting(row: Record, rows: Sequence[Record]) -> str:
    """What distinguishes a row from the others."""
    options = row.get("provider_options", "bnfold")
    named = f", options {options}" if options != "bnfold" else ""
    batch = f", batch {row['batch']}" if row.get("batch") else ""
    threads = {other.get("threads") for other in rows}
    if len(threads) > 1:
        batch = f", {count(row['threads'], 'thread')}{batch}"
    several = len({other.get("measures") for other in rows}) > 1
    return f"{row['optimizer']}{named}{batch}{', ' + row['measures'] if several else ''}"


def _latency_row(row: Record, drawn: plots.Latency) -> View:
    quantiles = ("_ms", "_p90_ms", "_p99_ms", "_load_ms")
    return {
        "setting": drawn.setting,
        "original": [number(row.get(f"original{key}"), 3) for key in quantiles],
        "folded": [number(row.get(f"folded{key}"), 3) for key in quantiles],
        "ratio": f"{number(row['ratio'], 3)}×",
        "interval": f"{number(row['low'], 3)} to {number(row['high'], 3)}",
        "control": _interval(drawn.control_ratio),
        "rounds": f"{row['rounds']:,}",
        "verdict": row["verdict"],
        "state": SPEED.get(row["verdict"], ""),
    }


def _control(row: Record) -> plots.Ratio | None:
    found = [row.get(f"control_{key}") for key in ("ratio", "low", "high")]
    numbers = [value for value in found if value is not None]
    return plots.Ratio(*numbers) if len(numbers) == len(found) else None


def _interval(ratio: plots.Ratio | None) -> str:
    return "–" if ratio is None else f"{number(ratio.low, 3)} to {number(ratio.high, 3)}"


def missing(benchmarks: Sequence[Record]) -> list[str]:
    """Name the providers on which nothing was timed."""
    timed = {benchmark["provider"] for benchmark in benchmarks}
    return [name for name in PROVIDERS if name not in timed]


def graphs(found: Record) -> View:
    """Show what ONNX Runtime makes of both models before it runs them."""
    before, after = found["original"], found["folded"]
    kinds = sorted({*before["whole"], *after["whole"]})
    figures = [
        ("Nodes", before["nodes"], after["nodes"], "{:,}".format),
        ("Nodes before layouts are chosen", before["extended_nodes"], after["extended_nodes"], "{:,}".format),
        ("Bytes read and written", before["bytes"], after["bytes"], size),
        ("Multiply-adds", before["multiply_adds"], after["multiply_adds"], "{:,}".format),
        *((kind, before["whole"].get(kind, 0), after["whole"].get(kind, 0), "{:,}".format) for kind in kinds),
    ]
    return {
        "rows": [
            {"what": what, "before": write(one), "after": write(other)}
            for what, one, other, write in figures
            if one is not None and other is not None
        ],
        "taken_back": found["taken_back"],
        "apart": found["apart"],
        "worse": " and ".join(found["worse"]),
    }


def ranges(measured: Sequence[NodeRange]) -> View:
    """Show the weight ranges before and after."""
    worse = [one.name for one in measured if one.worse]
    drawn = [
        plots.LayerRange(_spread(one.before) if one.before else None, _spread(one.after), one.worse)
        for one in measured
    ]
    return {
        "plot": plots.ranges(drawn, "ranges"),
        "worse": worse,
        "subnormals": sum(one.after.subnormals for one in measured),
        "subnormals_before": sum(one.before.subnormals for one in measured if one.before),
        "rows": [_range(at, one) for at, one in enumerate(measured, start=1)],
    }


def _spread(weight: WeightRange) -> plots.Spread:
    return plots.Spread(weight.live, weight.bits_lost)


def _range(at: int, one: NodeRange) -> View:
    before, extra = one.before, one.extra_bits
    return {
        "place": at,
        "name": one.name,
        "op_type": one.op_type,
        "channels": len(one.after.maxima),
        "before": _extent(before) if before else "merged",
        "after": _extent(one.after),
        "bits_before": f"{before.bits_lost:.2f}" if before else "–",
        "bits_after": f"{one.after.bits_lost:.2f}",
        "change": f"{extra:+.2f}".replace("-", "−") if extra is not None else "–",
        "subnormals": f"{before.subnormals if before else '–'} → {one.after.subnormals}",
        "zeros": f"{before.zeros if before else '–'} → {one.after.zeros}",
        "state": "warn" if one.worse else "",
    }


def _extent(weight: WeightRange) -> str:
    live = weight.live
    return f"{number(live[0])} to {number(live[-1])}" if live else "all zero"


def step(done: Record) -> View:
    """Show what a step after the fold did; of equalisation every layer, of half precision what it kept."""
    details = done["details"]
    layers = details.get("layers", ()) if done["name"] == "equalize" else ()
    half = details if done["name"] == "precision" else {}
    return {
        "sentence": done["sentence"],
        "passed": done["passed"],
        "kept": half.get("kept", ()),
        "out_of_range": [
            {**one, "reach": reach(one), "holds": holds(one), "outcome": outcome(one, half)}
            for one in half.get("out_of_range", ())
        ],
        "layers": [
            {
                "layer": one["layer"],
                "operator": one["operator"],
                "moved": f"{one['moved']:,} of {one['channels']:,}",
                "before": f"{one['bits_before']:.2f}",
                "after": f"{one['bits_after']:.2f}",
                "stopped": held(one["stopped"]) if one["stopped"] else "–",
            }
            for one in layers
        ],
    }
