"""The examples in the docstrings of the public functions run, and print what they say."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import bnfold
import bnfold.torch
from bnfold.gate import run
from tests.gate.models import answering
from tests.graphs import build, statistics, weight

TEXT = """g (float[1,2,6,6] x) => (float[1,3,2,2] y) {
    [conv1] a = Conv (x, w) [bn1] b = BatchNormalization (a, scale, bias, mean, var)
    r = Relu (b) [conv2] y = Conv (r, v)
}"""
FUNCTIONS = {
    **{f"bnfold.{name}": getattr(bnfold, name) for name in bnfold.__all__},
    **{f"bnfold.torch.{name}": getattr(bnfold.torch, name) for name in ("fold", "load")},
}
FUNCTIONS = {name: one for name, one in FUNCTIONS.items() if inspect.isfunction(one)}


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that examples use, in a folder with the files that they read."""
    folder = tmp_path_factory.mktemp("examples")
    uneven = weight(4, 2, 3, 3) * np.exp2(np.arange(4, dtype=np.float32)).reshape(4, 1, 1, 1)
    proto = build(TEXT, {"w": uneven, "v": weight(3, 4, 3, 3, seed=2), **statistics(4)})
    onnx.save(proto, folder / "model.onnx")
    onnx.save(bnfold.fold(proto).model, folder / "folded.onnx")
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad():
        for value in (net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var):
            value.uniform_(0.5, 1.5)
    torch.save(net, folder / "net.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(run, "_answers", answering([]))  # a process of its own would take a second to start
        yield {"bnfold": bnfold, "torch": torch, "net": net, "x": torch.randn(1, 2, 6, 6)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_print_what_they_say(name: str, namespace: dict[str, Any]) -> None:
    found = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name, globs=dict(namespace))
    assert sum(len(one.examples) for one in found) >= 1
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for one in found:
        runner.run(one, out=printed.append)
    assert not runner.failures, "".join(printed)


def test_all_public_functions_are_among_them() -> None:
    names = ("benchmark", "check", "equalize", "export", "fold", "inspect", "validate")
    assert FUNCTIONS.keys() == {
        *(f"bnfold.{name}" for name in names),
        "bnfold.torch.fold",
        "bnfold.torch.load",
    }
