"""A target as data: a TOML file with its rules, what else is known of it, and what is not."""

from __future__ import annotations

import datetime
import difflib
import functools
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bnfold.errors import InputError, reason
from bnfold.runtime.interface import Port
from bnfold.targets.attributes import Attribute
from bnfold.targets.batchnorm import BatchNorm
from bnfold.targets.constants import PlainConstants
from bnfold.targets.form import Form
from bnfold.targets.inputs import Constant, Outputs, Rank
from bnfold.targets.operators import Operators
from bnfold.targets.sizes import Sizes
from bnfold.targets.types import Types
from bnfold.targets.versions import IrVersion, Opset

Limit: TypeAlias = (
    Attribute
    | BatchNorm
    | Constant
    | Form
    | IrVersion
    | Operators
    | Opset
    | Outputs
    | PlainConstants
    | Rank
    | Sizes
    | Types
)
KINDS: dict[str, type[Limit]] = {
    "form": Form,
    "opset": Opset,
    "ir-version": IrVersion,
    "sizes": Sizes,
    "operators": Operators,
    "attribute": Attribute,
    "constant": Constant,
    "plain-constants": PlainConstants,
    "outputs": Outputs,
    "rank": Rank,
    "type": Types,
    "batchnorm": BatchNorm,
}
"""The kinds of rules by the name that a profile gives them."""
_SUFFIX = ".toml"
_PLAIN = re.compile(r"[\w@%+=:,./\[\]…-]+")  # what a shell and Python read as it stands


@dataclass(frozen=True)
class Rule:
    """One thing that a target demands.

    Attributes:
        kind: The name of its kind in `KINDS`.
        what: It as a sentence.
        limit: It as numbers and names, which is what models are held against.
        source: Where it is documented.
        date: The day of that page's state, or the day on which it was read.
    """

    kind: str
    what: str
    limit: Limit
    source: str
    date: datetime.date


@dataclass(frozen=True)
class Note:
    """What is worth knowing of a target, and is not checked: as a sentence, with source and date.

    Attributes:
        what: The sentence.
        source: As of a rule.
        date: As of a rule.
        quantizes: Whether it says that the toolchain quantises float files itself, so that an export should
            not do it before.
    """

    what: str
    source: str
    date: datetime.date
    quantizes: bool = False

    @property
    def kind(self) -> str:
        """What it is next to the kinds of rules, in a report of what stands in the way."""
        return "note"


@dataclass(frozen=True)
class Profile:
    """A target.

    Attributes:
        name: What `--target` takes.
        title: Its name in full.
        next: The next commands of its toolchain, with `{model}` for the file.
        next_for: The same for files of other kinds that it reads, by their suffix without the dot.
        rules: What it demands.
        notes: What else is documented of it.
        unknown: What its public documentation does not say, as sentences.
        aliases: What else `--target` takes for it, in lower case.
    """

    name: str
    title: str
    next: tuple[str, ...]
    rules: tuple[Rule, ...]
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()
    next_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def limit(self, kind: type[Limit]) -> Limit | None:
        """The first limit of a kind; None where the target has none."""
        return next((rule.limit for rule in self.rules if isinstance(rule.limit, kind)), None)

    @property
    def form(self) -> str:
        """The kind of file that is written for it: `"onnx"`, `"ort"` or `"pt2"`."""
        limit = self.limit(Form)
        return limit.reads[0] if isinstance(limit, Form) else "onnx"

    def commands(self, model: Path, inputs: Sequence[Port] = ()) -> tuple[str, ...]:
        """The next commands of the toolchain for a file.

        Args:
            model: The file.
            inputs: Those of the model, whose sizes some commands name; open ones are 1 there.

        Returns:
            The commands as one types them. A name that a shell or Python would read as more than a name is
            left as `{model}`, for the user to write.
        """
        sizes = {port.name: _sizes(port) for port in inputs} or {"": "…"}
        filled = {
            "{model}": str(model),
            "{stem}": model.with_suffix("").name,
            "{shape}": next(iter(sizes.values())),
            "{shapes}": ",".join(f"[{one}]" for one in sizes.values()),
            "{named_shapes}": ",".join(f"{name}[{one}]" for name, one in sizes.items()),
        }
        plain = {place: value for place, value in filled.items() if _PLAIN.fullmatch(value)}
        fill = functools.partial(re.sub, r"\{\w+\}", lambda match: plain.get(match[0], match[0]))
        return tuple(map(fill, self.next_for.get(model.suffix.lower().removeprefix("."), self.next)))


