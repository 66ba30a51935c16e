"""Small detectors whose heads choose: by NonMaxSuppression, TopK, ArgMax and thresholds.

Two anchors have the same weights for their scores, so that every two scores of one place are equal. Rounding
the weights once (`rounded`) turns a good half of these ties into another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from tests.graphs import build, statistics, weight

ROWS, CLASSES = 12, 3
_BODY = """
  c = Conv <pads = [1, 1, 1, 1]> (x, w)
  b = BatchNormalization (c, scale, bias, mean, var)
  r = Relu (b)
"""
SSD = f"""g (float[1, 6, 8, 8] x) => (float[n, 4] boxes, int64[n] labels, float[n] scores) {{
  {_BODY}
  loc = Conv (r, w_box, b_box)
  boxes_first = Reshape (loc, box_shape)
  all_boxes = Transpose <perm = [0, 2, 1]> (boxes_first)
  conf = Conv (r, w_score)
  flat = Reshape (conf, score_shape)
  all_scores = Sigmoid (flat)
  picked = NonMaxSuppression (all_boxes, all_scores, most, iou, threshold)
  labels = Gather <axis = 1> (picked, one)
  which = Gather <axis = 1> (picked, two)
  one_image = Squeeze (all_boxes, zero)
  boxes = Gather (one_image, which)
  at = Slice (picked, one_, three_, one_)
  image_scores = Squeeze (all_scores, zero)
  scores = GatherND (image_scores, at)
}}"""
YOLO = f"""g (float[1, 6, 8, 8] x) => (float[1, k, 6] rows, int64[1, k] places) {{
  {_BODY}
  loc = Conv (r, w_box, b_box)
  boxes_first = Reshape (loc, box_shape)
  all_boxes = Transpose <perm = [0, 2, 1]> (boxes_first)
  conf = Conv (r, w_score)
  flat = Reshape (conf, score_shape)
  probability = Softmax <axis = 1> (flat)
  best = ReduceMax <keepdims = 0> (probability, one_)
  label = ArgMax <axis = 1, keepdims = 0> (probability)
  top, places = TopK <axis = 1> (best, many)
  at = Unsqueeze (places, two_)
  boxes = GatherND <batch_dims = 1> (all_boxes, at)
  labels = GatherElements <axis = 1> (label, places)
  label_column = Cast <to = 1> (labels)
  l3 = Unsqueeze (label_column, two_)
  t3 = Unsqueeze (top, two_)
  rows = Concat <axis = 2> (boxes, t3, l3)
}}"""
SEGMENTER = f"""g (float[1, 6, 8, 8] x) => (int64[1, 8, 8] labels) {{
  {_BODY}
  logits = Conv (r, w_score)
  labels = ArgMax <axis = 1, keepdims = 0> (logits)
}}"""
THRESHOLD = f"""g (float[1, 6, 8, 8] x) => (float[m] kept) {{
  {_BODY}
  conf = Conv (r, w_score)
  flat = Reshape (conf, minus)
  sure = Greater (flat, bar)
  where = NonZero (sure)
  at = Transpose <perm = [1, 0]> (where)
  kept = GatherND (flat, at)
}}"""


def detector(text: str, seed: int = 0) -> onnx.ModelProto:
    """A detector with random weights, two anchors for each place, of which both have equal scores."""
    score = weight(CLASSES, ROWS, 1, 1, seed=seed + 3)
    box = weight(4, 2, ROWS, 1, 1, seed=seed + 2) / 50
    corners = np.zeros((4, 2), np.float32)
    corners[2:] = 1.0
    twice = np.stack([score, score], axis=1).reshape(2 * CLASSES, ROWS, 1, 1)
    constants = {
        "w": weight(ROWS, 6, 3, 3, seed=seed + 1),
        **statistics(ROWS, seed),
        "w_score": twice if "w_box" in text else np.concatenate([score, score[:1]]),
        "w_box": box.reshape(8, ROWS, 1, 1),
        "b_box": corners.reshape(8),
        "box_shape": np.array([1, 4, 128]),
        "score_shape": np.array([1, CLASSES, 128]),
        "most": np.array([5]),
        "many": np.array([20]),
        "iou": np.array([0.9], np.float32),
        "threshold": np.array([0.6], np.float32),
        "bar": np.array(0.7, np.float32),
        "one": np.array(1),
        "two": np.array(2),
        "zero": np.array([0]),
        "one_": np.array([1]),
        "two_": np.array([2]),
        "three_": np.array([3]),
        "minus": np.array([-1]),
    }
    names = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    return build(text, {name: array for name, array in constants.items() if name in names})


def rounded(model: onnx.ModelProto, seed: int = 0, names: Sequence[str] = ("w_score",)) -> onnx.ModelProto:
    """The model with every number of these weights moved to a neighbour, as rounding may."""
    rng = np.random.default_rng(seed)

    def move(array: np.ndarray) -> np.ndarray:
        return np.nextafter(array, rng.choice([-np.inf, np.inf], array.shape).astype(array.dtype))

    return changed(model, dict.fromkeys(names, move))


def changed(
    model: onnx.ModelProto, changes: dict[str, Callable[[np.ndarray], np.ndarray]]
) -> onnx.ModelProto:
    """The model with other numbers in some weights."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in changes:
            array = changes[tensor.name](onnx.numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made
