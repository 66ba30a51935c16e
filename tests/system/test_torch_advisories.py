"""What is known against versions of torch."""

from __future__ import annotations

import pytest

from bnfold.system.torch_advisories import release, weaknesses


def test_versions_compare_as_numbers() -> None:
    assert release("2.10.0") > release("2.9.1")
    assert release("2.13.0+cpu") == (2, 13, 0)
    assert release("1.20.0.dev1") == (1, 20, 0)
    assert release("nightly") == ()


@pytest.mark.parametrize(
    ("version", "count"), [("2.5.1", 3), ("2.9.0+cu128", 2), ("2.10.0", 1), ("2.11.0", 0)]
)
def test_a_version_falls_under_what_came_after_it(version: str, count: int) -> None:
    assert len(weaknesses(version)) == count
