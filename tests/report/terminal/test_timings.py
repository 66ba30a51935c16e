"""Several numbers of threads have a column, and the answer is that of the first."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
from rich.console import Console, RenderableType

from bnfold.latency.results import Benchmark, Row
from bnfold.pipeline.narrow import Narrowed
from bnfold.report import json as report
from bnfold.report.terminal import headline, timings
from tests.report.test_json import SCHEMA, closed

DEFAULT = Row("default", 50, 3, 1.5, 1.6, 1.0, 1.1, 1.5, 1.4, 1.6, loads=8, pinned=8, stopped_early=True)
OFF = replace(DEFAULT, optimizer="off")
SLOW = replace(DEFAULT, folded_ms=3.0, ratio=0.5, low=0.45, high=0.55, threads=4)
SEVERAL = Benchmark(
    "cpu", 1, 0, {"x": (1, 3)}, (DEFAULT, OFF, replace(DEFAULT, threads=4), replace(OFF, threads=4))
)


def lines(shown: RenderableType) -> list[str]:
    """What a wide terminal shows, with single spaces."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(shown)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_several_numbers_of_threads_have_a_column() -> None:
    page = lines(timings.benchmark(SEVERAL))
    assert page[0] == "Latency on cpu, x 1×3; times in ms"
    assert page[1].startswith("threads optimizer verdict original / folded")
    assert [line.split()[:2] for line in page[2:6]] == [
        ["1", "default"], ["1", "off"], ["4", "default"], ["4", "off"]
    ]  # fmt: skip
    assert page[7].startswith("threads optimizer original p50")
    assert [line.split()[:2] for line in page[8:12]] == [line.split()[:2] for line in page[2:6]]
    assert page[-1] == "The timing ended early, since the answer was clear; --seconds N takes N seconds."


def test_a_model_with_fewer_bits_is_not_called_the_folded_one() -> None:
    less = Narrowed("int8", "8 bits.", 40.0)
    for benchmark in (replace(SEVERAL, rows=(DEFAULT, OFF)), replace(SEVERAL, rows=(SLOW,))):
        shown = [timings.benchmark(benchmark, less), *headline.of_benchmark(benchmark, less)]
        text = "\n".join(
            line for part in (*shown, *headline.slower([benchmark], less)) for line in lines(part)
        )
        assert "the int8 model" in text
        assert "the folded model" not in text


def test_one_number_has_none() -> None:
    page = lines(timings.benchmark(replace(SEVERAL, rows=SEVERAL.rows[:2])))
    assert page[0] == "Latency on cpu, 1 thread, x 1×3; times in ms"
    assert not any("threads" in line for line in page)


def test_the_answer_is_that_of_the_first_and_slower_is_said_of_any() -> None:
    faster = "On cpu, 1 thread: the folded model is 1.50 times as fast (1.40 to 1.60)."
    assert [line.plain for line in headline.of_benchmark(SEVERAL)] == [faster]
    slow = replace(SEVERAL, rows=(DEFAULT, OFF, SLOW, replace(SLOW, optimizer="off")))
    (first,) = headline.slower([slow])
    assert (
        first.plain == "Slower: the folded model takes 2.00 times as long (1.82 to 2.22) on cpu, 4 threads."
    )
    assert [line.plain for line in headline.of_benchmark(slow)] == [faster]
    turned = replace(slow, threads=4, rows=(*slow.rows[2:], *slow.rows[:2]))
    assert headline.of_benchmark(turned) == []
    alone = replace(slow, threads=4, rows=slow.rows[2:])
    assert headline.of_benchmark(alone) == []


def test_the_report_has_the_threads_of_every_row_and_whether_it_ended_early() -> None:
    recorded = report.benchmark_record(SEVERAL)
    schema = closed({**SCHEMA["$defs"]["benchmark"], "$defs": SCHEMA["$defs"]})
    jsonschema.Draft202012Validator(schema).validate(recorded)
    assert [(row["threads"], row["stopped_early"]) for row in recorded["rows"]] == [(1, True)] * 2 + [
        (4, True)
    ] * 2
