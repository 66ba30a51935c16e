"""Random models over the whole operator table, grown value by value with known shapes.

Sizes are mostly 4, whatever an axis means, so that a mistaken axis is not saved by a mismatch of sizes. Every
choice is a call of one function, so that a property test can shrink a graph, and the same choices can grow
the same graph in another precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.random_layers import arithmetic, batchnorm
from tests.random_steps import LIKELY, STEPS
from tests.random_values import Grower, Typed

_BATCH = 2


def grow(g: Grower, steps: int) -> None:
    """Add operators until there are enough, each now and then followed by an affine."""
    for _ in range(steps):
        g.pick(LIKELY if g.choose(3) else STEPS)(g)
        if g.choose(5) < 2:
            g.pick((batchnorm, batchnorm, arithmetic))(g)


def random_model(choose: Callable[[int], int], dtype: type = np.float32) -> onnx.ModelProto:
    """Grow a model: one to three inputs, several outputs, an opset from 13 to 21."""
    opset = (18, 17, 13, 21)[choose(4)]
    grower = Grower(choose, dtype, opset)
    known = choose(4)  # 3: only ranks are recorded; 2: the batch is a symbol
    inputs = []
    for index in range(1 + choose(3)):
        shape = grower.pick(
            ((_BATCH, 4, 4, 4), (4, 4, 4, 4), (_BATCH, 4, 4), (4, 4), (_BATCH, 3, 4, 5), (4, 1, 4, 4))
        )
        dims: list[Any] = [None] * len(shape) if known == 3 else list(shape)
        if known == 2 and shape[0] == _BATCH:
            dims[0] = "N"
        name = f"x{index}"
        inputs.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims)
        )
        inputs[-1].doc_string = ",".join(map(str, shape))
        grower.values.append(Typed(name, shape))
    grow(grower, 4 + choose(11))
    inputs += [helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in grower.conditions]
    made = [value for value in grower.values if not value.name.startswith("x")]
    outputs = [value.name for value in made if not grower.read[value.name]][:6]
    if made and choose(4) == 3:
        outputs.append(made[choose(len(made))].name)
    return helper.make_model(
        grower.graph("random", inputs, sorted(set(outputs))),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )


def random_feeds(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Inputs of a random model."""
    rng = np.random.default_rng(seed)
    made = {}
    for value in model.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if kind == np.bool_:
            made[value.name] = np.asarray(rng.random() < 0.5)
        else:
            made[value.name] = rng.normal(0, 1, [int(size) for size in value.doc_string.split(",")]).astype(
                kind
            )
    return made
