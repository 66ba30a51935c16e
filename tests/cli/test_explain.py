"""`bnfold explain` gives the rules as they are written."""

from __future__ import annotations

import json
import re

import pytest

from bnfold.reasons import RULES
from bnfold.report.reason_examples import EXAMPLES
from bnfold.report.rules import all_rules, check_rules


def test_one_rule_is_shown_whole(run) -> None:
    rule = all_rules()[0]
    result = run("explain", rule.code.lower())
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert f"{rule.code} {rule.title}" in words
    assert " ".join(rule.remedy.split()) in words


def test_without_a_code_every_rule_is_listed(run) -> None:
    result = run("explain")
    assert [line.split()[0] for line in result.stdout.splitlines() if line.startswith("BN")] == [
        rule.code for rule in all_rules()
    ]


def test_an_unknown_code_suggests_the_nearest(run) -> None:
    code = all_rules()[0].code
    result = run("explain", code + "0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Did you mean {code}" in result.stderr


def test_the_json_holds_every_rule(run) -> None:
    report = json.loads(run("explain", "--json", "-").stdout)
    assert [rule["code"] for rule in report["rules"]] == [rule.code for rule in all_rules()]


def test_markdown_and_json_do_not_share_standard_output(run, tmp_path) -> None:
    result = run("explain", "--markdown", "--json", "-")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("bnfold: --markdown and --json - both use standard output")
    assert run("explain", "--markdown", "--json", tmp_path / "r.json").stdout.startswith("#")


def test_quiet_markdown_prints_nothing(run) -> None:
    result = run("explain", "--markdown", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize("rule", [*all_rules(), *check_rules()], ids=lambda rule: rule.code)
def test_an_explanation_has_no_place_that_is_not_filled_in(run, rule) -> None:
    shown = run("explain", rule.code).stdout
    assert "{" not in shown
    assert ("For example: " in shown) == (rule.code in RULES)


def test_the_pages_have_none_either(run) -> None:
    for arguments in (["--markdown"], ["--rules", "--markdown"], [], ["--rules"]):
        assert "{" not in run("explain", *arguments).stdout


def test_an_example_has_the_facts_of_its_sentence_and_no_others() -> None:
    places = {code: set(re.findall(r"\{(\w+)\}", rule.sentence)) for code, rule in RULES.items()}
    assert {code: set(facts) for code, facts in EXAMPLES.items()} == places
