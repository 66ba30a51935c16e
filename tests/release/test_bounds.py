"""The lower bounds of pyproject.toml are those that `make lowest` tests; the Makefile names what it makes."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.docs.workplace import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TESTED = re.findall(r"--extra (\w+)", MAKEFILE)
WANTED = [
    *PROJECT["dependencies"],
    *(one for extra in TESTED for one in PROJECT["optional-dependencies"][extra]),
]


def test_the_extras_that_run_models_and_write_reports_are_tested() -> None:
    assert set(TESTED) == {"ci", "cpu", "images", "report"}


@pytest.mark.parametrize("text", WANTED)
def test_the_lowest_version_that_is_accepted_is_the_one_that_is_tested(text: str) -> None:
    wanted = Requirement(text)
    (bound,) = [Version(one.version) for one in wanted.specifier if one.operator == ">="]
    pins = re.findall(
        rf"^{re.escape(wanted.name)}==([\d.]+)", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE
    )
    assert min(map(Version, pins)) == bound, "type: make lowest"


def test_the_help_of_make_names_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    named = re.findall(r"^# make (\w+)", MAKEFILE, re.MULTILINE)
    assert sorted(named) == sorted(set(targets.split()) - {"help"})


def test_every_test_that_make_lowest_runs_is_there() -> None:
    (listed,) = re.findall(r"^LOWEST := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    missing = [path for path in listed.replace("\\\n", " ").split() if not (ROOT / path).exists()]
    assert not missing
