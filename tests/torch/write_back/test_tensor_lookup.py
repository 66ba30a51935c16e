"""Which tensor of a module a constant of its graph is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.torch.write_back.tensor_lookup import (  # noqa: E402
    TensorLookup,
    TensorMatch,
    array_of,
    fits,
    has_bias,
    layer_with_bias,
    named_tensors,
)
from tests.torch.modules import image, made  # noqa: E402


def constant(name, tensor):
    array = np.asarray(tensor.detach())
    return ir.Value(name=name, const_value=ir.Tensor(array, name=name))


@pytest.fixture
def module():
    a, b = nn.Linear(3, 4), nn.Linear(3, 4, bias=False)
    return made(lambda m, x: m.b(m.a(x)), a=a, b=b, pos=nn.Parameter(image(1, 4, 1))).double()


def test_by_name_also_where_it_is_tied(module):
    module.b.weight = module.a.weight
    lookup = TensorLookup(module)
    assert lookup.find(constant("b.weight", module.a.weight), "b") == TensorMatch("a.weight")


def test_by_numbers_transposed_or_reshaped(module):
    lookup = TensorLookup(module)
    found = lookup.find(constant("val_3", module.b.weight.T), "b")
    assert found == TensorMatch("b.weight", transposed=True)
    assert np.array_equal(
        lookup.laid_out(found, np.arange(12.0).reshape(3, 4)), np.arange(12.0).reshape(3, 4).T
    )
    assert lookup.find(constant("view", module.pos.reshape(4)), "") == TensorMatch("pos")
    assert lookup.laid_out(TensorMatch("pos"), np.zeros(4)).shape == (1, 4, 1)


def test_numbers_that_several_have_are_those_of_the_nearest(module):
    module.b.weight.data = module.a.weight.data.clone()
    lookup = TensorLookup(module)
    assert lookup.find(constant("val_3", module.a.weight.T), "b") == TensorMatch("b.weight", transposed=True)
    assert lookup.find(constant("val_3", module.a.weight.T), "elsewhere") is None


def test_numbers_that_say_nothing_are_nobodys(module):
    module.a.bias.data.zero_()
    lookup = TensorLookup(module)
    assert lookup.find(constant("zeros", torch.zeros(4)), "a") is None
    assert lookup.find(constant("integers", torch.arange(4)), "a") is None
    assert lookup.find(ir.Value(name="computed"), "a") is None


def test_layers_that_can_have_a_bias(module):
    assert layer_with_bias(module, "a") is module.a
    assert (has_bias(module.a), has_bias(module.b)) == (True, False)
    assert (
        layer_with_bias(module, "") is layer_with_bias(module, None) is layer_with_bias(module, "c") is None
    )
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    assert layer_with_bias(computed, "0") is None


def test_names_of_all_tensors():
    module = nn.Sequential(nn.BatchNorm1d(2, affine=False))
    assert {name for name, _ in named_tensors(module)} == {
        "0.running_mean", "0.running_var", "0.num_batches_tracked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "dtype", "expected"),
    [
        ([1e5], torch.float16, False),
        ([1e-7, 1e-8], torch.float16, False),
        ([1e-7, 1.0], torch.float16, True),
        ([1e5], torch.float32, True),
        ([1 / 3], torch.float64, True),
        ([], torch.float32, True),
    ],
)
def test_what_a_type_can_hold(numbers, dtype, expected):
    assert fits(np.asarray(numbers, np.float64), dtype) is expected


def test_arrays_of_constants_alone():
    assert array_of(None) is array_of(ir.Value(name="x")) is None
    assert array_of(constant("c", torch.ones(2))).tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_numpy_does_not_know_are_no_weights():
    module = nn.Module()
    module.codes = nn.Buffer(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    module.sparse = nn.Buffer(torch.eye(3).to_sparse())
    value = ir.Value(name="sparse", const_value=ir.tensor(np.eye(3)))
    assert TensorLookup(module).find(value, "") == TensorMatch("sparse")