def _sizes(port: Port) -> str:
    return ",".join(str(size) if isinstance(size, int) else "1" for size in port.shape or ())


def names() -> tuple[str, ...]:
    """The targets that come with bnfold, in the order of their names."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _files()))


def load(name: str) -> Profile:
    """A target by its name or an alias, in any case, or the one in a TOML file.

    Raises:
        InputError: There is none of this name, or the file is not a profile.
    """
    if name.endswith(_SUFFIX):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name} cannot be read: {reason(error)}.", "Check its path.") from error
        return _profile(path.name.removesuffix(_SUFFIX), text, name)
    known = names()
    written = re.sub(r"[ _]+", "-", name.strip().lower())
    if written in known:
        return _built_in(written)
    called = {alias: one for one in known for alias in _built_in(one).aliases}
    if written not in called:
        near = difflib.get_close_matches(written, [*known, *called], 1, 0.5)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(
            f"{name!r} is not a target.", f"{hint}bnfold targets lists them; a TOML file of your own is one."
        )
    return _built_in(called[written])


@cache
def _built_in(name: str) -> Profile:
    [file] = [file for file in _files() if file.name == f"{name}{_SUFFIX}"]
    return _profile(name, file.read_text(encoding="utf-8"), name)


def _files() -> Iterator[Any]:
    folder = resources.files(__package__) / "profiles"
    return (file for file in folder.iterdir() if file.name.endswith(_SUFFIX))


def _profile(name: str, text: str, place: str) -> Profile:
    try:
        table = tomllib.loads(text)
        if not isinstance(table["title"], str):
            raise ValueError(f"the title {table['title']!r} is not a text")
        rules = tuple(_rule(one) for one in table.pop("rules", ()))
        notes = tuple(Note(**_dated(one)) for one in table.pop("notes", ()))
        following, unknown = (tuple(map(str, table.pop(key, ()))) for key in ("next", "unknown"))
        aliases = tuple(map(str, table.pop("aliases", ())))
        others = {kind: tuple(map(str, lines)) for kind, lines in table.pop("next_for", {}).items()}
        return Profile(
            **table,
            name=name,
            next=following,
            rules=rules,
            notes=notes,
            unknown=unknown,
            next_for=others,
            aliases=aliases,
        )
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{place} is not a profile of a target: {problem}.", "docs/targets.md says what one holds."
        ) from error


def _rule(table: Mapping[str, Any]) -> Rule:
    given = dict(table)
    kind = given["kind"]
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of rule; known are {', '.join(KINDS)}")
    limit = {key: tuple(one) if isinstance(one, list) else one for key, one in given.pop("limit").items()}
    made: Any = KINDS[kind]
    known = typing.get_type_hints(made)
    for key, value in limit.items():
        if key not in known:
            raise ValueError(f"a rule of kind {kind!r} has no {key!r}; known are {', '.join(known)}")
        if not _is_a(value, known[key]):
            raise ValueError(f"{key!r} of a rule of kind {kind!r} cannot be {value!r}")
    return Rule(limit=made(**limit), **_dated(given))


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type, of those that limits have."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(one, inner[0]) for one in value)
    if origin is Literal:
        return value in inner
    if inner:  # a union
        return any(_is_a(value, one) for one in inner)
    return type(value) is kind or (kind is float and type(value) is int)


def _dated(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table, if its date is one, its source an address, and a note's flag true or false.

    Raises:
        ValueError: One of them is not.
    """
    if type(table["date"]) is not datetime.date:
        raise ValueError(f"the date {table['date']!r} has to be as in 2026-11-28")
    if type(table.get("quantizes", False)) is not bool:
        raise ValueError(f"quantizes has to be true or false, and not {table['quantizes']!r}")
    if not str(table["source"]).startswith("https://"):
        raise ValueError(f"the source {table['source']!r} is not an address")
    return dict(table)
