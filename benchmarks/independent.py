"""Whether files compute what an original computes, by other means than bnfold's, none of which is used here.

    python -m benchmarks.independent ORIGINAL INPUTS.npz ANSWER.json FILE ...

All run in ONNX Runtime with its optimizer off, on the same inputs (arrays `0/name`, `1/name`, …), and have to
load at its default as well. Every output is split into its channels, once along axis 1 and once along its
last axis, and each channel's largest difference is held against the channel's own size, and against what
roundings alone do to it: the original whose weights are each changed by one unit in the last place, up or
down at random, and the original with ONNX Runtime's optimizer at its default. A file is right where every
channel differs by no more than the larger of 5e-5 of its size and eight times that; integers, Booleans and
strings are counted where they differ.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

Feeds = Mapping[str, np.ndarray[Any, Any]]
Output = list[np.ndarray[Any, Any]]  # one array for each input

TOLERANCE, TIMES = 5e-5, 8.0
DRAWS = 3  # of roundings of the weights
FEWEST = 8  # numbers of a constant that counts as a weight: fewer may be a size, a scale of sizes or a bound


class Channel(NamedTuple):
    """How far one channel of an output is off.

    Attributes:
        where: Its output, axis and index.
        error: Relative to the channel's largest number; infinite where that is 0.
        noise: What roundings do, relative to the same.
        excess: The error by what is allowed.
    """

    where: str
    error: float
    noise: float
    excess: float


def session(model: Path | bytes, level: str = "ORT_DISABLE_ALL") -> ort.InferenceSession:
    """A session on one thread; the optimizer is off unless another level is named."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(runner: ort.InferenceSession, feeds: Sequence[Feeds]) -> list[Output]:
    """What a session computes, for each output all inputs' values; inputs of other names go by order.

    Raises:
        ValueError: It takes another number of inputs.
    """
    names = [port.name for port in runner.get_inputs()]
    if len(names) != len(feeds[0]):
        raise ValueError(f"it takes {len(names)} inputs, {', '.join(names)}, and not {len(feeds[0])}")
    runs = []
    for one in feeds:
        given = one if set(names) <= set(one) else dict(zip(names, one.values(), strict=True))
        values = runner.run(None, {name: given[name] for name in names})
        runs.append([np.asarray(_flat(value)) for value in values])
    return [list(value) for value in zip(*runs, strict=True)]


def _flat(value: Any) -> Any:
    """A sequence of maps or of arrays as one array."""
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    if isinstance(value, list):
        return np.concatenate([np.ravel(np.asarray(_flat(part))) for part in value]) if value else []
    return value


