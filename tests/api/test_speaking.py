"""Errors name keywords where a command has options."""

from __future__ import annotations

import pytest

import bnfold
from bnfold.api.speaking import in_python, speaking_python
from bnfold.errors import DisagreementError, InputError


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("Give a larger --tolerance.", "Give a larger tolerance=."),
        ("Name it with --input-shape 1x3x8x8", 'Name it with input_shape="1x3x8x8"'),
        (
            "Leave out --no-validate, or add --no-batchnorm.",
            "Leave out validate=False, or add no_batchnorm=.",
        ),
        ("Name it, or add --no-respect-gitignore.", "Name it, or add respect_gitignore=False."),
        ("--against git:… needs git", "earlier=git:… needs git"),
        ("--provider cuda is not there", "providers=cuda is not there"),
        ('Type: pip install --upgrade "bnfold[torch]"', 'Type: pip install --upgrade "bnfold[torch]"'),
        ("bnfold --bug-report writes one", "bnfold --bug-report writes one"),
        ("A file a--b-c.onnx and -o stay", "A file a--b-c.onnx and -o stay"),
    ],
)
def test_options_become_keywords(text: str, python: str) -> None:
    assert in_python(text) == python


def test_an_error_keeps_its_type_and_its_attributes() -> None:
    @speaking_python
    def fails() -> None:
        raise DisagreementError("They differ.", "Try --tolerance 1e-3.", cause="y is off")

    with pytest.raises(DisagreementError) as caught:
        fails()
    assert caught.value.fix == "Try tolerance=1e-3."
    assert str(caught.value) == "They differ.\nTry tolerance=1e-3."
    assert caught.value.cause == "y is off"


def test_other_errors_are_left_alone() -> None:
    @speaking_python
    def fails() -> None:
        raise ValueError("--tolerance")

    with pytest.raises(ValueError, match="--tolerance"):
        fails()
    with pytest.raises(InputError, match=r"^Leave out validate=False\.$"):
        speaking_python(_refuse)()


def _refuse() -> None:
    raise InputError("Leave out --no-validate.")


def test_a_wrong_call_is_a_type_error_that_says_what_was_meant() -> None:
    with pytest.raises(TypeError, match=r"validate\(\) has no keyword 'sample'. Did you mean samples"):
        bnfold.validate("a.onnx", "b.onnx", sample=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument: 'folded'"):
        bnfold.validate("a.onnx")  # type: ignore[call-arg]
    for wrong in (bnfold.export, bnfold.benchmark, bnfold.inspect):
        with pytest.raises(TypeError, match="has no keyword 'no_such'"):
            wrong("a.onnx", "b.onnx", no_such=1)  # type: ignore[operator]
    with pytest.raises(InputError, match="This is a int, and not a model"):
        bnfold.fold(3)  # type: ignore[call-overload]
