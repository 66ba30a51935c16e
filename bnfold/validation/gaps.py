"""Finding what a comparison did not see, from what was noted while it ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from bnfold.errors import listed
from bnfold.graph.nodes import captured
from bnfold.inputs import coverage
from bnfold.inputs.coverage import Dimension
from bnfold.inputs.samples import Samples
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import Port, dtype_name
from bnfold.validation.choose_reference import Truth
from bnfold.validation.runners import Runner
from bnfold.validation.unseen import Gap, Ranges, Unseen
from bnfold.validation.watch import Flags, Watch


def collect(
    watch: Watch,
    second: Watch,
    model: ir.Model,
    outputs: Sequence[tuple[Port, str | None]],
    samples: Samples,
    ports: Sequence[Port],
    reference: Truth,
    runners: Sequence[Runner],
    *,
    is_proved: bool,
) -> Unseen:
    """Everything that was not seen.

    Args:
        watch: What was seen of the original.
        second: What was seen of the other model.
        model: The original.
        outputs: Its outputs, each with the float type that it was compared in, None where there is none.
        samples: All inputs.
        ports: What they are drawn for.
        reference: Which of them were compared, and with what.
        runners: What came of it.
        is_proved: Whether values inside were compared in float64 too, each from the true ones before it, so
            that what an output hides is known.
    """
    compared = [samples.feeds[number] for number in reference.chosen]
    rejected = {one.symbol: set(one.rejected) for one in samples.dimensions}
    dimensions = coverage.dimensions(ports, compared, rejected)
    names = [port for port, _ in outputs]
    return Unseen(
        branches=(*branches(watch), *branches(second, known=watch)),
        rows=tuple(rows(watch)),
        zero_channels=tuple(zero_channels(watch)),
        sizes=tuple(sizes(dimensions)),
        integers_only=() if is_proved else tuple(integers_only(model, outputs)),
        undecided_channels=() if is_proved else tuple(undecided_channels(names, runners)),
        not_known=_not_known(reference),
    )


def _not_known(reference: Truth) -> str:
    refused = [number for number in reference.chosen if number in reference.refused]
    if reference.decides and not refused:
        return ""
    where = f" on {len(refused)} of {len(reference.chosen)} inputs" if reference.decides else ""
    return (
        "Which branches ran, which rows of tables were met and which values inside were zero is not known"
        f"{where}, since the original was not evaluated in float64."
    )


def branches(watch: Watch, *, known: Watch | None = None) -> Iterator[Gap]:
    """Branches and bodies that never ran.

    Args:
        watch: What was seen.
        known: The same of the first model, if this is the second: what both have is listed there.
    """
    where = "In the second model, " if known else ""
    for key, one in watch.branches.items():
        if not one.missed or (known and key in known.branches):
            continue
        parts = " and ".join(f"the {name.removesuffix('_branch')}" for name in one.missed)
        what = (
            f"{parts} {'branch' if len(one.missed) == 1 else 'branches'}"
            if one.op_type == "If"
            else "the body"
        )
        sentence = f"{where}{what} of {one.op_type} {one.label!r} never ran."
        yield Gap(one.label, len(one.ran) - len(one.missed), len(one.ran), sentence[0].upper() + sentence[1:])


def rows(watch: Watch) -> Iterator[Gap]:
    """Tables with rows that no index met."""
    for table in watch.tables.values():
        missing = ranges(~table.met)
        if missing:
            seen, total = int(table.met.sum()), table.met.size
            sentence = (
                f"{total - seen} of {total} rows of {table.source!r} (read by {table.label!r}) were met by "
                f"no index: {_text(missing)}."
            )
            yield Gap(table.label, seen, total, sentence, missing)


def zero_channels(watch: Watch) -> Iterator[Gap]:
    """Values with channels that were zero throughout."""
    for value, axis, dead in watch.dead():
        port = value.op_type if value.op_type in ("input", "output") else "value"
        name = f"the {port} {value.name!r}"
        if axis is None:
            yield Gap(value.name, 0, 1, f"T{name[1:]} was zero throughout.")
            continue
        count, total, missing = int(dead.sum()), dead.size, ranges(dead)
        verb, several = ("were", "s") if total > 1 else ("was", "")
        sentence = (
            f"{count} of {total} channel{several} of {name} (axis {axis}) {verb} zero throughout: "
            f"{_text(missing)}."
        )
        yield Gap(value.name, total - count, total, sentence, missing)


def sizes(dimensions: Iterable[Dimension]) -> Iterator[Gap]:
    """Dynamic dimensions at one size, or at sizes of one parity."""
    for one in dimensions:
        if one.gap:
            yield Gap(one.symbol, len(one.sizes), None, one.gap)


def integers_only(model: ir.Model, outputs: Sequence[tuple[Port, str | None]]) -> Iterator[Gap]:
    """Outputs of other types than floats that are computed from floats.

    Args:
        model: The model.
        outputs: Its outputs, each with the float type that it was compared in, None where there is none.
    """
    values = {value.name: value for value in model.graph.outputs}
    for port, kind in outputs:
        if kind is None and port.name in values and _reads_floats(values[port.name]):
            sentence = (
                f"The output {port.name!r} holds {port.type} and comes from floats: a fault in them that "
                "does not change it cannot show."
            )
            yield Gap(port.name, 0, None, sentence)


def undecided_channels(outputs: Sequence[Port], runners: Sequence[Runner]) -> Iterator[Gap]:
    """Channels of outputs that decide little or nothing, each once."""
    found: set[tuple[str, int | None, tuple[int, ...]]] = set()
    for runner in (one for one in runners if not (one.setting.tf32 or one.problem)):
        for port, check in zip(outputs, runner.outputs, strict=True):
            for group, why in check.undecided_groups:
                if (key := (port.name, group.axis, group.members)) not in found:
                    found.add(key)
                    total = next(one.truth.axes[group.axis or 0].size for one in check.measured if one.truth)
                    missing = ranges(np.isin(np.arange(total), group.members))
                    where = f"{group} of the output {port.name!r}"
                    sentence = f"{where[0].upper()}{where[1:]}: {why}."
                    yield Gap(port.name, total - len(group.members), total, sentence, missing)


def ranges(flags: Flags) -> Ranges:
    """The numbers of the flags that are set, as first and last of every run of them."""
    numbers = np.flatnonzero(flags)
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return tuple((int(part[0]), int(part[-1])) for part in np.split(numbers, breaks) if part.size)


def _text(missing: Ranges) -> str:
    return listed([str(first) if first == last else f"{first} to {last}" for first, last in missing])


def _reads_floats(value: ir.Value) -> bool:
    """Whether numbers of a float constant or input reach a value; only sizes of them do not count."""
    pending, seen = [value], {value}
    while pending:
        one = pending.pop()
        producer = one.producer()
        if one.dtype is not None and dtype_name(one.dtype) in UNITS and producer is None:
            return True
        if producer is None or producer.op_type in ("Shape", "Size"):
            continue
        reads = {before for before in (*producer.inputs, *captured(producer)) if before is not None}
        pending.extend(reads - seen)
        seen |= reads
    return False
