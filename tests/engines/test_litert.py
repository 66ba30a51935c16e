"""LiteRT: what its converter is given, and that nothing comes back in another order, layout or type."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.engines import base, litert
from bnfold.errors import MissingExtraError, ModelError, ProviderError
from bnfold.runtime.interface import as_ir, interface
from bnfold.runtime.sessions import run, session
from bnfold.validation.validate import validate
from tests.engines.fake import network
from tests.graphs import build

Array = np.ndarray[Any, Any]

PLACED = """g (float[N,4,4,4] x, float[N,4,4,4] z) => (float[N,4,4,4] a, float[N,4,8,H] u, float[N,4,4,4] y) {
    a = Conv<pads=[1,1,1,1]>(x, w)
    r = Relu(a)
    u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(r, , s)
    y = Sub(z, r)
}"""
"""Every layout has the same sizes, and onnx2tf leaves the channels of the Resize last."""


def placed() -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.normal(size=(4, 4, 3, 3)).astype(np.float32),
        "s": np.array([1, 1, 2, 2], np.float32),
    }
    model = build(PLACED, weights)
    for node in model.graph.node:  # which onnx2tf calls wa/a/x__0
        node.input[:] = ["/a/x:0" if name == "x" else name for name in node.input]
    model.graph.input[0].name = "/a/x:0"
    return model


def feeds(model: onnx.ModelProto, rows: int = 2) -> dict[str, Array]:
    draw = np.random.default_rng(1)
    return {one.name: draw.normal(size=(rows, 4, 4, 4)).astype(np.float32) for one in model.graph.input}


# what is given to onnx2tf


def prepared(model: onnx.ModelProto, folder: Path, *sizes: tuple[int, ...]) -> onnx.ModelProto:
    onnx.save(model, folder / litert._GIVEN)
    litert._prepare(folder / litert._GIVEN, folder / "model.onnx", sizes)
    return onnx.load(folder / "model.onnx")


def test_the_converter_is_given_fixed_sizes_names_that_last_and_flat_outputs(tmp_path: Path) -> None:
    model = placed()
    made = prepared(model, tmp_path, (2, 4, 4, 4), (2, 4, 4, 4))
    onnx.checker.check_model(made, full_check=True)
    ports = interface(as_ir(made))
    assert [port.name for port in ports.inputs] == ["bnfold_input_0", "bnfold_input_1"]
    assert [port.name for port in ports.outputs] == [f"bnfold_output_{n}" for n in range(3)]
    assert {port.shape for port in ports.inputs} == {(2, 4, 4, 4)}
    taken = feeds(model)
    expected = run(session(model, optimized="off"), taken)
    renamed = dict(zip(("bnfold_input_0", "bnfold_input_1"), taken.values(), strict=True))
    for one, other in zip(expected, run(session(made, optimized="off"), renamed), strict=True):
        np.testing.assert_array_equal(other, one.ravel())


def test_an_output_may_be_an_input_and_an_input_may_have_a_default(tmp_path: Path) -> None:
    model = build(
        "g (float[N,2] x, float[2] c) => (float[N,2] x, float[N,2] y) { y = Add(x, c) }",
        {"c": np.array([1, 2], np.float32)},
    )
    made = prepared(model, tmp_path, (3, 2))
    assert [one.name for one in made.graph.input] == ["bnfold_input_0"]
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    same, y = run(session(made, optimized="off"), {"bnfold_input_0": x})
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(y, x + np.array([1, 2]))


def test_a_name_that_is_given_to_the_converter_is_refused(tmp_path: Path) -> None:
    model = build("g (float[2] x) => (float[2] y) { bnfold_output_0 = Exp(x) y = Neg(bnfold_output_0) }")
    with pytest.raises(ModelError, match="'bnfold_output_0' is one that is given to onnx2tf"):
        prepared(model, tmp_path, (2,))


# what comes back, from an interpreter that stands in


class Standing:
    """An interpreter with these inputs and outputs, numbered from 0; each output is its number."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], dtype: Any = np.float32) -> None:
        self.inputs, self.outputs, self.dtype = inputs, outputs, dtype
        self.given: dict[int, Array] = {}

    def __call__(self, model_path: str, num_threads: int) -> Standing:
        del model_path, num_threads
        return self

    def allocate_tensors(self) -> None: ...

    def invoke(self) -> None: ...

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"name": one, "index": n, "dtype": self.dtype} for n, one in enumerate(self.inputs)]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"name": one, "index": n, "dtype": self.dtype} for n, one in enumerate(self.outputs)]

    def set_tensor(self, index: int, array: Array) -> None:
        self.given[index] = array

    def get_tensor(self, index: int) -> Array:
        return np.full(2, index, np.float32)


def interpreter(monkeypatch: pytest.MonkeyPatch, standing: Standing) -> litert._Interpreter:
    monkeypatch.setattr(litert, "_module", lambda: SimpleNamespace(Interpreter=standing))
    model = build("g (float[2] a, float[2] b) => (float[2] y, float[2] z) { y = Exp(a) z = Exp(b) }")
    return litert._Interpreter(Path("model.tflite"), interface(as_ir(model)), 1)


