"""A fold that is right over the reals, but passes through numbers that its type does not hold."""

from __future__ import annotations

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.folding.ways import Guide
from bnfold.pipeline.export import export
from bnfold.pipeline.exported import ExportDisagreementError
from bnfold.validation.layer_proof import prove, worst
from bnfold.validation.layers import Blame, Layer
from tests.graphs import build, operators, statistics, weight

UNIT = 2.0**-11
HUNDRED = {"x": np.full((2, 4), 100, np.float16)}


def scaled(factor: float, kind: str = "float16", dtype: type = np.float16) -> onnx.ModelProto:
    """`x·w`, computed as `(f·x)·w·(1/f)`: exact for a power of two, and `f·x` is a value of the model."""
    text = f"""g ({kind}[N,4] x) => ({kind}[N,4] y) {{
        [up] big = Mul (x, up)
        [product] wide = MatMul (big, w)
        [down] y = Mul (wide, down)
    }}"""
    numbers = {"up": np.array(factor), "down": np.array(1 / factor), "w": np.eye(4) / 4}
    return build(text, {name: array.astype(dtype) for name, array in numbers.items()})


def plain(kind: str = "float16", dtype: type = np.float16) -> onnx.ModelProto:
    text = f"g ({kind}[N,4] x) => ({kind}[N,4] y) {{ [product] y = MatMul (x, w) }}"
    return build(text, {"w": (np.eye(4) / 4).astype(dtype)})


def proof(one: onnx.ModelProto, other: onnx.ModelProto, x: float = 100) -> Layer:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(one.graph.input[0].type.tensor_type.elem_type)
    feeds = {"x": np.full((2, 4), x).astype(dtype)}
    return prove(ir.from_proto(one), ir.from_proto(other), feeds, UNIT)[-1]


def test_a_value_beyond_its_range_fails_its_layer() -> None:
    layer = proof(plain(), scaled(2.0**14))
    assert (layer.is_exact, layer.agrees) == (True, False)
    assert layer.beyond_range == "'big' reaches 1.6e+06, beyond float16's 65504; the original stays within it"
    assert Blame(layer).sentence == (
        "On the way to 'y', 'big' reaches 1.6e+06, beyond float16's 65504; the original stays within it: up, "
        "product, down in the folded model, product in the original."
    )


@pytest.mark.parametrize(
    ("x", "up", "agrees"),
    [(2047, 32, True), (431, 152, True), (273, 240, False), (-273, 240, False), (256, 256, False)],
)
def test_what_rounds_to_the_largest_number_is_within(x: float, up: float, agrees: bool) -> None:
    """65504 is the largest number of float16; 65512 is rounded to it, 65520 to infinity."""
    one = build("g (float16[N,4] x) => (float16[N,4] y) { y = Relu (x) }")
    other = build(
        "g (float16[N,4] x) => (float16[N,4] y) { big = Mul (x, up) small = Div (big, up) y = Relu (small) }",
        {"up": np.array(up, np.float16)},
    )
    assert proof(one, other, x).agrees == agrees


def test_a_moderate_detour_agrees() -> None:
    assert proof(plain(), scaled(2.0**4)).agrees
    assert proof(plain(), plain()).agrees


def test_what_the_original_exceeds_itself_is_excused() -> None:
    assert proof(scaled(2.0**14), scaled(2.0**13)).beyond_range is None
    assert not proof(scaled(2.0**4), scaled(2.0**13)).agrees


