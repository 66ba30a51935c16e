"""Each rule on how an operator is used has a model that breaks it, and the targets that refuse the model.

Which ones do is written down by hand from what their sources say, and not taken from the profiles.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.targets.check import Broken, obstacles
from bnfold.targets.profile import load, names
from bnfold.targets.view import View
from tests.graphs import build, statistics, weight

PICTURE, ROWS, STEPS = "float[1,4,8,8] x", "float[3,8] x", "float[5,1,4] x"
KINDS = ("attribute", "batchnorm", "constant", "outputs", "rank")
PROFILES = {name: load(name) for name in names()}


@dataclass(frozen=True)
class Case:
    """A graph with one node that some targets do not take.

    Attributes:
        body: The node, which makes `y` of `x`.
        refuse: Names of the targets, with spaces between them.
        constants: Its weights by name.
        inputs: Those of the graph.
        opset: Of the graph.
        outputs: Those of the graph, after `y`.
    """

    body: str
    refuse: str
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: str = PICTURE
    opset: int = 19
    outputs: str = ""

    @functools.cached_property
    def view(self) -> View:
        text = f"g ({self.inputs}) => (float y{self.outputs}) {{ {self.body} }}"
        return View(ir.from_proto(build(text, self.constants, opset=self.opset)))


def longs(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


NORM = statistics(4)
FOUR, HALF = {"w": weight(4, 4, 3, 3)}, {"s": floats(1, 1, 0.5, 0.5)}
PADS, AXIS = {"p": longs(0, 0, 1, 1, 0, 0, 1, 1)}, {"a": longs(1)}
RESIZE = "y = Resize <{}> (x, , s)"
NORM_OF_X = "BatchNormalization(x, scale, bias, mean, var)"
ONNX2TF = "litert tflite-micro"

CASES = {
    "grouped Conv": Case("y = Conv <group = 2> (x, w)", "esp-dl", {"w": weight(4, 2, 3, 3)}),
    "Conv over one size": Case("y = Conv(x, w)", "hailo", {"w": weight(4, 4, 3)}, "float[1,4,8] x"),
    "Conv over three sizes": Case(
        "y = Conv(x, w)", "esp-dl hailo tflite-micro", {"w": weight(4, 4, 3, 3, 3)}, "float[1,4,8,8,8] x"
    ),
    "Conv over four sizes": Case(
        "y = Conv(x, w)",
        "esp-dl hailo litert tflite-micro",
        {"w": weight(4, 4, 1, 1, 1, 1)},
        "float[1,4,4,4,4,4] x",
    ),
    "Conv with a computed weight": Case("y = Conv(x, w)", ONNX2TF, {}, f"{PICTURE}, float[4,4,3,3] w"),
    "grouped ConvTranspose": Case("y = ConvTranspose <group = 2> (x, w)", "", {"w": weight(4, 2, 3, 3)}),
    "dilated ConvTranspose": Case("y = ConvTranspose <dilations = [2, 2]> (x, w)", "qnn", FOUR),
    "ConvTranspose with SAME": Case('y = ConvTranspose <auto_pad = "SAME_UPPER"> (x, w)', "ncnn rknn", FOUR),
    "dilated MaxPool": Case(
        "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
        f"esp-dl ncnn {ONNX2TF} qnn st-edge-ai tensorrt",
    ),
    "dilated AveragePool": Case(
        "y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
        f"esp-dl {ONNX2TF} qnn st-edge-ai tensorrt",
    ),
    "MaxPool with indices": Case(
        "y, i = MaxPool <kernel_shape = [2, 2]> (x)", "qnn tensorrt tflite-micro", outputs=", int64 i"
    ),
    "AveragePool over one size": Case(
        "y = AveragePool <kernel_shape = [2]> (x)", "tensorrt", {}, "float[1,4,8] x"
    ),
    "MaxPool over three sizes": Case(
        "y = MaxPool <kernel_shape = [2, 2, 2]> (x)", f"esp-dl {ONNX2TF} qnn rknn", {}, "float[1,4,8,8,8] x"
    ),
    "Add over five dimensions": Case("y = Add(x, x)", "esp-dl", {}, "float[1,2,3,4,5] x"),
    "BatchNorm over one size": Case(f"y = {NORM_OF_X}", "esp-dl", NORM, "float[1,4,8] x"),
    "BatchNorm over three sizes": Case(f"y = {NORM_OF_X}", "esp-dl qnn", NORM, "float[1,4,8,8,8] x"),
    "BatchNorm with computed statistics": Case(
        f"y = {NORM_OF_X}",
        f"{ONNX2TF} qnn rknn",
        {name: NORM[name] for name in ("scale", "bias")},
        f"{PICTURE}, float[4] mean, float[4] var",
    ),
    "BatchNorm in training mode": Case(
        "y, m, v = BatchNormalization <training_mode = 1> (x, scale, bias, mean, var)", "ncnn qnn", NORM
    ),
    "BatchNorm whose statistics are read": Case(
        "y, m, v = BatchNormalization <training_mode = 1> (x, scale, bias, mean, var)",
        "ncnn qnn st-edge-ai",
        NORM,
        outputs=", float[4] m, float[4] v",
    ),
    "LayerNormalization with a mean": Case(
        "y, m = LayerNormalization(x, s)", "qnn tensorrt", {"s": weight(8)}, ROWS, outputs=", float m"
    ),
    "LpNormalization of the first order": Case("y = LpNormalization <p = 1> (x)", f"{ONNX2TF} qnn"),
    "Gemm of a transposed input": Case("y = Gemm <transA = 1> (x, w)", "", {"w": weight(3, 4)}, ROWS),
    "Gemm with a factor": Case("y = Gemm <alpha = 0.5> (x, w)", "qnn", {"w": weight(8, 4)}, ROWS),
    "Gemm with a factor of its bias": Case(
        "y = Gemm <beta = 0.5> (x, w, b)", "qnn", {"w": weight(8, 4), "b": weight(4)}, ROWS
    ),
    "MatMul over five dimensions": Case(
        "y = MatMul(x, w)", "esp-dl qnn st-edge-ai", {"w": weight(8, 8)}, "float[1,2,4,8,8] x"
    ),
    "MatMul over four dimensions": Case("y = MatMul(x, w)", "st-edge-ai", {"w": weight(8, 8)}),
    "Einsum over three dimensions": Case(
        'y = Einsum <equation = "ijk,ikl->ijl"> (x, x)', "st-edge-ai", {}, "float[1,8,8] x"
    ),
    "Transpose over six dimensions": Case("y = Transpose(x)", "qnn tflite-micro", {}, "float[1,2,3,2,2,2] x"),
    "Relu over seven dimensions": Case("y = Relu(x)", "st-edge-ai", {}, "float[1,2,3,2,2,2,2] x"),
    "PRelu with a computed slope": Case(
        "y = PRelu(x, s)", f"{ONNX2TF} rknn st-edge-ai", {}, f"{PICTURE}, float[4,1,1] s"
    ),
    "Pad that wraps": Case('y = Pad <mode = "wrap"> (x, p)', f"esp-dl {ONNX2TF} mnn qnn st-edge-ai", PADS),
    "Pad by the edge": Case('y = Pad <mode = "edge"> (x, p)', "", PADS),
    "Pad by computed sizes": Case("y = Pad(x, p)", "qnn rknn tflite-micro", {}, f"{PICTURE}, int64[8] p"),
    "Resize by cubes": Case(RESIZE.format('mode = "cubic"'), "esp-dl rknn st-edge-ai tensorrt", HALF),
    "Resize with antialiasing": Case(
        RESIZE.format('mode = "linear", antialias = 1'), f"esp-dl {ONNX2TF} qnn st-edge-ai tensorrt", HALF
    ),
    "Resize of mirrored halves": Case(
        RESIZE.format('mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"'),
        f"{ONNX2TF} openvino qnn st-edge-ai tensorrt",
        HALF,
    ),
    "Resize that crops": Case(
        'y = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"> (x, r, s)',
        f"{ONNX2TF} openvino qnn tensorrt",
        {**HALF, "r": floats(0, 0, 0, 0, 1, 1, 1, 1)},
    ),
    "Resize that keeps proportions": Case(
        'y = Resize <mode = "linear", keep_aspect_ratio_policy = "not_larger"> (x, , , t)',
        "st-edge-ai",
        {"t": longs(1, 4, 4, 4)},
    ),
    "Resize by computed scales": Case(
        'y = Resize <mode = "linear"> (x, , s)', "rknn", {}, f"{PICTURE}, float[4] s"
    ),
    "Resize over one size": Case(
        RESIZE.format('mode = "linear"'), "", {"s": floats(1, 1, 2)}, "float[1,4,8] x"
    ),
    "Resize over three sizes": Case(
        RESIZE.format('mode = "linear"'), ONNX2TF, {"s": floats(1, 1, 2, 2, 2)}, "float[1,4,8,8,8] x"
    ),
    "DepthToSpace by columns": Case("y = DepthToSpace <blocksize = 2> (x)", "ncnn"),
    "GridSample by cubes": Case(
        'y = GridSample <mode = "bicubic"> (x, g)', f"{ONNX2TF} qnn", {}, f"{PICTURE}, float[1,4,4,2] g"
    ),
    "GridSample over three sizes": Case(
        "y = GridSample(x, g)",
        "openvino tensorrt",
        {},
        "float[1,4,8,8,8] x, float[1,4,4,4,3] g",
        20,
    ),
    "RoiAlign of the largest": Case(
        'y = RoiAlign <mode = "max"> (x, r, b)', "qnn rknn", {"b": longs(0)}, f"{PICTURE}, float[1,4] r"
    ),
    "Mod as of integers": Case("y = Mod <fmod = 0> (x, x)", "esp-dl", {}, "int32[4] x, float z"),
    "Mod as of C": Case("y = Mod <fmod = 1> (x, x)", f"{ONNX2TF} qnn"),
    "the last of the largest": Case(
        "i = ArgMax <select_last_index = 1> (x)  y = Cast <to = 1> (i)", f"{ONNX2TF} qnn"
    ),
    "ScatterND that adds": Case(
        'y = ScatterND <reduction = "add"> (x, i, u)',
        "litert tensorrt",
        {"i": longs(0, 1).reshape(1, 2)},
        f"{PICTURE}, float[1,8,8] u",
    ),
    "ScatterND of the largest": Case(
        'y = ScatterND <reduction = "max"> (x, i, u)',
        "litert qnn tensorrt",
        {"i": longs(0, 1).reshape(1, 2)},
        f"{PICTURE}, float[1,8,8] u",
    ),
    "ScatterElements that multiplies": Case(
        'y = ScatterElements <reduction = "mul"> (x, i, u)',
        "litert qnn",
        {"i": longs(0).reshape(1, 1, 1, 1)},
        f"{PICTURE}, float[1,1,1,1] u",
    ),
    "LpPool of windows cut off": Case("y = LpPool <kernel_shape = [3, 3], ceil_mode = 1> (x)", "litert"),
    "ScatterElements that adds": Case(
        'y = ScatterElements <reduction = "add"> (x, i, u)',
        "qnn",
        {"i": longs(0).reshape(1, 1, 1, 1)},
        f"{PICTURE}, float[1,1,1,1] u",
    ),
    "Slice with steps": Case(
        "y = Slice(x, s, e, a, t)",
        "ncnn",
        {"s": longs(0), "e": longs(8), "a": longs(2), "t": longs(2)},
    ),
    "Slice backwards": Case(
        "y = Slice(x, s, e, a, t)",
        f"{ONNX2TF} ncnn",
        {"s": longs(7), "e": longs(0), "a": longs(2), "t": longs(-1)},
    ),
    "Conv that pads at the beginning": Case('y = Conv <auto_pad = "SAME_LOWER"> (x, w)', ONNX2TF, FOUR),
    "LpPool over one size": Case("y = LpPool <kernel_shape = [2]> (x)", "litert", {}, "float[1,4,8] x"),
    "dilated LpPool": Case("y = LpPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)", "litert tensorrt"),
    "causal Attention": Case(
        "y = Attention <is_causal = 1, q_num_heads = 2, kv_num_heads = 2> (x, x, x)",
        "litert",
        {},
        "float[1,5,8] x",
        23,
    ),
    "Slice from a computed place": Case(
        "y = Slice(x, s, e, a)", "qnn rknn tflite-micro", {"e": longs(8), **AXIS}, f"{PICTURE}, int64[1] s"
    ),
    "Slice to a computed place": Case(
        "y = Slice(x, s, e, a)", "qnn rknn", {"s": longs(0), **AXIS}, f"{PICTURE}, int64[1] e"
    ),
    "Slice of computed axes": Case(
        "y = Slice(x, s, e, a)", "tensorrt", {"s": longs(0), "e": longs(2)}, f"{PICTURE}, int64[1] a"
    ),
    "Clip with a computed lower limit": Case(
        "y = Clip(x, l, h)", "qnn", {"h": np.float32(6)}, f"{PICTURE}, float l"
    ),
    "Clip with a computed upper limit": Case(
        "y = Clip(x, l, h)", "qnn", {"l": np.float32(0)}, f"{PICTURE}, float h"
    ),
    "Clip to 1": Case("y = Clip(x, l, h)", "tflite-micro", {"l": np.float32(0), "h": np.float32(1)}),
    "CumSum along a computed axis": Case(
        "y = CumSum(x, a)", f"{ONNX2TF} qnn rknn tensorrt", {}, f"{PICTURE}, int64 a"
    ),
    "ReduceMean over computed axes": Case(
        "y = ReduceMean(x, a)", "qnn rknn tensorrt", {}, f"{PICTURE}, int64[1] a"
    ),
    "Squeeze of computed axes": Case("y = Squeeze(x, a)", "tensorrt", {}, f"{PICTURE}, int64[1] a"),
    "Reshape to computed sizes": Case(
        "y = Reshape(x, s)", f"{ONNX2TF} qnn rknn", {}, f"{PICTURE}, int64[2] s"
    ),
    "Reshape to no elements": Case("y = Reshape <allowzero = 1> (x, s)", "st-edge-ai", {"s": longs(1, 256)}),
    "TopK of a computed number": Case("y, i = TopK(x, k)", "qnn", {}, f"{PICTURE}, int64[1] k"),
    "TopK in no order": Case("y, i = TopK <sorted = 0> (x, k)", "tensorrt", {"k": longs(3)}),
    "TopK of very many": Case("y, i = TopK(x, k)", "tensorrt", {"k": longs(4000)}, "float[1,9000] x"),
    "LSTM with the batch first": Case(
        "y = LSTM <hidden_size = 3, layout = 1> (x, w, r)",
        f"{ONNX2TF} qnn rknn st-edge-ai",
        {"w": weight(1, 12, 4), "r": weight(1, 12, 3)},
        STEPS,
    ),
    "LSTM in both directions": Case(
        'y = LSTM <hidden_size = 3, direction = "bidirectional"> (x, w, r)',
        "tflite-micro",
        {"w": weight(2, 12, 4), "r": weight(2, 12, 3)},
        STEPS,
    ),
    "a zero point other than 0": Case(
        "q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)",
        "tensorrt",
        {"s": np.float32(0.1), "z": np.uint8(128)},
    ),
    "a computed step": Case(
        "q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)",
        "rknn",
        {"z": np.uint8(0)},
        f"{PICTURE}, float s",
    ),
    "If with a computed condition": Case(
        "y = If (c) <then_branch = t () => (float[4] a) { a = Relu(x) },"
        " else_branch = e () => (float[4] b) { b = Neg(x) }>",
        "rknn",
        {},
        "float[4] x, bool c",
    ),
    "LpNormalization of the third order": Case(
        "y = LpNormalization <p = 3> (x)", f"{ONNX2TF} qnn st-edge-ai"
    ),
    "Gemm of three dimensions": Case("y = Gemm(x, w)", ONNX2TF, {"w": weight(8, 4)}, "float[1,3,8] x"),
}


def found(case: Case) -> dict[str, list[Broken]]:
    """What breaks a rule on how operators are used, by target."""
    broken = {name: obstacles(profile, case.view) for name, profile in PROFILES.items()}
    used = {name: [one for one in some if one.rule.kind in KINDS] for name, some in broken.items()}
    return {name: some for name, some in used.items() if some}


@pytest.mark.parametrize("name", CASES)
def test_the_targets_that_refuse_it(name: str) -> None:
    assert sorted(found(CASES[name])) == sorted(CASES[name].refuse.split())


def test_every_rule_is_broken_by_one_of_them() -> None:
    asked = {
        (name, rule.what)
        for name, profile in PROFILES.items()
        for rule in profile.rules
        if rule.kind in KINDS
    }
    broken = {
        (name, one.rule.what) for case in CASES.values() for name, some in found(case).items() for one in some
    }
    assert asked - broken == set()


@pytest.mark.parametrize(
    ("kind", "refuse"),
    [("float", []), ("int64", ["st-edge-ai"]), ("uint16", ["st-edge-ai", "tensorrt"])],
)
def test_the_type_of_an_input(kind: str, refuse: list[str]) -> None:
    view = Case("y = Cast <to = 1> (x)", "", {}, f"{kind}[1,4] x").view
    kinds = {name: [one.rule.kind for one in obstacles(profile, view)] for name, profile in PROFILES.items()}
    assert sorted(name for name, some in kinds.items() if "type" in some) == refuse


PLAIN = {
    "Conv": Case("y = Conv(x, w)", "", FOUR),
    "Pad": Case("y = Pad(x, p)", "", PADS),
    "Resize": Case(RESIZE.format('mode = "nearest"'), "", HALF),
    "MaxPool": Case("y = MaxPool <kernel_shape = [2, 2]> (x)", ""),
    "Gemm": Case("y = Gemm <transB = 1> (x, w, b)", "", {"w": weight(4, 8), "b": weight(4)}, ROWS),
    "ReduceMean": Case("y = ReduceMean(x, a)", "", AXIS),
    "LSTM": Case(
        "y = LSTM <hidden_size = 3> (x, w, r)", "", {"w": weight(1, 12, 4), "r": weight(1, 12, 3)}, STEPS
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_use_is_refused_by_none(name: str) -> None:
    assert found(PLAIN[name]) == {}
