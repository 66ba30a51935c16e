"""The parts of SARIF 2.1.0 that bnfold writes, as a JSON schema.

Written from the standard, whose sections are named here; what bnfold does not write is refused, so that a new
property is looked up there first. https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def _list(items: Schema, *, distinct: bool = False) -> Schema:
    return {"type": "array", "items": items, "uniqueItems": distinct}


_TEXT: Schema = {"type": "string", "minLength": 1}
_SIGNS = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]"  # RFC 3986
_URI: Schema = {"type": "string", "pattern": rf"^(?:{_SIGNS}|%[0-9A-Fa-f]{{2}})*$"}
_LEVEL: Schema = {"enum": ["none", "note", "warning", "error"]}  # 3.27.10
_MESSAGE = _object(("text",), text=_TEXT)  # 3.11, and 3.12 for rules
_RULE = _object(  # 3.49
    ("id",),
    id=_TEXT,
    name=_TEXT,
    shortDescription=_MESSAGE,
    fullDescription=_MESSAGE,
    help=_MESSAGE,
    defaultConfiguration=_object((), enabled={"type": "boolean"}, level=_LEVEL),  # 3.50
)
_PHYSICAL = _object(  # 3.29
    ("artifactLocation",),
    artifactLocation=_object(("uri",), uri=_URI),  # 3.4
    region=_object(("startLine",), startLine={"type": "integer", "minimum": 1}),  # 3.30
)
_LOCATION = _object(  # 3.28
    ("physicalLocation",),
    physicalLocation=_PHYSICAL,
    logicalLocations=_list(_object((), fullyQualifiedName=_TEXT), distinct=True),  # 3.33
)
_RESULT = _object(  # 3.27
    ("message",),
    ruleId=_TEXT,
    ruleIndex={"type": "integer", "minimum": -1},
    level=_LEVEL,
    message=_MESSAGE,
    locations=_list(_LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": _TEXT},  # 3.27.17
)
_DRIVER = _object(("name",), name=_TEXT, version=_TEXT, rules=_list(_RULE, distinct=True))  # 3.19
_RUN = _object(("tool",), tool=_object(("driver",), driver=_DRIVER), results=_list(_RESULT))  # 3.14, 3.18
SARIF = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(  # 3.13
        ("version", "runs"),
        **{"$schema": {"type": "string", "format": "uri"}},
        version={"const": "2.1.0"},
        runs=_list(_RUN),
    ),
}
