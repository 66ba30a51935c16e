"""The user's factory: found, called, and its mistakes reported as the user's."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import InputError  # noqa: E402
from bnfold.torch.read.architecture import build, parse_arguments  # noqa: E402

NETS = """
    from torch import nn

    class Net(nn.Linear):
        @classmethod
        def small(cls):
            return cls(2, 2)

    def make(width=3, *, bias=True):
        print("made")
        return nn.Linear(width, 1, bias=bias)

    def fails():
        raise LookupError("no such preset\\nand more")

    def other():
        return [1]

    number = 3
"""


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """A module of networks in the current folder."""
    (tmp_path / "nets_of_a_user.py").write_text(textwrap.dedent(NETS))
    (tmp_path / "broken_of_a_user.py").write_text("import absent_package_of_a_user\n")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("nets_of_a_user", None)


def test_a_function_with_arguments(capsys) -> None:
    for arguments in ({"width": 5, "bias": False}, '{"width": 5, "bias": false}'):
        network = build("nets_of_a_user:make", arguments)
        assert isinstance(network, nn.Linear)
        assert (network.in_features, network.bias) == (5, None)
    assert capsys.readouterr().out == ""  # standard output is for results


def test_a_class_and_what_is_below_it() -> None:
    assert type(build("nets_of_a_user:Net.small")).__name__ == "Net"
    assert type(build("torch.nn:Linear", {"in_features": 1, "out_features": 1})) is nn.Linear


@pytest.mark.parametrize(
    ("arch", "arguments", "words"),
    [
        ("nets_of_a_user", None, "does not name a factory"),
        ("nets_of_a_user:", None, "does not name a factory"),
        ("a b:c", None, "does not name a factory"),
        ("absent_of_a_user:make", None, "absent_of_a_user could not be imported: ModuleNotFoundError"),
        ("broken_of_a_user:make", None, "No module named 'absent_package_of_a_user'"),
        ("nets_of_a_user:absent", None, "nets_of_a_user has no absent"),
        ("nets_of_a_user:number", None, "is a int, not a factory"),
        ("nets_of_a_user:other", None, "gave a list, not an nn.Module"),
        ("nets_of_a_user:fails", None, "fails() raised LookupError: no such preset."),
        ("nets_of_a_user:make", {"height": 2}, "make(height=2) raised TypeError"),
    ],
)
def test_mistakes_are_reported_as_the_users(arch, arguments, words) -> None:
    with pytest.raises(InputError) as caught:
        build(arch, arguments)
    assert words in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize("text", ["{", "[1]", "3", "width=3"])
def test_arguments_that_are_no_json_object(text) -> None:
    with pytest.raises(InputError, match="--arch-args"):
        parse_arguments(text)


def test_arguments_that_are() -> None:
    given = {"a": [1, None], "b": {"c": "d"}}
    assert parse_arguments(json.dumps(given)) == parse_arguments(given) == given
    assert parse_arguments(None) == {}