def rounded(path: Path, seed: int) -> bytes:
    """The model with every weight changed by one unit in the last place, up or down at random."""
    model, draw = onnx.load(path), np.random.default_rng(seed)
    for tensor in _weights(model.graph):
        array = numpy_helper.to_array(tensor)
        if array.size >= FEWEST and array.dtype in (np.float16, np.float32, np.float64):
            towards = np.where(draw.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
            moved = np.where(array == 0, array, np.nextafter(array, towards))
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return model.SerializeToString()


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield attribute.t
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _weights(attribute.g)


def references(path: Path, feeds: Sequence[Feeds]) -> list[list[Output]]:
    """What the original computes, first, and what it computes with other roundings."""
    made = [outputs(session(path), feeds), outputs(session(path, "ORT_ENABLE_ALL"), feeds)]
    made += [outputs(session(rounded(path, seed)), feeds) for seed in range(DRAWS)]
    return made


def compared(names: Sequence[str], truths: list[list[Output]], other: list[Output]) -> Channel:
    """The channel that is farthest off, by what is allowed there.

    Raises:
        ValueError: The outputs differ in number, shape or type, or a number is not finite in one alone.
    """
    truth, *moved = truths
    if len(other) != len(truth):
        raise ValueError(f"{len(other)} outputs instead of {len(truth)}")
    worst = Channel("", 0.0, 0.0, 0.0)
    for place, name in enumerate(names):
        shapes = [[value.shape for value in output[place]] for output in (truth, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} has shape {shapes[1]} instead of {shapes[0]}")
        found = _channels(name, truth[place], other[place], [one[place] for one in moved])
        worst = max((worst, *found), key=lambda channel: channel.excess)
    return worst


def _channels(name: str, truth: Output, other: Output, moved: Sequence[Output]) -> Iterator[Channel]:
    for axis in {1, max((value.ndim for value in truth), default=0) - 1} if truth[0].ndim > 1 else {None}:
        if axis is not None and len({value.shape[axis] for value in truth}) > 1:
            axis = None  # as many channels as there are steps, of which each input needs its own number
        columns = [_split(value, axis) for value in truth]
        size = np.max([_sizes(value) for value in columns], axis=0)
        error = _distance(truth, other, axis)
        noises = [_distance(truth, one, axis) for one in moved if _alike(truth, one)]
        noise = np.max(noises, axis=0) if noises else np.zeros_like(error)
        allowed = np.maximum(TOLERANCE * size, TIMES * noise)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(error > 0, error / allowed, 0.0)
            relative = [np.where(one > 0, one / size, 0.0) for one in (error, noise)]
        if excess.size:
            index = int(np.argmax(excess))
            figures = (float(one[index]) for one in (*relative, excess))
            yield Channel(name if axis is None else f"{name}, axis {axis}, channel {index}", *figures)


def _alike(one: Output, other: Output) -> bool:
    return [value.shape for value in one] == [value.shape for value in other]


def _split(value: np.ndarray[Any, Any], axis: int | None) -> np.ndarray[Any, Any]:
    """Rows, one for each channel."""
    if axis is None:
        return value.reshape(1, -1)
    return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)


def _sizes(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The largest number of each row; its length where it holds no floats."""
    if rows.dtype.kind != "f":
        return np.full(len(rows), rows.shape[1] if rows.ndim > 1 else 1, float)
    wide = np.abs(rows.astype(np.float64))
    return np.max(np.where(np.isfinite(wide), wide, 0.0), axis=1, initial=0.0)


def _distance(one: Output, other: Output, axis: int | None) -> np.ndarray[Any, Any]:
    """The largest difference of each channel over all inputs, or how many of its elements differ."""
    found = []
    for first, second in zip(one, other, strict=True):
        a, b = (_split(value, axis) for value in (first, second))
        if a.dtype.kind != "f" or b.dtype.kind != "f":
            found.append(np.sum(a != b, axis=1).astype(float))
            continue
        wide = [value.astype(np.float64) for value in (a, b)]
        same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(wide[0] - wide[1]))
        found.append(np.max(np.where(np.isnan(difference), np.inf, difference), axis=1, initial=0.0))
    return np.asarray(np.max(found, axis=0))


def read_inputs(path: Path) -> list[Feeds]:
    """The inputs in an `.npz` of arrays `number/name`."""
    with np.load(path, allow_pickle=True) as arrays:
        runs: dict[str, dict[str, Any]] = {}
        for key in arrays.files:
            number, _, name = key.partition("/")
            runs.setdefault(number, {})[name] = arrays[key]
    return list(runs.values())


def main(arguments: Sequence[str]) -> None:
    """Write what every file's farthest channel is, or what is wrong with the file."""
    original, inputs, answer, *files = map(Path, arguments)
    runner = session(original)
    feeds = [one for one in read_inputs(inputs) if _takes(runner, one)]
    names = [port.name for port in runner.get_outputs()]
    truths = references(original, feeds)
    answers = {}
    for path in files:
        answers[path.name] = _answer(path, names, truths, feeds)
    answer.write_text(json.dumps(answers), encoding="utf-8")


def _takes(runner: ort.InferenceSession, feeds: Feeds) -> bool:
    """Whether a network runs on inputs; zeros may be no index, or no length, of anything."""
    try:
        outputs(runner, [feeds])
    except Exception as error:  # ONNX Runtime has a class of errors for each kind
        return "status code returned while running" not in str(error)
    return True


def _answer(
    path: Path, names: Sequence[str], truths: list[list[Output]], feeds: Sequence[Feeds]
) -> dict[str, float | str]:
    try:
        found = compared(names, truths, outputs(session(path), feeds))
        session(path, "ORT_ENABLE_ALL")  # the original's was made for the truths
    except Exception as error:  # one bad file is one bad answer
        return {"problem": " ".join(str(error).replace(str(path), "the file").split())[:200]}
    return {key: _finite(value) for key, value in found._asdict().items()}


def _finite(value: float | str) -> float | str:
    return 1e9 if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(sys.argv[1:])
