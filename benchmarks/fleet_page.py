"""What `benchmarks.fleet` measured, as text for docs/fleet.md."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import fleet_models
from benchmarks.page import markdown_table, today

Row = dict[str, Any]

MARKS = ("<!-- the figures begin -->", "<!-- the figures end -->")
_WIDTH = 120
_LINE = 125e6  # bytes a second that a worker on paper can fetch: 1 Gbit/s
_COUNT, _WORKERS = 100_000, 50  # of the fleet on paper


def section(rows: Mapping[str, Row]) -> str:
    """The figures; parts that were not measured are left out.

    Raises:
        ValueError: They are not all of one state of the code.
    """
    if len(codes := {row["code"] for row in rows.values()}) > 1:
        raise ValueError(f"the figures are of several states of the code: {', '.join(sorted(codes))}")
    parts = {
        "engines": _engines,
        "chaos": _chaos,
        "loop": _loop,
        "growth": _growth,
        "memory": _memory,
        "s3": _s3,
        "ray": _ray,
        "large": _large,  # after engines, whose figures it uses
    }
    texts = [
        f"""By `python -m benchmarks.fleet all` on two cores, on {today()}, all on one state of the code.
        Times are those of the processors.""",
        *(text for part, write in parts.items() if _has(rows, part) for text in write(rows)),
    ]
    return "\n\n".join(text if text.startswith("| ") else _wrapped(text) for text in texts)


def _has(rows: Mapping[str, Row], part: str) -> bool:
    return part in rows and (part != "large" or "engines" in rows)


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(markdown_table(header, rows))


def _each(run: Row) -> tuple[float, float]:
    """Milliseconds of processor time for a model: of workers with its process, and of the coordinator."""
    workers, own = run["workers_processor_seconds"], run["coordinator_processor_seconds"]
    return 1000 * workers / run["done"], 1000 * own / run["done"]


def _engines(rows: Mapping[str, Row]) -> list[str]:
    row = rows["engines"]
    states = ", ".join(f"{number:,} {state}" for state, number in row["states"].items())
    table = [(engine, *(f"{value:.0f} ms" for value in _each(run))) for engine, run in row["runs"].items()]
    return [
        f"""**Equal reports.** `fold` of {row["runs"]["local"]["models"]:,} generated models of 10 kB to
        {row["largest"] / 1e6:.0f} MB, most of them small. One in {fleet_models.BROKEN} is broken, one in
        {fleet_models.SLOW} sleeps beyond the limit on time, one in {fleet_models.KILLING} kills its
        process; the last two are planted. They end as {states}. Two local processes and a Dask
        LocalCluster of two workers give the same results and the same report, but for what was
        measured.""",
        _table(("engine", "workers, a model", "coordinator, a model"), table),
    ]


def _chaos(rows: Mapping[str, Row]) -> list[str]:
    names = {
        "engine": "engine",
        "models": "models",
        "workers killed": "workers_killed",
        "coordinators killed": "coordinators_killed",
        "further resumes": "further_resumes",
        "missing": "missing",
        "twice": "twice",
        "different": "different",
    }
    runs = [rows[name] for name in ("chaos", "chaos-dask") if name in rows]
    return [
        """**Nothing lost, nothing twice.** The same with a worker killed at random every 3 to 10
        seconds and the coordinator killed twice, against the undisturbed run. A model whose workers
        were killed five times is `lost`, and another `--resume` asks it again, under the same fire.""",
        _table(tuple(names), [tuple(f"{run[key]}" for key in names.values()) for run in runs]),
    ]


def _loop(rows: Mapping[str, Row]) -> list[str]:
    row = rows["loop"]
    return [
        f"""**Throughput.** A shell loop of `bnfold check` takes {row["loop_processor_seconds"]:.2f} s
        for a model of under 1 kB, `bnfold fleet check` {row["fleet_processor_seconds"]:.3f} s with
        all that it starts: the same cores do **{row["times"]:.0f} times** as many models."""
    ]


def _growth(rows: Mapping[str, Row]) -> list[str]:
    table = [
        (
            f"{run['done']:,}",
            *(f"{value:.1f} ms" for value in _each(run)),
            f"{run['listing_seconds']:.1f} s",
        )
        for run in rows["growth"]["runs"].values()
    ]
    header = ("models", "workers, a model", "coordinator, a model", "listing (wall clock)")
    return ["**Growth.** `fold` of models of under 1 kB, with two local processes:", _table(header, table)]


def _memory(rows: Mapping[str, Row]) -> list[str]:
    runs = list(rows["memory"]["runs"].values())
    table = [(f"{run['done']:,}", f"{run['coordinator_bytes'] / 1e6:.0f} MB") for run in runs]
    return [
        f"""**Memory of the coordinator.** The list of models is in a temporary file, and every result is
        forgotten when it has been added up: from {runs[-2]["done"]:,} models to {runs[-1]["done"]:,} it
        grows by {_growing(runs):.2f} kB a model. The unit of work does nothing here, since the
        coordinator does not see what it does.""",
        _table(("models", "coordinator's memory"), table),
    ]


def _growing(runs: list[Row]) -> float:
    """By how many kilobytes a model the coordinator grows, between the two largest fleets."""
    before, after = runs[-2:]
    return float(
        (after["coordinator_bytes"] - before["coordinator_bytes"]) / (after["done"] - before["done"]) / 1e3
    )


def _s3(rows: Mapping[str, Row]) -> list[str]:
    row = rows["s3"]
    return [
        f"""**An object store.** {row["models"]} models in moto's S3 server on the loopback, through
        s3fs. The coordinator was killed; the next one left out the {row["known"]} models that had a
        result, and in the end there were {row["outputs"]} folded files and a line for each model.
        Neither the key nor the secret is in anything that was written."""
    ]


def _ray(rows: Mapping[str, Row]) -> list[str]:
    done = rows["ray"]["runs"]["ray"]["done"]
    return [f"**Ray.** {done} models have the same results as from two local processes."]


def _large(rows: Mapping[str, Row]) -> list[str]:
    """On paper: what cannot be measured on two cores, from what was."""
    row = rows["large"]
    fetch = row["bytes"] / _LINE
    own = _each(rows["engines"]["runs"]["dask"])[1] / 1000
    table, rate = [], 0.0
    for command, moved in (("check", 1), ("fold", 2), ("export", 2)):
        process = row[command]["processor_seconds"]
        rate = max(rate, _WORKERS / (process + moved * fetch))
        hours = (process + moved * fetch) * _COUNT / _WORKERS / 3600
        table.append(
            (
                f"`{command}`",
                f"{moved * _COUNT * row['bytes'] / 1e12:.0f} TB",
                f"{moved * fetch:.1f} s",
                f"{process:.1f} s",
                f"{row[command]['memory'] / 1e6:,.0f} MB",
                f"{hours:.1f} h",
            )
        )
    header = ("", "bytes moved", "network, a model", "process, a model", "its memory", "whole fleet")
    return [
        f"""**On paper: {_COUNT:,} models of {row["bytes"] / 1e6:.0f} MB on {_WORKERS} workers.** Each
        worker has a core and 1 Gbit/s; what a process takes was measured on one such model, whose
        arithmetic is small: `export` runs every model a few times.""",
        _table(header, table),
        f"""Network and processor share the time, so that two workers a core are worth having. The store
        has to deliver up to {_WORKERS * _LINE / 1e9:.2g} GB/s, which is the bottleneck to ask about first.
        The coordinator starts at most {rate:.0f} models a second, of the {1 / own:.0f} that it can with
        Dask (above); with `--shard` there are several. It lists {_COUNT:,} models in 100 requests and
        reads {_COUNT:,} results of 1 to 2 kB at the end, 32 at a time: at 30 ms a request, a minute and a
        half. `--resume` needs some 260 requests to know what is done, since the
        names of results say so.""",
    ]
