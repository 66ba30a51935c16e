"""Targets in the terminal: all of them, one of them, and how far a model is on its way to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from bnfold.pipeline.targeting import Reached, next_commands
from bnfold.report.terminal.tables import headed
from bnfold.targets.form import Form
from bnfold.targets.operators import Operators
from bnfold.targets.profile import Note, Profile, Rule
from bnfold.targets.words import in_words

_SHOWN = {
    "opset": "opset",
    "ir-version": "IR version",
    "sizes": "sizes",
    "type": "types",
    "operators": "operators",
}
"""What is said of a target in a line each, by the kind of its rule."""


def targets(known: Sequence[Profile]) -> RenderableType:
    """List targets by name, what they take, and the day of their newest source."""
    table = headed("target", "what it is", "as of", "also called")
    for one in known:
        others = Text(", ".join(one.aliases))
        table.add_row(Text(one.name, style="bold"), Text(one.title), Text(_newest(one)), others)
    said = f"{len(known)} targets. What one demands: bnfold targets NAME"
    return Group(Text(said), "", table)


def target(profile: Profile) -> RenderableType:
    """Show what a target takes in short, what to type, and each rule with its source."""
    documented: list[Rule | Note] = [*profile.rules, *profile.notes]
    sources = list(dict.fromkeys((one.date, one.source) for one in documented))

    def at(one: Rule | Note) -> str:
        return f"[{sources.index((one.date, one.source)) + 1}]"

    rules = len(profile.rules)
    parts: list[RenderableType] = [
        Text(profile.title, style="bold"),
        *(Text(f"Other names that --target takes: {one}.") for one in [", ".join(profile.aliases)] if one),
        Text(f"{rules} rule{'' if rules == 1 else 's'}, the newest of {_newest(profile)}."),
        "",
        _in_short(profile),
        "",
        Text("What to type:", style="bold"),
        *(Text(f"  {line}") for line in _commands(profile)),
        "",
        Text("Rules, each of which bnfold check --target asks:", style="bold"),
    ]
    for rule in profile.rules:
        parts.append(_line(rule.what, at(rule)))
        if isinstance(rule.limit, Operators):
            parts += [Text(f"    {one}", style="dim") for one in _lists(rule.limit)]
    if profile.notes:
        parts += ["", Text("Documented, and not asked:", style="bold")]
        parts += [_line(note.what, at(note)) for note in profile.notes]
    if profile.unknown:
        parts += ["", Text("Not known:", style="bold"), *(Text(f"  {one}") for one in profile.unknown)]
    parts += ["", Text("Sources:", style="bold")]
    parts += [
        Text(f"  [{number}] {date}, {source}", style="dim", overflow="fold")
        for number, (date, source) in enumerate(sources, 1)
    ]
    return Group(*parts)


def _in_short(profile: Profile) -> RenderableType:
    """What a target takes, a line for each kind of thing."""
    table = headed("It takes", "")
    form = profile.limit(Form)
    table.add_row("files", Text(in_words(form) if form is not None else "ONNX files"))
    for kind, word in _SHOWN.items() if profile.form != "pt2" else ():  # of ONNX files
        said = [in_words(rule.limit) for rule in profile.rules if rule.kind == kind]
        table.add_row(word, Text("; ".join(said) or "no limit is documented"))
    used = sum(rule.kind in ("attribute", "constant", "outputs", "rank") for rule in profile.rules)
    if used:
        table.add_row("", Text(f"{used} rule{'' if used == 1 else 's'} on how they are used, see below"))
    norms = [in_words(rule.limit) for rule in profile.rules if rule.kind == "batchnorm"]
    norms += [note.what.rstrip(".") for note in profile.notes if "BatchNorm" in note.what]
    table.add_row("BatchNorm", Text(norms[0] if norms else "see below"))
    return table


def _commands(profile: Profile) -> tuple[str, ...]:
    """What leads to a target, from a model to its toolchain."""
    if profile.form == "pt2":
        written = Path("out.pt2")
        made = f"bnfold export net.pt --input-shape 1x3x224x224 -o {written} --target {profile.name}"
        return (made, *profile.commands(written))
    written = Path(f"out.{'ort' if profile.form == 'ort' else 'onnx'}")
    return (
        f"bnfold check net.onnx --target {profile.name}",
        f"bnfold export net.onnx -o {written} --target {profile.name}",
        *profile.commands(written),
    )


def _newest(profile: Profile) -> str:
    days = [*(rule.date for rule in profile.rules), *(note.date for note in profile.notes)]
    return f"{max(days)}" if days else ""


def _line(said: str, source: str) -> Text:
    return Text.assemble(f"  {said} ", (source, "dim"))


def _lists(limit: Operators) -> Iterable[str]:
    for said, names in (("Taken", limit.allowed), ("Not taken", limit.refused)):
        if names:
            yield f"{said}: {', '.join(names)}."


def reached(one: Reached, written: Path) -> RenderableType:
    """Show what stands in the way to a target, and what to type next."""
    name = one.profile.name
    parts: list[RenderableType] = []
    if not one:
        parts = [Text(f"In the way to {name}:", style="bold")]
        parts += [Text(f"  {line}") for line in in_the_way(one).splitlines()]
    parts += [Text(f"Next: {line}") for line in next_commands(one, written)]
    return Group("", *parts)


def in_the_way(one: Reached) -> str:
    """What stands in the way to a target, a line each."""
    lines = (f"{found.obstacle.headline}: {found.rule.what}" for found in one.obstacles)
    return "\n".join(" ".join(line.split()) for line in lines)
