"""Both models in another runtime: the same reference, the same bounds, and what is said about the runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.engines import known
from bnfold.errors import InputError, ProviderError
from bnfold.latency.benchmark import benchmark
from bnfold.validation.results import Validation
from bnfold.validation.validate import validate
from tests.engines.fake import Fake, network


@pytest.fixture(scope="session")
def original() -> onnx.ModelProto:
    return network()


@pytest.fixture(scope="session")
def folded(original: onnx.ModelProto) -> onnx.ModelProto:
    return bnfold.fold(original).model


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(known.ENGINES, "fake", made)
    return made


def judged(original: object, folded: object, runtime: str = "fake", **options: object) -> Validation:
    return bnfold.validate(
        original, folded, providers=(), runtimes=(runtime,), samples=2, threads=1, **options
    )


def with_fault(model: onnx.ModelProto) -> onnx.ModelProto:
    """One weight of one channel has the wrong sign."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = max(copy.graph.initializer, key=lambda one: len(one.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    array[3, 0, 1, 1] *= -1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def test_a_right_fold_agrees_and_the_settings_are_stated(original, folded, fake) -> None:
    result = judged(original, folded)
    assert result.passed, result.failures
    assert [(check.provider, check.output) for check in result.checks] == [("Fake", "y"), ("Fake", "c")]
    assert result.providers == ("Fake",)
    assert all(check.bound and check.error is not None for check in result.checks if check.output == "y")
    assert f"Fake: version {np.__version__}, set to ROUNDING=float32, THREADS=1." in result.notes
    assert set(fake.threads) == {1}
    assert len(fake.converted) == 3, "the original once more, to see whether it repeats itself"
    assert dict(result.repeatability) == {"Fake": 0.0}


def test_onnx_runtime_may_be_asked_too(original, folded) -> None:
    result = validate(original, folded, runtimes=("fake",), samples=1)
    assert {(check.provider, check.optimizer) for check in result.checks} == {
        ("cpu", "off"),
        ("cpu", "default"),
        ("Fake", "default"),
    }


def test_a_fault_is_caught(original, folded) -> None:
    result = judged(original, with_fault(folded))
    assert not result.passed
    assert any(failure.startswith("Output 'y' (Fake): ") for failure in result.failures)


def test_a_fault_of_the_runtime_alone_is_shown_where_it_begins(original, folded, monkeypatch) -> None:
    """The fold is right in float64, so the values inside are measured in that runtime."""
    load = Fake.load

    def wrong(self: Fake, model, ports, **options):
        made = load(self, model, ports, **options)
        proto = onnx.load_model_from_string(model.read_bytes())
        made.off = 0.0 if "BatchNormalization" in {node.op_type for node in proto.graph.node} else 0.01
        return made

    monkeypatch.setattr(Fake, "load", wrong)
    result = judged(original, folded)
    assert not result.passed
    assert result.blame is not None
    assert (result.blame.runtime, result.blame.provider) == (True, "Fake")


def test_a_runtime_that_computes_coarser_than_asked_is_named(original, folded, fake) -> None:
    fake.computes_in = "float16"
    [problem] = judged(original, folded).problems
    assert problem.startswith(
        "Fake computes as coarsely as float16 here, and was asked for float32: the output 'y'"
    )
    fake.computes_in = "bfloat16"
    result = judged(original, folded)
    [problem] = result.problems
    assert problem.startswith("Fake computes as coarsely as bfloat16 here")
    assert "--runtime fake:bfloat16" in problem
    assert not result.passed
    assert not result.faults


def test_a_coarser_precision_that_is_asked_for_has_wider_bounds(original, folded) -> None:
    result = judged(original, folded, "fake:bfloat16")
    assert result.passed, result.failures
    assert {check.provider for check in result.checks} == {"Fake bfloat16"}
    fine = next(check for check in judged(original, folded).checks if check.output == "y")
    assert result.checks[0].bound > 1000 * fine.bound
    assert not judged(original, with_fault(folded), "fake:bfloat16").passed


def test_a_finer_precision_than_asked_for_is_worth_a_note(original, folded, fake) -> None:
    fake.computes_in = "float32"
    result = judged(original, folded, "fake:bfloat16")
    assert result.passed
    assert any(
        note.startswith("Fake computes as finely as float32 here, and was asked for bfloat16")
        for note in result.notes
    )


def test_a_runtime_that_says_that_it_computes_in_another_precision_is_refused(original, folded, fake) -> None:
    fake.says = "bfloat16"
    with pytest.raises(
        ProviderError, match="asked to compute in float32 and says that it computes in bfloat16"
    ) as e:
        judged(original, folded)
    assert "fake:bfloat16" in e.value.fix
    with pytest.raises(ProviderError):
        benchmark(original, folded, runtime="fake", rounds=2, seconds=0.1)
    fake.says = "float64"
    with pytest.raises(ProviderError) as e:
        judged(original, folded)
    assert e.value.fix == ""


def test_an_original_that_the_runtime_computes_wrongly_is_a_fault_of_the_runtime(
    original, folded, fake
) -> None:
    fake.off = 1.0
    result = judged(original, folded)
    assert not result.passed
    [fault] = result.faults
    assert fault.sentence.startswith("Fake computes the output 'y' of the original wrongly: it is ")
    assert "also affected" in fault.sentence


def test_a_missing_operator_of_both_models_is_an_error_that_names_it(original, folded, fake) -> None:
    fake.lacks = "Conv"
    with pytest.raises(
        ProviderError, match=r"Fake runs neither model\. Fake does not have the operator Conv"
    ):
        judged(original, folded)


def test_a_missing_operator_of_the_folded_model_alone_is_a_failure(original, folded, fake) -> None:
    fake.lacks = "Identity"
    copy = onnx.ModelProto()
    copy.CopyFrom(folded)
    for node in copy.graph.node:
        node.input[:] = ["x again" if name == "x" else name for name in node.input]
    copy.graph.node.insert(0, onnx.helper.make_node("Identity", ["x"], ["x again"]))
    result = judged(original, copy)
    assert any("does not load (Fake)" in problem and "Identity" in problem for problem in result.problems)


def test_a_model_only_the_folded_one_of_which_runs_is_judged(original, folded, fake) -> None:
    """Some runtimes have no BatchNormalization, which is what the fold is for."""
    fake.lacks = "BatchNormalization"
    result = judged(original, folded)
    assert result.passed, result.failures


@pytest.mark.parametrize("text", ["", "fak", "opnvino", "fake:float64"])
def test_what_is_not_a_runtime_is_refused(text: str) -> None:
    with pytest.raises(InputError) as e:
        known.choice(text)
    assert "Choose from" in e.value.fix


def test_titles_lead_back_to_runtimes() -> None:
    for text in ("fake", "fake:bfloat16", "openvino", "openvino:float16", "mnn"):
        chosen = known.choice(text)
        assert known.titled(chosen.title) == chosen
        assert chosen.title != chosen.title.lower(), "a title is no name of ONNX Runtime's providers"
    assert known.titled("openvino") is None
    assert known.options("openvino", 1) == {"precision": "ACCURACY"}
    assert known.options("OpenVINO", 3)["INFERENCE_NUM_THREADS"] == "3"
