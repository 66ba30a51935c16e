"""What a rule finds in a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

Severity: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, order=True)
class Found:
    """What a rule answers.

    Attributes:
        one: What was found, as a sentence without a full stop; about a single site where it names sites.
        many: The same about several sites, with `{}` for how many; empty where there are none.
        sites: The nodes, tensors, inputs or files that it is about, in order; empty for the model as a whole.
        nodes: How many nodes the model has, and would have without what was found; None where not known.
    """

    one: str
    many: str = ""
    sites: tuple[str, ...] = ()
    nodes: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def headline(self) -> str:
        """What was found, with the number of sites if there are several."""
        return self.many.format(len(self.sites)) if len(self.sites) > 1 else self.one


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is not as it should be in one file.

    Attributes:
        path: The file as it is named in reports, with forward slashes.
        code: Of the rule, as `"M101"`.
        found: What the rule answered. Path, code and sites say whether a finding is an accepted one.
        severity: How bad it is.
        fixable: Whether `bnfold check --fix` mends it.
    """

    path: str
    code: str
    found: Found
    severity: Severity = "warning"
    fixable: bool = False

    @property
    def sites(self) -> tuple[str, ...]:
        """What it is about; an empty text for the model as a whole."""
        return self.found.sites or ("",)

    def of(self, sites: Iterable[str]) -> Finding:
        """The same finding about some of its sites only."""
        return replace(self, found=replace(self.found, sites=tuple(filter(None, sites))))

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> Finding:
        """The finding of which `plain` made these values.

        Raises:
            KeyError: One is missing.
            TypeError: They are not of a finding.
            ValueError: They are not of a finding either.
        """
        found = dict(values["found"])
        nodes = found["nodes"] and tuple(found["nodes"])
        made = Found(**{**found, "sites": tuple(found["sites"]), "nodes": nodes})
        texts = (values["path"], values["code"], made.one, made.many, *made.sites)
        counts = () if made.nodes is None else made.nodes
        if not all(isinstance(text, str) for text in texts) or values["severity"] not in get_args(Severity):
            raise TypeError
        if len(counts) not in (0, 2) or not all(isinstance(count, int) for count in counts):
            raise TypeError
        return cls(**{**values, "found": made})
