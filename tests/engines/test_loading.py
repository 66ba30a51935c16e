"""What surrounds every runtime: types of outputs, what is refused, and what their messages say."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from bnfold.engines import base, known, mnn, ncnn, openvino
from bnfold.engines.silence import captured
from bnfold.errors import InputError, MissingExtraError, ModelError
from tests.engines.fake import Fake, network
from tests.graphs import build


def test_outputs_have_the_types_that_the_model_declares() -> None:
    loaded = base.load(Fake(), network(), 1, "float32")
    y, c = loaded.run({"x": np.ones((2, 3, 6, 6), np.float32)})
    assert (y.dtype, c.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("value", "name", "dtype"),
    [
        (np.array([0, 1], np.int32), "bool", "bool"),
        (np.array([0, 2], np.int32), "bool", "int32"),
        (np.array([7], np.int32), "int64", "int64"),
        (np.array([300], np.int32), "uint8", "int32"),
        (np.array([0.1], np.float32), "float16", "float16"),
        (np.array([1e30], np.float32), "float16", "float32"),
        (np.array([1.0], np.float32), "unknown", "float32"),
    ],
)
def test_a_type_that_does_not_hold_the_numbers_is_left(value, name, dtype) -> None:
    [made] = base.typed([value], [name])
    assert made.dtype == dtype


def test_strings_and_sequences_are_refused_in_a_sentence() -> None:
    model = build("g (string[2] x) => (string[2] y) { y = Identity(x) }")
    with pytest.raises(ModelError, match="'x' is a string, and Fake is run with arrays of numbers only"):
        base.load(Fake(), model, 1, "float32")


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="0 threads"):
        base.load(Fake(), network(), 0, "float32")


@pytest.mark.parametrize("name", ["openvino", "mnn", "ncnn", "litert"])
def test_a_runtime_that_is_missing_is_one_line_to_type(name, monkeypatch) -> None:
    engine = known.ENGINES[name]
    for module in ("openvino", "MNN", "ncnn", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as e:
        engine.demand()
    assert e.value.fix == f'Type: pip install "bnfold[{name}]"'


def test_openvinos_messages_name_the_operators() -> None:
    text = (
        "Exception from src/inference/src/cpp/core.cpp:105:\nCheck 'false' failed at src/x.cpp:151:\n"
        "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n"
        "-- No conversion rule found for operations: com.x.Bar, MaxUnpool-17\nTo facilitate the conversion"
    )
    assert openvino._load_error(RuntimeError(text)).problem == (
        "OpenVINO does not have the operators com.x.Bar, MaxUnpool-17."
    )
    other = text.replace(
        "-- No conversion rule found for operations: com.x.Bar, MaxUnpool-17", "It is Tuesday."
    )
    assert (
        openvino._load_error(RuntimeError(other)).problem == "OpenVINO cannot load the model: It is Tuesday."
    )
    assert len(openvino._one_line(RuntimeError("x" * 1000))) < 410
    assert openvino._one_line(RuntimeError()) == ""


def test_mnns_messages_name_the_operators() -> None:
    said = "The device supports: a\n:220: These Op Not Support: ONNX::Bar | ONNX::Foo \nConverted Failed!"
    assert mnn._not_converted(said).problem == "MNN does not have the operators Bar, Foo."
    other = "The device supports: a\nIt is Tuesday.\nConverted Failed!\n"
    assert mnn._not_converted(other).problem == "MNN cannot convert the model: It is Tuesday."
    assert "does not say why" in mnn._not_converted("").problem


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("layer Det not exists or registered\nnetwork graph not ready\n", "operator Det"),
        ("todo Det\n", "operator Det"),
        (
            "ort CreateSession failed ... Error No Op registered for Foo with domain_version of 17",
            "operator Foo",
        ),
        (
            "ort CreateSession failed Fatal error: com.x:Foo(-1) is not a registered function/op",
            "operator com.x:Foo",
        ),
    ],
)
def test_ncnns_messages_name_the_operators(said: str, names: str) -> None:
    assert ncnn._refused("load", said).problem == f"ncnn does not have the {names}."
    assert "ncnn cannot load the model: it does not say why" in ncnn._refused("load", "").problem


def test_what_a_library_writes_does_not_reach_standard_output(capfd) -> None:
    with captured() as said:
        os.write(1, b"from C++\n")
        os.write(2, b"an error\n")
        assert said() == "from C++\nan error\n"
    print("after")
    out, err = capfd.readouterr()
    assert (out, err) == ("after\n", "")
