"""One file a family of rules.

Every module here lists its rules in a tuple `RULES`; a new family is a new file and nothing else. Modules
load nothing when they are imported, so that a check that the cache answers alone starts at once.
"""

from __future__ import annotations

import importlib
import pkgutil

from bnfold.gate.rule import Rule

RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in sorted(
        (
            rule
            for module in pkgutil.iter_modules(__path__)
            for rule in importlib.import_module(f"{__name__}.{module.name}").RULES
        ),
        key=lambda rule: rule.code,
    )
}
"""All rules by code, in its order."""
