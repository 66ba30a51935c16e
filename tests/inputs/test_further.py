"""Further inputs are aimed at what others left out, and are the same for the same seed."""

from __future__ import annotations

import numpy as np

from bnfold.inputs.further import Aims, Further
from bnfold.inputs.sizes import Sizing
from bnfold.inputs.uses import Use
from bnfold.inputs.values import FURTHER_KINDS, KINDS
from bnfold.runtime.interface import Port

IMAGE = Port("x", "float32", ("N", 3, "H", "W"))
IDS = Port("ids", "int64", ("N", "T"))


def rounds(further: Further, aims: Aims, count: int = 1) -> list[tuple[str, dict[str, np.ndarray]]]:
    return [
        (label, dict(feeds))
        for number in range(count)
        for label, feeds in further.round(number, lambda: aims)
    ]


def test_nothing_is_drawn_where_nothing_is_left() -> None:
    assert rounds(Further([IMAGE], [Sizing()], {}, 0), Aims({})) == []


def test_rows_that_no_index_met_go_into_the_input_that_indexes_them() -> None:
    use = Use(table=50, gathers=("e",))
    further = Further([IDS], [Sizing(), Sizing(batch=2, length=8)], {"ids": use}, 0)
    missing = np.arange(10, 60)
    left = {"e": missing}
    found = []
    for _, feeds in further.round(0, lambda: Aims(left)):
        found.append(feeds["ids"])
        left["e"] = np.setdiff1d(left["e"], feeds["ids"])
    assert set(found[0].flat) >= set(missing[missing < 50])  # the smallest table that it indexes has 50 rows
    assert all((ids < 50).all() for ids in found)
    assert rounds(further, Aims({"position": missing}))[0][0].startswith("normal"), (
        "other sizes may meet them"
    )


def test_bools_and_compared_numbers_go_through_their_combinations() -> None:
    ports = [Port("p", "bool", ()), Port("q", "bool", (3,)), Port("k", "int32", (2,))]
    further = Further(ports, [Sizing()], {"k": Use(compared=(5,))}, 0)
    turned = [feeds for label, feeds in rounds(further, Aims({}, branches=True), 2) if "turned" in label]
    seen = {(bool(feeds["p"]), bool(feeds["q"][0]), int(feeds["k"][1])) for feeds in turned}
    assert seen == {(p, q, k) for p in (False, True) for q in (False, True) for k in (4, 5, 6)}
    assert {feeds["k"].dtype for feeds in turned} == {np.dtype("int32")}


def test_numbers_beyond_the_type_or_the_table_are_not_drawn() -> None:
    ports = [Port("a", "uint16", (2,)), Port("b", "int64", (2,))]
    uses = {"a": Use(compared=(0,)), "b": Use(table=4, compared=(3,))}
    turned = [
        feeds
        for label, feeds in rounds(Further(ports, [Sizing()], uses, 0), Aims({}, branches=True))
        if "turned" in label
    ]
    assert {int(feeds["a"][0]) for feeds in turned} == {0, 1}
    assert {int(feeds["b"][0]) for feeds in turned} == {2, 3}


def test_other_sizes_and_every_kind() -> None:
    further = Further([IMAGE], [Sizing(), Sizing(batch=2)], {}, 0)
    sizes = [feeds["x"].shape for _, feeds in rounds(further, Aims({}, sizes=True), 2)]
    assert len(set(sizes)) == 12
    assert any(shape[2] % 2 for shape in sizes)
    assert any(shape[0] == 3 for shape in sizes)
    kinds = [label.split()[0] for label, _ in rounds(further, Aims({}, channels=True))]
    assert kinds == [*FURTHER_KINDS, *KINDS]


def test_the_same_seed_draws_the_same_and_no_input_twice() -> None:
    aims = Aims({}, branches=True, channels=True)
    one, two, other = (
        [feeds["x"] for _, feeds in rounds(Further([IMAGE], [Sizing(length=4)], {}, seed), aims, 2)]
        for seed in (1, 1, 2)
    )
    assert all(map(np.array_equal, one, two))
    assert not all(map(np.array_equal, one, other))
    normal = [array.tobytes() for array in one if array.std() > 0.5]
    assert len(set(normal)) == len(normal)


def test_a_condition_on_the_sign_is_turned() -> None:
    drawn = rounds(Further([IMAGE], [Sizing()], {}, 0), Aims({}, branches=True))
    negative = [feeds["x"] for label, feeds in drawn if label.startswith("negative")]
    assert len(negative) == len({*FURTHER_KINDS, *KINDS})
    assert all((array <= 0).all() for array in negative)
    assert any((array < -10).any() for array in negative)
