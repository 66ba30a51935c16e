"""What stands first on the page: whether the models agree, or which is faster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnfold.pipeline.narrow import narrowed
from bnfold.pipeline.steps import Done
from bnfold.report.page.words import count, number, place, provider

View = dict[str, Any]
Record = Mapping[str, Any]


def of_export(record: Record) -> View:
    """Say whether the models agree; where numbers have fewer bits after, before that, and what it cost.

    Args:
        record: The JSON document of an export.
    """
    view = of_validation(record["validation"])
    less = narrowed([Done(**one) for one in record.get("steps", ())])
    if less is None:
        return view
    view["details"] = [less.sentence, *view["details"]]
    if view["state"] in ("good", "warn") and less.passed:
        is_number = less.decibels is not None and math.isfinite(less.decibels)
        noise = f"; {less.decibels:.1f} dB signal to noise after it" if is_number else ""
        before = f"{less.before[0].lower()}{less.before[1:].rstrip(', ')}"
        view["heading"] = f"{view['heading']} {before}{noise}"
    if view["state"] == "good" and not less.is_good:
        view["state"] = "warn"
    return view


def of_validation(validation: Record | None) -> View:
    """Say whether the models agree, on what, and what is wrong; None where they were not compared."""
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


def of_replay(record: Record) -> View:
    """Say whether an earlier report still holds, what its models do now, and what has changed.

    Args:
        record: The JSON document of a replay.
    """
    view = of_validation(record["validation"])
    sentence = f"{view['heading']}. {view['sentence']}"
    if record["validation"] is None:
        sentence = "The models were not compared again, since their files or their inputs have changed."
    state = "bad" if not record["holds"] else "warn" if view["state"] == "bad" else view["state"]
    holds = "still holds" if record["holds"] else "does not hold any more"
    return {
        "state": state,
        "heading": f"What the report says {holds}",
        "sentence": sentence,
        "details": [*record["changes"], *(view["details"] if record["validation"] else ())],
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


_OF_SPEED = {
    "slower": ("bad", "Slower"),
    "too noisy to say": ("warn", "Too noisy to say"),
    "no measurable difference": ("none", "No measurable difference"),
    "faster": ("good", "Faster"),
}
"""How a verdict on latency is marked and named; the one that counts most is first."""


def of_benchmarks(benchmarks: Sequence[Record]) -> View:
    """Say whether the second model is faster where it runs as it will be used, at ONNX Runtime's default."""
    rows = [
        (benchmark, row)
        for benchmark in benchmarks
        for row in benchmark["rows"]
        if row["optimizer"] == "default"
    ]
    verdicts = {row["verdict"] for _, row in rows}
    state, heading = next(shown for verdict, shown in _OF_SPEED.items() if verdict in verdicts)
    where = list(dict.fromkeys(provider(benchmark["provider"]) for benchmark, _ in rows))
    sentences = [one["sentence"] for one in benchmarks]
    return {
        "state": state,
        "heading": f"{heading} on {' and '.join(where)}" if len(verdicts) == 1 else f"{heading} in part",
        "sentence": sentences[0],
        "details": sentences[1:],
    }