def test_the_type_of_the_value_decides() -> None:
    """1e6 is nothing for bfloat16 or float32, 1e40 is too much for both; float32 is not looked at."""
    narrow = functools.partial(plain, "bfloat16", ml_dtypes.bfloat16)
    assert proof(narrow(), scaled(2.0**14, "bfloat16", ml_dtypes.bfloat16)).agrees
    found = proof(narrow(), scaled(2.0**126, "bfloat16", ml_dtypes.bfloat16), 2.0**10)
    assert "beyond bfloat16's 3.3895e+38" in str(found.beyond_range)
    assert proof(plain("float", np.float32), scaled(2.0**14, "float", np.float32)).agrees
    cast = build(
        """g (float16[N,4] x) => (float16[N,4] y) {
            wide = Cast <to = 1> (x) up = Mul (wide, k) down = Div (up, k) half = Cast <to = 10> (down)
            y = MatMul (half, w)
        }""",
        {"k": np.array(2.0**14, np.float32), "w": (np.eye(4) / 4).astype(np.float16)},
    )
    assert proof(plain(), cast).agrees


def test_inside_a_function() -> None:
    text = """g (float16[N,4] x) => (float16[N,4] y) {{ [call] y = local.F (x) }}
        <domain: "local", opset_import: ["": 18]> F (a) => (b) {{
            up = Constant <value = float16 {{{}}}> ()
            big = Mul (a, up)
            b = Div (big, up)
        }}"""
    right, wrong = (build(text.format(bits)) for bits in (0x4C00, 0x7400))  # 16 and 16384
    assert proof(right, right).agrees
    assert "reaches 1.6e+06" in str(proof(right, wrong).beyond_range)


def test_a_sample_beyond_the_range_is_the_worst() -> None:
    right, beyond = proof(plain(), scaled(2.0**14), 1.0), proof(plain(), scaled(2.0**14))
    assert right.agrees
    assert [layer.beyond_range for layer in worst([[right], [beyond]])] == [beyond.beyond_range]
    assert [layer.beyond_range for layer in worst([[beyond], [right]])] == [beyond.beyond_range]


def test_validate_says_it() -> None:
    found = bnfold.validate(plain(), scaled(2.0**14), inputs=[HUNDRED])
    assert not found.passed
    problem = "On the way to 'y', 'big' reaches 1.6e+06"
    assert found.problems[0].startswith(problem)
    assert bnfold.validate(plain(), scaled(2.0**4), inputs=[HUNDRED]).passed


def rescaled() -> onnx.ModelProto:
    """A BatchNorm with a scale of 0.0005 next to a term that cannot take its inverse in float16."""
    numbers = statistics(4, dtype=np.float16) | {"scale": np.full(4, 0.0005, np.float16)}
    zeros = {"bias": np.zeros(4, np.float16), "mean": np.zeros(4, np.float16), "var": np.ones(4, np.float16)}
    return build(
        """g (float16[N,4,6,6] x, float16[N,64,6,6] z) => (float16[N,3,6,6] y) {
            [relu] r = Relu (x)
            [norm] n = BatchNormalization (r, scale, bias, mean, var)
            [sigmoid] s = Sigmoid (z)
            [other] o = Conv (s, v)
            [sum] t = Add (n, o)
            [last] y = Conv (t, w)
        }""",
        {
            "v": np.abs(weight(4, 64, 1, 1)).astype(np.float16) * 4,
            "w": weight(3, 4, 1, 1, dtype=np.float16),
            **(numbers | zeros),
        },
    )


def test_a_rollback_takes_such_a_fold_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fold's own look at ranges, the sum would carry 1/0.0005 times what it carried."""
    source = tmp_path / "model.onnx"
    onnx.save(rescaled(), source)
    kept = bnfold.fold(rescaled())
    assert "BatchNormalization" in operators(kept.model)
    monkeypatch.setattr(Guide, "_leaves_range", lambda *_: None)
    assert "BatchNormalization" not in operators(bnfold.fold(rescaled()).model)
    run = functools.partial(export, source, bench=False, samples=2)
    with pytest.raises(ExportDisagreementError) as caught:
        run(tmp_path / "bad.onnx")
    assert caught.value.export.validation is not None
    assert any("beyond float16's 65504" in failure for failure in caught.value.export.validation.failures)
    made = run(tmp_path / "good.onnx", rollback=True)
    assert "norm" in made.rolled_back
    assert made.validation is not None
    assert made.validation.passed
