"""The weights in a checkpoint are found, or what there is to choose from is listed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import InputError, ModelError  # noqa: E402
from bnfold.torch.read.checkpoint import find, is_weights  # noqa: E402

WEIGHTS = {"a.weight": torch.zeros(2), "b.bias": torch.zeros(3), "a._extra_state": {"x": 1}}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


def names(found: Any) -> list[str]:
    return sorted(found.content)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "params", "generator"]
)
def test_the_only_weights_need_no_key(key) -> None:
    found = find({"epoch": 3, "optimizer": OPTIMIZER, "rng": torch.zeros(4), key: WEIGHTS}, None, "m.pt")
    assert (found.key, names(found)) == (key, sorted(WEIGHTS))


def test_weights_alone_and_a_module_alone() -> None:
    assert find(OrderedDict(WEIGHTS), None, "m.pt").key == ""
    module = nn.Linear(1, 1)
    assert find(module, None, "m.pt").content is module
    assert find({"epoch": 1, "model": module, "ema": None}, None, "m.pt").content is module


def test_weights_at_some_depth() -> None:
    assert find({"train": {"best": {"state_dict": WEIGHTS}}}, None, "m.pt").key == "train.best.state_dict"


def test_several_are_listed() -> None:
    with pytest.raises(InputError) as caught:
        find({"model": nn.Linear(1, 1), "ema": {"state_dict": WEIGHTS}, "optim_g": WEIGHTS}, None, "m.pt")
    assert "model (a module, Linear), ema.state_dict (3 tensors)" in caught.value.problem
    assert caught.value.fix == "Say which, add: --key model; or: --key ema.state_dict"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ema", ["a.weight", "b.bias"]),
        ("with.dots", ["w"]),
        ("with.dots.state", ["w"]),
        ("ema.a", ["weight"]),
    ],
)
def test_a_key_leads_to_weights_or_to_a_part_of_them(key, expected) -> None:
    ema = {"a.weight": torch.zeros(2), "b.bias": torch.zeros(3)}
    dots: Any = {"state": {"w": torch.zeros(1)}} if key.endswith("state") else {"w": torch.zeros(1)}
    assert names(find({"ema": ema, "with.dots": dots}, key, "m.pt")) == expected


@pytest.mark.parametrize("key", ["absent", "epoch", "ema.absent", "ema.a.weight", "list.0"])
def test_a_key_that_leads_nowhere(key) -> None:
    with pytest.raises(InputError) as caught:
        find({"ema": {"a.weight": torch.zeros(2)}, "epoch": 3, "list": [1]}, key, "m.pt")
    assert f"under --key {key}" in caught.value.problem
    assert caught.value.fix == "It holds: ema (1 tensors)."


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 1}, [], 3, {"a": {"b": {"c": {"d": WEIGHTS}}}}, {1: WEIGHTS}]
)
def test_nothing_of_the_kind(content) -> None:
    with pytest.raises(ModelError, match="not a model"):
        find(content, None, "m.pt")


def test_a_key_into_a_file_that_is_the_weights() -> None:
    with pytest.raises(InputError) as caught:
        find(WEIGHTS, "model", "m.pt")
    assert caught.value.fix == "The file itself is the weights: leave --key out."


def test_what_weights_are() -> None:
    assert is_weights(WEIGHTS)
    assert not is_weights({})
    assert not is_weights({"a": 1})
    assert not is_weights({"a": torch.zeros(1), "epoch": 3})
    assert not is_weights({0: torch.zeros(1)})
    assert not is_weights(torch.zeros(1))
