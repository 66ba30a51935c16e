"""What a person reads of the fate of every site."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnfold.reasons import Rule, Situation
from bnfold.report.terminal import fates
from bnfold.report.terminal.tables import SHOWN
from bnfold.result import Join, Merge, Site
from tests.report.shown import GONE, RULE, STAYS, result, shown, words

CHAIN = Site("scale", "node_9", "Mul+Add", "", "folded", ("conv_8",))


def test_a_folded_site_shows_where_it_went() -> None:
    line = next(line for line in shown(fates.sites(result(GONE))).splitlines() if "net.bn1" in line)
    assert line.split() == ["net.bn1", "folded", "conv_0"]


def test_the_operator_comes_last_and_only_where_there_are_several() -> None:
    assert words(fates.sites(result(GONE))).startswith("site status into, or why it stays net.bn1")
    page = words(fates.sites(result(GONE, CHAIN)))
    assert page.startswith("site status into, or why it stays operator net.bn1 folded conv_0 BatchNorm")
    assert page.endswith("scale folded conv_8 Mul+Add")


def test_a_site_that_stays_shows_code_sentence_remedy_and_scope() -> None:
    page = words(fates.sites(result(STAYS)))
    for part in ("BN999 It stops at node[4].", "Move [it].", "(in body)", "bnfold explain BN999"):
        assert part in page, "brackets in a name are no markup" if "[" in part else part


@pytest.mark.parametrize(
    ("sites", "foreseen", "sentence"),
    [
        ((GONE,), False, "1 of 1 site folded; none stays. 9 nodes before, 8 after."),
        ((GONE, STAYS), True, "1 of 2 sites can be folded; 1 stays. 9 nodes before, 8 after."),
        ((STAYS, STAYS), False, "0 of 2 sites folded; 2 stay."),
        ((GONE, CHAIN), False, "2 of 2 sites folded (1 of 1 BatchNorm); none stays."),
    ],
)
def test_the_summary_counts(sites, foreseen: bool, sentence: str) -> None:
    assert sentence in fates.fold_summary(result(*sites), foreseen=foreseen).plain


def test_a_model_without_batchnorms_says_so() -> None:
    assert words(fates.sites(result())) == ""
    assert not fates.has_table(result())
    assert fates.fold_summary(result()).plain == (
        "This model has no BatchNorm and no per-channel arithmetic to fold. 9 nodes before, 8 after."
    )


@pytest.mark.parametrize(("foreseen", "verb"), [(False, "became"), (True, "can become")])
def test_branches_without_batchnorms_are_something_to_fold(foreseen: bool, verb: str) -> None:
    merged = replace(result(), merges=(Merge("sum", ("conv3", "conv1", "identity"), 90, 81),))
    page = words(fates.sites(merged))
    assert page == "parallel branches became multiply-adds now conv3, conv1, identity sum 90 81"
    assert fates.fold_summary(merged, foreseen=foreseen).plain == (
        f"3 parallel branches {verb} 1 convolution; the model has no BatchNorm. 9 nodes before, 8 after."
    )


@pytest.mark.parametrize(
    ("kinds", "foreseen", "sentence"),
    [
        (("Pad",), False, "1 Pad went into the layer next to it."),
        (("MatMul+Add",), False, "1 MatMul, 1 Add went into the layer next to them."),
        (("Pad", "Conv", "Pad"), True, "2 Pads, 1 Conv can go into the layers next to them."),
    ],
)
def test_what_went_into_the_layers_next_to_it(kinds: tuple[str, ...], foreseen: bool, sentence: str) -> None:
    joins = tuple(Join("layer", ("node",), kind) for kind in kinds)
    said = fates.fold_summary(replace(result(), joins=joins), foreseen=foreseen).plain
    assert f"to fold. {sentence} 9 nodes before, 8 after." in said
    assert "next to" not in fates.fold_summary(result()).plain


def test_branches_that_stay_apart_are_told_without_batchnorms_too() -> None:
    assert "apart: BN999 It stops at sum." in words(fates.sites(replace(result(), apart=(RULE(node="sum"),))))


def test_of_many_only_the_first_are_shown_and_those_that_stay_are_not_pushed_out() -> None:
    gone = [replace(GONE, name=f"gone.{number}") for number in range(SHOWN + 3)]
    stay = [replace(STAYS, name=f"stays.{number}") for number in range(SHOWN + 1)]
    page = words(fates.sites(result(*gone, *stay)))
    for site in (*gone[:SHOWN], *stay[:SHOWN]):
        assert f"{site.name} " in page
    assert not any(f"{site.name} " in page for site in (*gone[SHOWN:], *stay[SHOWN:]))
    assert "… and 1 more site and 3 more folded sites (-v shows them)" in page
    assert f"{SHOWN + 1} sites stay: stays.0, " in page, "the reasons are of all"
    everything = words(fates.sites(result(*gone, *stay), verbose=True))
    assert all(f"{site.name} " in everything for site in (*gone, *stay))
    assert "-v" not in everything


def test_many_merges_and_reasons_are_cut() -> None:
    kinds = [Rule(f"BN9{number:02}", "a title", "It stops.", "Move it.") for number in range(12)]
    stay = [replace(STAYS, name=f"s.{number}", reason=kind()) for number, kind in enumerate(kinds)]
    merged = replace(result(*stay), merges=tuple(Merge(f"m{n}", ("a", "b"), 9, 8) for n in range(SHOWN + 2)))
    page = words(fates.sites(merged))
    assert "BN907 It stops." in page
    assert "BN908 It stops." not in page
    assert "… and 4 more (-v shows them)" in page
    assert "… and 2 more (-v shows them)" in page
    whole = words(fates.sites(merged, verbose=True))
    assert "BN911 It stops." in whole
    assert f"m{SHOWN + 1} 9 8" in whole


MEETS = Rule("BN998", "a title", "{operator} ({node}) is in the way.", "Put {it} elsewhere.")


def test_equal_reasons_are_said_once_with_their_count() -> None:
    names = [f"block.{number}.bn" for number in range(6)]
    stay = [replace(STAYS, name=name, reason=MEETS(operator="Sigmoid", node=name)) for name in names]
    page = words(fates.sites(result(*stay)))
    assert page.count("Put the BatchNorm elsewhere.") == 1
    assert page.count("is in the way.") == 1
    title = "6 sites stay: block.0.bn, block.1.bn, block.2.bn, block.3.bn and 2 more such as block.0.bn: "
    assert f"{title}BN998 Sigmoid (block.0.bn) is in the way." in page
    assert all(f"{name} (in body) kept BN998" in page for name in names), "each is in the table"


def test_reasons_that_differ_in_more_than_names_are_apart_and_the_most_frequent_is_first() -> None:
    sigmoid, tanh = (MEETS(operator=operator, node="n") for operator in ("Sigmoid", "Tanh"))
    other = replace(STAYS, name="other", reason=sigmoid.within(Situation.PREPROCESSING))
    stay = [replace(STAYS, name=name, reason=tanh) for name in ("one", "two")]
    page = words(fates.sites(result(replace(STAYS, reason=sigmoid), other, *stay)))
    assert page.count("is in the way.") == 3
    assert page.index("2 sites stay: one, two such as one: BN998 Tanh") < page.index("BN998 Sigmoid (n)")
    assert "other BN998 Sigmoid (n) is in the way. Put the normalisation of the input elsewhere." in page


def test_both_directions_are_said_and_an_equal_remedy_once() -> None:
    before, after = (
        MEETS(operator=name, node="n").within(Situation.QUANTISED)
        for name in ("DequantizeLinear", "QuantizeLinear")
    )
    page = words(fates.sites(result(replace(STAYS, reason=before, reason_after=after))))
    assert "kept BN998, BN998" in page
    assert (
        "towards its producers: BN998 DequantizeLinear (n) is in the way. "
        "towards its consumers: BN998 QuantizeLinear (n) is in the way. "
        "This model was quantised before its BatchNorms were folded:"
    ) in page
    assert page.count("fold the float model") == 1


def test_branches_that_stay_apart_for_one_reason_are_counted() -> None:
    apart = tuple(RULE(node=f"sum{number}") for number in range(3))
    page = words(fates.sites(replace(result(), apart=apart)))
    assert "apart: 3 times, such as: BN999 It stops at sum0. Move [it]." in page
    assert "sum1" not in page
