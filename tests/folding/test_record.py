"""A file says what was folded into what, and whether it is the fold of a given original."""

from __future__ import annotations

import json

import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.folding.record import KEY, is_fold_of
from tests.graphs import build, statistics, weight

NETWORK = """g (float[N,3,6,6] x) => (float[N,4,?,?] y) {
    [conv] a = Conv (x, w)
    [norm] b = BatchNormalization (a, scale, bias, mean, var)
    [relu] y = Relu (b)
}"""


def network(seed: int = 0) -> onnx.ModelProto:
    return build(NETWORK, {"w": weight(4, 3, 3, 3, seed=seed)} | statistics(4, seed))


def reread(model: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(model.SerializeToString()))


def entries(model: onnx.ModelProto) -> dict:
    return json.loads({entry.key: entry.value for entry in model.metadata_props}[KEY])


def test_a_fold_is_recorded() -> None:
    folded = bnfold.fold(network()).model
    found = entries(folded)
    assert (found["version"], found["into"]) == (1, {"norm": ["conv"]})
    assert found["new_values"] == []  # the convolution now computes what the BatchNorm did, under its name
    assert is_fold_of(reread(folded), reread(network()))


def test_what_was_not_folded_has_no_record() -> None:
    folded = bnfold.fold(network(), keep=["norm"]).model
    assert KEY not in {entry.key for entry in folded.metadata_props}
    assert not is_fold_of(reread(folded), reread(network()))


def test_other_weights_are_still_the_fold_of_the_same_graph() -> None:
    folded = bnfold.fold(network()).model
    folded.graph.initializer[0].raw_data = bytes(len(folded.graph.initializer[0].raw_data))
    assert is_fold_of(reread(folded), reread(network(seed=1)))


def rewire(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "other"


def rename(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "renamed"


def replace(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Sigmoid"


def later(model: onnx.ModelProto) -> None:
    value = {**entries(model), "version": 2}
    model.metadata_props[0].value = json.dumps(value)


def broken(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = '{"version": 1,'


def empty(model: onnx.ModelProto) -> None:
    model.metadata_props[0].value = "[]"


@pytest.mark.parametrize("change", [rewire, rename, replace, later, broken, empty])
def test_whoever_changes_names_or_operators_ends_it(change) -> None:
    folded = bnfold.fold(network()).model
    change(folded)
    assert not is_fold_of(reread(folded), reread(network()))


def test_a_fold_of_a_fold_is_none_of_the_first_original() -> None:
    text = NETWORK.replace(
        "y = Relu (b)", "d = Conv (b, v) [last] y = BatchNormalization (d, ls, lb, lm, lv)"
    )
    last = {
        name.replace("scale", "s").replace("bias", "b"): array for name, array in statistics(4, 1).items()
    }
    constants = {"w": weight(4, 3, 3, 3), "v": weight(4, 4, 1, 1, seed=2)} | statistics(4, 0)
    constants |= {f"l{name[0]}": array for name, array in last.items()}
    original = build(text, constants)
    middle = bnfold.fold(original, keep=["last"]).model
    twice = bnfold.fold(middle).model
    assert is_fold_of(reread(middle), reread(original))
    assert is_fold_of(reread(twice), reread(middle))
    assert not is_fold_of(reread(twice), reread(original))
