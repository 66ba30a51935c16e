"""Rules are found by their codes."""

from __future__ import annotations

import pytest

from bnfold.errors import InputError
from bnfold.report.rules import all_rules, find_rule, find_rules


def test_every_rule_is_there_once_in_the_order_of_codes() -> None:
    codes = [rule.code for rule in all_rules()]
    assert codes == sorted(set(codes))
    assert codes


def test_a_code_is_found_in_either_case() -> None:
    rule = all_rules()[-1]
    assert find_rule(rule.code.lower()) is rule


def test_an_unknown_code_names_the_nearest() -> None:
    rule = all_rules()[0]
    with pytest.raises(InputError, match=f"Did you mean .*{rule.code}"):
        find_rule(rule.code[:-1])


def test_what_is_like_no_code_is_sent_to_the_list() -> None:
    with pytest.raises(InputError) as caught:
        find_rule("xyz")
    assert caught.value.fix == "bnfold explain lists the reasons, bnfold explain --rules the rules."


def test_the_beginning_of_a_code_finds_all_that_begin_so() -> None:
    family = [rule for rule in all_rules() if rule.code.startswith("BN3")]
    assert find_rules("bn3") == family
    assert find_rules("BN301") == [rule for rule in family if rule.code == "BN301"]
    assert {rule.code[:2] for rule in find_rules("m1")} == {"M1"}
    with pytest.raises(InputError):
        find_rules("BN999")
