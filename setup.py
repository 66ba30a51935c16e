"""The page of a package index: README.md with links that lead somewhere there.

All else about the package is in pyproject.toml. In the repository README.md links to its neighbours; on a
page of an index such links are dead. They become absolute if pyproject.toml knows where the source is
(`Source` of `[project.urls]`), and text without a link if not.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent


def page(text: str, source: str = "", version: str = "main") -> str:
    """README.md for a package index.

    Args:
        text: Of README.md.
        source: Address of the repository; links are dropped if it is empty.
        version: The tag or branch that links lead to.
    """

    def mended(found: re.Match[str]) -> str:
        words, target = found.groups()
        if source:
            return f"[{words}]({source.rstrip('/')}/blob/{version}/{target})"
        return words

    return re.sub(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)", mended, text)


if __name__ == "__main__":  # so it is when a package is built
    from setuptools import setup

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.search(r'__version__ = "(.+)"', (ROOT / "bnfold" / "_version.py").read_text(encoding="utf-8"))
    setup(
        long_description=page(
            (ROOT / "README.md").read_text(encoding="utf-8"),
            project.get("urls", {}).get("Source", ""),
            f"v{found[1]}" if found else "main",
        ),
        long_description_content_type="text/markdown",
    )
