"""A wrong command line is answered as every other error is: what is wrong, and below it what to type."""

from __future__ import annotations

import pytest

CASES = {
    ("export", "a.onnx", "--inputshape", "1"): (
        "bnfold export has no option --inputshape.",
        "Did you mean '--input-shape' or '--inputs'? bnfold export --help says more.",
    ),
    ("inspect", "a.onnx", "--target", "rknn"): (
        "bnfold inspect has no option --target.",
        "--target belongs to export and check. bnfold inspect --help says more.",
    ),
    ("export", "a.onnx", "--shape", "1"): (
        "bnfold export has no option --shape.",
        "Did you mean '--input-shape' or '--set-shape'? bnfold export --help says more.",
    ),
    ("export", "a.onnx", "--device", "cuda"): (
        "bnfold export has no option --device.",
        "Did you mean '--provider'? bnfold export --help says more.",
    ),
    ("fold", "a.onnx", "--quantize"): (
        "bnfold fold has no option --quantize.",
        "bnfold export --int8 does that. bnfold fold --help says more.",
    ),
    ("fold", "a.onnx", "--verify"): (
        "bnfold fold has no option --verify.",
        "bnfold validate does that. bnfold fold --help says more.",
    ),
    ("export", "a.onnx", "--thrust"): (
        "bnfold export has no option --thrust.",
        "Did you mean '--trust'? bnfold export --help says more.",
    ),
    ("export", "a.onnx", "--truster"): (
        "bnfold export has no option --truster.",
        "Did you mean '--trust'? bnfold export --help says more.",
    ),
    ("export", "a.onnx", "--trusting"): (
        "bnfold export has no option --trusting.",
        "bnfold export --help says more.",
    ),
    ("export", "a.onnx", "--precision", "fp16"): (
        "--precision: 'fp16' is not one of 'float16', 'bfloat16', 'mixed'.",
        "Did you mean 'float16'? bnfold export --help says more.",
    ),
    ("verify",): ("No such command 'verify'.", "Did you mean 'validate'? bnfold --help says more."),
    ("--foo",): ("bnfold has no option --foo.", "bnfold --help says more."),
    ("fleet", "chek"): ("No such command 'chek'.", "Did you mean 'check'? bnfold fleet --help says more."),
    ("fleet", "check", "a", "--out", "o", "--engin", "dask"): (
        "bnfold fleet check has no option --engin.",
        "Did you mean '--engine'? bnfold fleet check --help says more.",
    ),
    ("export",): (
        "MODEL is missing.",
        "Write it as: bnfold export [OPTIONS] MODEL",
        "bnfold export --help says more.",
    ),
    ("fleet", "check", "a"): (
        "--out is missing.",
        "Write it as: bnfold fleet check [OPTIONS] SOURCE|-...",
        "bnfold fleet check --help says more.",
    ),
    ("export", "a.onnx", "--precision", "flot16"): (
        "--precision: 'flot16' is not one of 'float16', 'bfloat16', 'mixed'.",
        "Did you mean 'float16' or 'bfloat16'? bnfold export --help says more.",
    ),
    ("bench", "a.onnx", "b.onnx", "--seconds", "never"): (
        "--seconds: 'never' is not a number.",
        "bnfold bench --help says more.",
    ),
    ("export", "a.onnx", "--samples", "few"): (
        "--samples: 'few' is not a whole number.",
        "bnfold export --help says more.",
    ),
    ("bench", "a", "b", "c"): ("Got unexpected extra argument (c).", "bnfold bench --help says more."),
    ("validate", "a.onnx"): (
        "Name two models, ORIGINAL and FOLDED, or a report with --replay.",
        "bnfold validate --help says more.",
    ),
    ("check", "--output-format", "jsn"): (
        "'jsn' is not a format; known are concise, full, github, gitlab, json, junit, markdown, sarif.",
        "Did you mean json? bnfold check --help says more.",
    ),
    ("export", "a.onnx", "--quiet=3"): (
        "Option '--quiet' does not take a value.",
        "bnfold export --help says more.",
    ),
}


@pytest.mark.parametrize(("words", "lines"), CASES.items(), ids=lambda part: " ".join(part)[:40])
def test_the_problem_comes_first_and_then_what_to_do(run, words, lines) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    problem, *fixes = lines
    assert result.stderr.splitlines() == [f"bnfold: {problem}", *(f"  {fix}" for fix in fixes)]


def test_control_characters_are_shown_and_not_obeyed(run) -> None:
    assert "\x1b" not in run("explain", "\x1b[31m").stderr
    assert "\x1b" not in run("\x1b[31m").stderr