def test_inputs_and_outputs_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    standing = Standing(["bnfold_input_1", "bnfold_input_0"], ["bnfold_output_1", "bnfold_output_0"])
    a, b = np.zeros(2, np.float32), np.ones(2, np.float32)
    y, z = interpreter(monkeypatch, standing).computed({"a": a, "b": b})
    assert (y[0], z[0]) == (1, 0)
    np.testing.assert_array_equal(standing.given[0], b)
    np.testing.assert_array_equal(standing.given[1], a)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["bnfold_input_0", "b"], ["bnfold_output_0", "bnfold_output_1"]),
        (["bnfold_input_0", "bnfold_input_1"], ["bnfold_output_0", "z"]),
        (["bnfold_input_0", "bnfold_input_1"], ["bnfold_output_0"]),
    ],
)
def test_other_names_are_refused(inputs, outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="2 inputs and 2 outputs of other names were expected"):
        interpreter(monkeypatch, Standing(inputs, outputs))


def test_an_input_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["bnfold_input_0", "bnfold_input_1"]
    made = interpreter(
        monkeypatch, Standing(names, [one.replace("input", "output") for one in names], np.int32)
    )
    with pytest.raises(ModelError, match="'b' has a number that LiteRT's int32 does not hold"):
        made.computed({"a": np.array([1, 2]), "b": np.array([1, 2**40])})


@pytest.mark.parametrize("array", [np.zeros(7, np.float32), np.zeros((1, 2, 2, 2, 1), np.float32)])
def test_an_output_of_another_size_is_refused(array: Array, tmp_path: Path) -> None:
    model = build("g (float[1,2,2,1] x) => (float[1,2,2,1] y) { y = Exp(x) }")
    onnx.save(model, tmp_path / litert._GIVEN)
    loaded = litert._Interpreters(tmp_path, interface(as_ir(model)), 1)
    taken = {"x": np.ones((1, 2, 2, 1), np.float32)}
    [right] = loaded._shaped([np.arange(4, dtype=np.float32)], taken)
    np.testing.assert_array_equal(right, np.arange(4).reshape(1, 2, 2, 1))
    with pytest.raises(ModelError, match=r"for the output 'y', which has the shape \[1, 2, 2, 1\]"):
        loaded._shaped([array], taken)


def test_a_matrix_is_not_taken_for_a_vector(tmp_path: Path) -> None:
    model = build("g (float[2] x, float t) => (float[2] y, float s) { y = Exp(x) s = Exp(t) }")
    onnx.save(model, tmp_path / litert._GIVEN)
    loaded = litert._Interpreters(tmp_path, interface(as_ir(model)), 1)
    _, scalar = loaded._shaped([np.ones(2), np.ones(1)], {})  # LiteRT has no scalars everywhere
    assert scalar.shape == ()
    with pytest.raises(ModelError, match="for the output 'y'"):
        loaded._shaped([np.ones((1, 2)), np.ones(1)], {})


# what it says


def test_what_is_missing_is_one_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "_module", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ProviderError, match="onnx2tf is needed to convert models for LiteRT") as e:
        litert.ENGINE.demand()
    assert e.value.fix == "Type: uv tool install --python 3.12 onnx2tf"


def test_messages_name_the_operator(tmp_path: Path) -> None:
    onnx.save(build("g (float[2] x) => (float[2] y) { y = local.Foo(x) }"), tmp_path / litert._GIVEN)
    said = "Encountered unresolved custom op: ONNX_FOO.\nSee instructions: Node number 0 (ONNX_FOO) failed."
    error = litert._not_run(RuntimeError(said), "", tmp_path)
    assert error.problem == "LiteRT does not have the operator Foo."
    error = litert._not_run(RuntimeError("Type 11 is not supported by Exp.\nINFO: x"), "", tmp_path)
    assert error.problem == "LiteRT cannot run the model: Type 11 is not supported by Exp."
    said = (
        "Traceback\nNotImplementedError: flatbuffer_direct validation failed: op=ArgMax node=sng_ArgMax_0 "
        "reason_code=unsupported_attribute_value message=ArgMax select_last_index must be 0. got=1\n"
    )
    assert litert._not_converted(said).problem == (
        "onnx2tf does not convert the operator ArgMax: ArgMax select_last_index must be 0. got=1"
    )
    assert "does not say why" in litert._not_converted("").problem


# the runtime itself


@pytest.fixture(scope="module")
def engine() -> litert.LiteRt:
    try:
        litert.ENGINE.demand()
    except (MissingExtraError, ProviderError) as error:
        pytest.skip(f"{error.problem} {error.fix}")
    return litert.ENGINE


@pytest.mark.runtimes
def test_outputs_have_the_layout_of_onnx(engine: litert.LiteRt) -> None:
    model = placed()
    taken = feeds(model)
    found = base.load(engine, model, 1, "float32").run(taken)
    for one, other in zip(run(session(model, optimized="off"), taken), found, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.runtimes
def test_what_is_converted_is_kept_for_the_next_load(engine: litert.LiteRt, monkeypatch) -> None:
    made, converted = [], litert._converted
    monkeypatch.setattr(litert, "_converted", lambda *given: (made.append(given[1]), converted(*given)))
    model = placed()
    with base.conversion(engine, model) as (path, ports):
        for _ in range(2):
            engine.load(path, ports, threads=1, precision="float32").run(feeds(model))
    assert made == [((2, 4, 4, 4), (2, 4, 4, 4))]


@pytest.mark.runtimes
@pytest.mark.usefixtures("engine")
def test_weights_in_float16_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "_WEIGHTS", "float16")
    original = network(classes=False)  # LiteRT has no ArgMax in float16
    result = validate(
        original, bnfold.fold(original).model, providers=(), runtimes=("litert",), samples=1, threads=1
    )
    assert any("computes as coarsely as" in one for one in result.problems), result.problems
