"""The shape of an input that was not given: from the file, or the only possible one; else a likely one.

Trials run on tensors without content (PyTorch's fake tensors), so they cost neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bnfold.torch.export.signature import Signature, channels, dimensions
from bnfold.torch.run_quietly import eval_mode, silent, untouched

_COMMON = (224, 32, 28, 64, 96, 128, 256, 299, 384, 512, 16, 8)
_COMMON_DEEP = (32, 64, 16, 8)  # in three dimensions
_COMMON_SEEDS = (1, 4, 7, 8)  # of a generator, which begins with a transposed convolution
_LARGEST = 256  # sizes that are not common ones are tried up to here
_LENGTH = 16  # of a sequence, in a line to paste


@dataclass(frozen=True)
class Derived:
    """A shape, and how it is known.

    Attributes:
        shape: All of its sizes; the batch is 1.
        why: How it is known, as the end of a sentence.
    """

    shape: tuple[int, ...]
    why: str


def shape(signature: Signature) -> Derived | None:
    """The shape of a module's one input, if the file has it or only one is possible; otherwise None.

    Only one is possible:

    - for a network that begins with a Linear: a row of its features. If it also takes a stack of rows, it
      must map each as it maps a single row: then the stack is only a larger batch.
    - for a network that begins with a convolution and takes one size: not one more or less along any axis,
      and no other size of the same area.
    """
    if len(signature.required) != 1:
        return None
    module = signature.module
    stored = _stored(module)
    if stored is not None or signature.first_layer is None:
        return stored
    layer = signature.first_layer[1]
    with eval_mode(module):
        if isinstance(layer, nn.Linear):
            return _row(module, layer)
        if isinstance(module, torch.jit.ScriptModule):  # which does not run without numbers
            return None
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            found = _convolved(module, layer)
            if found is not None and not any(_takes(module, other) for other in _neighbours(found)):
                return Derived(found, "the model takes none of the other sizes that were tried")
    return None


def plausible(signature: Signature) -> tuple[int, ...] | None:
    """A shape that the module runs on, for a line to paste; None if none was found."""
    if signature.first_layer is None or len(signature.required) != 1:
        return None
    module, layer = signature.module, signature.first_layer[1]
    if isinstance(module, torch.jit.ScriptModule):
        return None
    with eval_mode(module):
        count = channels(layer)
        if dimensions(layer) and count:
            return _convolved(module, layer)
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            candidates: list[tuple[int, ...]] = [(1, _LENGTH)]
        elif isinstance(layer, nn.RNNBase) and not layer.batch_first:
            candidates = [(_LENGTH, 1, layer.input_size)]
        elif isinstance(layer, (nn.Linear, nn.RNNBase)):
            assert count is not None, "both have a number of features"
            candidates = [(1, _LENGTH, count[1]), (1, count[1])]
        else:
            return None
        dtype = torch.int64 if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) else None
        return next((one for one in candidates if _takes(module, one, dtype)), None)


def _stored(module: nn.Module) -> Derived | None:
    """The example input that Lightning modules keep, or the size at which timm's models were trained."""
    example = getattr(module, "example_input_array", None)
    if isinstance(example, torch.Tensor):
        return Derived(tuple(example.shape), "the model keeps an example of it")
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        size: Any = config.get("input_size") if isinstance(config, dict) else None
        if isinstance(size, (tuple, list)) and size and all(isinstance(one, int) for one in size):
            return Derived((1, *size), f"the model's {name} has it")
    return None


def _row(module: nn.Module, layer: nn.Linear) -> Derived | None:
    rows = torch.randn(6, layer.in_features, generator=torch.Generator().manual_seed(0)).to(
        layer.weight.dtype
    )
    try:
        with silent(), torch.no_grad(), untouched(module):
            flat = module(rows)
            alone = torch.cat([module(row[None]) for row in rows])
    except Exception:  # the user's own code, which takes something else
        return None
    if not isinstance(flat, torch.Tensor) or not torch.allclose(flat, alone, rtol=1e-3, atol=1e-5):
        return None
    found = Derived((1, layer.in_features), "the model begins with a Linear and maps each row by itself")
    try:
        with silent(), torch.no_grad(), untouched(module):
            stack = module(rows.reshape(2, 3, -1))
    except Exception:  # it takes no stack, so only a row is possible
        return found
    same = isinstance(stack, torch.Tensor) and stack.numel() == flat.numel()
    return found if same and torch.allclose(stack.reshape(flat.shape), flat, rtol=1e-3, atol=1e-5) else None


def _convolved(module: nn.Module, layer: nn.Module) -> tuple[int, ...] | None:
    """The first size, the same along each axis, that the module takes; common ones are tried first."""
    count, axes = channels(layer), dimensions(layer)
    assert count is not None, "the caller has checked"
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    common = _COMMON_SEEDS if transposed else _COMMON_DEEP if axes == 3 else _COMMON
    sizes = [*common, *(size for size in range(1, _LARGEST + 1) if size not in common)]
    shapes = ((1, count[1], *[size] * axes) for size in sizes)
    return next((one for one in shapes if _takes(module, one)), None)


def _neighbours(found: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Other sizes that a module may take, the most likely ones first."""
    head, sizes = tuple(found[:2]), tuple(found[2:])
    for step in (1, -1):
        yield (*head, *(size + step for size in sizes))
        for axis in range(len(sizes)):
            yield (*head, *(size + step * (axis == place) for place, size in enumerate(sizes)))
    yield (*head, *(2 * size for size in sizes))
    if len(sizes) > 1:  # a Flatten that follows sees only the area
        first, second, *rest = sizes
        for one, other in ((2 * first, second // 2), (first // 2, 2 * second)):
            yield (*head, one, other, *rest)


def _takes(module: nn.Module, shape: Sequence[int], dtype: torch.dtype | None = None) -> bool:
    """Whether the module runs on an input of this shape."""
    if any(size < 1 for size in shape):
        return False
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    try:
        with silent(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            module(torch.empty(tuple(shape), dtype=dtype or own))
    except Exception:  # the user's own code, and this shape is not for it
        return False
    return True
