"""ONNX Runtime's own faults are laid at the right door, whichever form the model has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from bnfold.errors import ModelError
from bnfold.runtime import optimizers
from bnfold.runtime.optimizers import LEVELS, RULES, culprits, modifiers
from tests.graphs import build, feeds, run, statistics, weight

FUSION = "MatMul_BatchNormalization_Fusion"
NORM = "BatchNormalization <epsilon = 0.01> (t, scale, bias, mean, var)"
WRONG_FORMS = {
    "transpose": f"g (float[4,4] x) => (float[4,4] y) {{ m = MatMul (x, w) t = Transpose (m) y = {NORM} }}",
    "open batch": f"g (float[N,4] x) => (float[4,N] y) {{ m = MatMul (x, w) t = Transpose (m) y = {NORM} }}",
    "reshape, relu": "g (float[4,4] x) => (float[1,4,4] y) "
    f"{{ m = MatMul (x, w) t = Reshape (m, s) b = {NORM} y = Relu (b) }}",
}
RIGHT_FORMS = {
    "at once": f"g (float[4,4] t) => (float[4,4] y) {{ b = {NORM} y = MatMul (b, w) }}",
    "batched": "g (float[2,4,4] x) => (float[2,4,4] y) "
    f"{{ m = MatMul (x, w) t = Transpose <perm = [0, 2, 1]> (m) y = {NORM} }}",
}


def square(text: str) -> onnx.ModelProto:
    """A model in which the number of channels is the size of every axis."""
    constants = {"w": weight(4, 4), "s": np.array([1, 4, 4], np.int64), **statistics(4)}
    return build(text, {name: array for name, array in constants.items() if name in text})


def far_from(expected: list[np.ndarray]) -> Callable[[list[Any]], bool]:
    scale = float(np.abs(expected[0]).max())
    return lambda outputs: float(np.abs(outputs[0] - expected[0]).max()) > 1e-4 * scale


@pytest.fixture(params=WRONG_FORMS)
def wrong_model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    model = square(WRONG_FORMS[request.param])
    inputs = feeds(model, free=4)
    default = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    if not far_from(run(model, inputs))(default.run(None, inputs)):
        pytest.skip(f"ONNX Runtime {ort.__version__} optimizes this model rightly")
    return model


def test_the_fusion_of_matmul_and_batchnorm_is_named(wrong_model: onnx.ModelProto) -> None:
    inputs = feeds(wrong_model, free=4)
    assert culprits(wrong_model, inputs, far_from(run(wrong_model, inputs))) == (FUSION,)


@pytest.mark.parametrize("form", RIGHT_FORMS)
def test_a_model_that_is_optimized_rightly_has_no_culprit(form: str) -> None:
    model = square(RIGHT_FORMS[form])
    inputs = feeds(model)
    assert culprits(model, inputs, far_from(run(model, inputs))) == ()


def test_no_optimizer_is_to_blame_for_what_is_wrong_without_it() -> None:
    model = square(WRONG_FORMS["transpose"])
    assert culprits(model, feeds(model), lambda _outputs: True) == ()


@pytest.mark.parametrize("as_what", ["path", "ir", "proto"])
def test_the_log_names_what_changed_the_graph(tmp_path: Path, as_what: str) -> None:
    model = square(RIGHT_FORMS["at once"].replace("y = MatMul (b, w)", "i = Identity (b) y = MatMul (i, w)"))
    onnx.save(model, tmp_path / "m.onnx")
    given = {"path": tmp_path / "m.onnx", "ir": ir.from_proto(model), "proto": model}[as_what]
    assert modifiers(given) == ("Level1_RuleBasedTransformer",)


def test_a_model_that_nothing_changes_has_no_modifier() -> None:
    assert modifiers(build("g (float[2] x) => (float[2] y) { y = Relu (x) }")) == ()


def test_a_model_that_does_not_load_is_named_as_the_cause() -> None:
    model = build("g (float[2] x) => (float[2] y) { y = Nope (x) }")
    with pytest.raises(ModelError, match="Nope"):
        modifiers(model)


class Fake:
    """Sessions whose outputs are wrong unless certain optimizers are disabled or the level is low enough."""

    def __init__(self, needed: set[str], from_level: str = LEVELS[0]) -> None:
        self.needed, self.from_level, self.made = needed, from_level, 0

    def session(
        self, _model: object, *, configure: Callable[[Any], None], disabled: Any, **_rest: object
    ) -> bool:
        self.made += 1
        options = ort.SessionOptions()
        configure(options)
        level = options.graph_optimization_level.name
        low = ("ORT_DISABLE_ALL", *LEVELS).index(level) < ("ORT_DISABLE_ALL", *LEVELS).index(self.from_level)
        return low or (bool(self.needed) and self.needed <= set(disabled))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def install(needed: set[str], logged: tuple[str, ...], from_level: str = LEVELS[0]) -> Fake:
        made = Fake(needed, from_level)
        monkeypatch.setattr(optimizers, "session", made.session)
        monkeypatch.setattr(optimizers, "run", lambda right, _feeds: [right])
        monkeypatch.setattr(optimizers, "modifiers", lambda *_args, **_options: logged)
        return made

    return install


RULE_BASED, LOGGED = (
    "Level1_RuleBasedTransformer",
    ("ConstantFolding", "Level1_RuleBasedTransformer", "Nchwc"),
)


@pytest.mark.parametrize("needed", [{"Nchwc"}, {"ConvBNFusion"}, {"EliminateSlice", "Nchwc"}, {RULE_BASED}])
def test_a_smallest_set_is_found_in_few_sessions(fake: Callable[..., Fake], needed: set[str]) -> None:
    made = fake(needed, LOGGED)
    found = culprits("m.onnx", {}, lambda outputs: not outputs[0])
    assert set(found) == needed
    assert made.made < len(RULES)


def test_where_no_name_helps_the_level_is_told(fake: Callable[..., Fake]) -> None:
    fake(set(), LOGGED, "ORT_ENABLE_EXTENDED")
    assert culprits("m.onnx", {}, lambda outputs: not outputs[0]) == ("ORT_ENABLE_EXTENDED",)
    fake(set(), ())
    assert culprits("m.onnx", {}, lambda outputs: not outputs[0]) == ("ORT_ENABLE_BASIC",)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names from Linux's library")
def test_every_rule_that_is_named_is_one_of_this_runtime() -> None:
    library = next(Path(ort.__file__).parent.glob("capi/onnxruntime_pybind11_state*"))
    content = library.read_bytes()
    assert [rule for rule in RULES if rule.encode() + b"\0" not in content] == []
