"""Targets as Markdown and JSON: what is known of one, from its profile."""

from __future__ import annotations

from pathlib import Path

from bnfold.pipeline.targeting import Reached, next_commands
from bnfold.report.record import Json, plain
from bnfold.targets.operators import Operators
from bnfold.targets.profile import Note, Profile, Rule
from bnfold.targets.words import in_words

_BEGIN = "<!-- made by: bnfold targets {name} --markdown -->"
_END = "<!-- until here -->"


def facts(profile: Profile) -> str:
    """What a profile demands, says, and does not know, each with source and date."""
    lines = [_BEGIN.format(name=profile.name), ""]
    if profile.aliases:
        lines += [f"Other names that `--target` takes: {_escaped(', '.join(profile.aliases))}.", ""]
    lines += [*_rules(profile), *_operators(profile)]
    if profile.notes:
        lines += ["Not checked, but documented:", ""]
        lines += [f"- {_escaped(note.what)} {_source(note)}" for note in profile.notes]
        lines.append("")
    if profile.unknown:
        lines += ["Not known:", "", *(f"- {_escaped(one)}" for one in profile.unknown), ""]
    return "\n".join([*lines, _END]) + "\n"


def reached_record(one: Reached, written: Path | None) -> Json:
    """Report how far a model is on its way to a target."""
    return {
        "name": one.profile.name,
        "obstacles": [
            {
                "kind": broken.rule.kind,
                "what": broken.obstacle.headline,
                "sites": list(broken.obstacle.sites),
                "rule": broken.rule.what,
                "source": broken.rule.source,
            }
            for broken in one.obstacles
        ],
        "next": [] if written is None else list(next_commands(one, written)),
    }


def target_record(profile: Profile) -> Json:
    """Report what a target demands."""
    return {
        **plain({"name": profile.name, "title": profile.title, "next": profile.next}),
        "aliases": list(profile.aliases),
        "rules": [{**plain(vars(rule)), "date": f"{rule.date}"} for rule in profile.rules],
        "notes": [{**plain(vars(note)), "date": f"{note.date}"} for note in profile.notes],
        "unknown": list(profile.unknown),
    }


def _rules(profile: Profile) -> list[str]:
    rows = [
        f"| {_escaped(rule.what)} | {_escaped(in_words(rule.limit))} | {rule.kind} | {_source(rule)} |"
        for rule in profile.rules
    ]
    return ["| what it demands | limit | kind | source |", "|---|---|---|---|", *rows, ""]


def _operators(profile: Profile) -> list[str]:
    lists = []
    for limit in (rule.limit for rule in profile.rules):
        if isinstance(limit, Operators):
            lists += [
                ("Operators that are taken", limit.allowed),
                ("Operators that are not taken", limit.refused),
            ]
    return [line for words, names in lists if names for line in (f"{words}: {', '.join(names)}.", "")]


def _source(one: Rule | Note) -> str:
    return f"[{one.date}]({one.source})"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
